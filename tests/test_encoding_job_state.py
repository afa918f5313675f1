from dataclasses import replace

import pytest
import torch

from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.encoding.job_state import claim_folder, job_name, make_settings
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.sources import Source


SOURCE = Source([], {"files": 3, "listing": "abc"})


@pytest.fixture
def settings(tiny_codec):
    return make_settings(SOURCE, describe_codec(tiny_codec), PieceRules())


def test_a_codec_is_described_by_what_its_units_depend_on(tiny_codec, tmp_path):
    description = describe_codec(tiny_codec)

    assert (description.num_units, description.sampling_rate, description.frame_rate) == (50, 16_000, 25.0)
    tiny_codec.save_pretrained(tmp_path / "my-codec")
    saved = describe_codec(type(tiny_codec).from_pretrained(tmp_path / "my-codec"))
    assert saved == replace(description, name="my-codec")


def test_the_vocoder_is_not_part_of_a_codecs_identity(tiny_codec):
    description = describe_codec(tiny_codec)
    weight = next(tiny_codec.vocoder.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
        try:
            assert describe_codec(tiny_codec) == description
        finally:
            weight.copy_(before)


@pytest.mark.parametrize(
    ("setting", "value", "is_same"),
    [
        ("transformers_version", "4.48.0", True),
        ("hidden_dropout", 0.3, True),
        ("conv_stride", [5, 2, 2, 2, 2, 2, 4], False),
        ("layer_norm_eps", 1e-3, False),
    ],
)
def test_only_settings_that_units_depend_on_count(tiny_codec, monkeypatch, setting, value, is_same):
    description = describe_codec(tiny_codec)
    monkeypatch.setattr(tiny_codec.config.encoder_config, setting, value)
    assert (describe_codec(tiny_codec) == description) is is_same


def test_another_codebook_is_another_codec(tiny_codec):
    description = describe_codec(tiny_codec)
    codebook = tiny_codec.codebook.clone()
    tiny_codec.codebook[3, 5] += 1e-6
    try:
        assert describe_codec(tiny_codec).weights != description.weights
    finally:
        tiny_codec.codebook.copy_(codebook)


def test_a_codec_in_bfloat16_is_another_one_and_says_so(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    codecs = [type(tiny_codec).from_pretrained(tmp_path / "codec", dtype=dtype) for dtype in ("float32", "bfloat16")]
    first, second = (make_settings(SOURCE, describe_codec(codec), PieceRules()) for codec in codecs)

    claim_folder(tmp_path / "units" / "train", first)
    with pytest.raises(ValueError, match="codec.dtype: was 'float32', is now 'bfloat16'"):
        claim_folder(tmp_path / "units" / "train", second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rules": {"min_seconds": 0.5}}, r"rules.min_seconds: was 0.1, is now 0.5"),
        ({"source": {"listing": "abd"}}, r"source.listing: was 'abc', is now 'abd'"),
        ({"codec": {"weights": "0" * 64}}, r"codec.weights: was '[0-9a-f]{64}', is now '0{64}'"),
    ],
)
def test_other_settings_are_refused_with_what_changed(tmp_path, settings, change, message):
    claim_folder(tmp_path / "train", settings)
    changed = {name: {**group, **change.get(name, {})} for name, group in settings.items()}

    with pytest.raises(ValueError, match=f"begun with other settings.*:\n  {message}$"):
        claim_folder(tmp_path / "train", changed)


def test_every_rule_is_a_setting(tiny_codec, settings):
    description = describe_codec(tiny_codec)
    for rules in (
        PieceRules(Segmentation(max_seconds=30.0)),
        PieceRules(Segmentation(cut="fixed")),
        PieceRules(Segmentation(cut="fixed", overlap_seconds=1.0)),
        PieceRules(Segmentation(cut="fixed", overlap="context")),
        PieceRules(min_peak_dbfs=-50.0),
    ):
        assert make_settings(SOURCE, description, rules) != settings


def test_another_split_may_have_another_source_but_not_another_codec(tmp_path, settings):
    claim_folder(tmp_path / "train", settings)

    claim_folder(tmp_path / "test", {**settings, "source": {"listing": "other"}})
    with pytest.raises(ValueError, match="'.*/test' holds .*\n  codec.num_units: was 50, is now 100$"):
        claim_folder(tmp_path / "validation", {**settings, "codec": {**settings["codec"], "num_units": 100}})


def test_the_splits_of_a_job_without_a_codec_may_have_other_settings(tmp_path):
    claim_folder(tmp_path / "train", {"models": "a"}, "an alignment")
    claim_folder(tmp_path / "test", {"models": "b"}, "an alignment")

    with pytest.raises(ValueError, match="/train' holds an alignment that was .*:\n  models: was 'a', is now 'b'$"):
        claim_folder(tmp_path / "train", {"models": "b"}, "an alignment")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"split": 1}', b"null", b'"codec"', b"\xff\xfe", b"[" * 100_000]
)
def test_damaged_settings_are_named(tmp_path, settings, content):
    claim_folder(tmp_path / "test", settings)
    (tmp_path / "test" / "settings.json").write_bytes(content)

    with pytest.raises(ValueError, match=f"^'{tmp_path}/test/settings.json' is damaged .*Remove it"):
        claim_folder(tmp_path / "train", settings)


def test_settings_of_another_version_are_not_called_damaged(tmp_path, settings):
    earlier = {name: value for name, value in settings.items() if name != "rules"}
    claim_folder(tmp_path / "train", earlier)
    message = (
        "/train' holds a tokenisation that another version .* begun: its settings lack rules. Continue it with that"
    )
    with pytest.raises(ValueError, match=message):
        claim_folder(tmp_path / "train", settings)


def test_a_job_is_told_from_others_by_its_settings(settings):
    assert job_name(settings) == job_name(dict(reversed(settings.items())))
    assert job_name(settings) != job_name({**settings, "source": {"listing": "abd"}})
