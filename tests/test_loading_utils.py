import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from slam_hf import (
    HubertUnitCodec,
    HubertUnitTokenizer,
    SpeechLMConfig,
    SpeechLMForCausalLM,
    SpeechLMProcessor,
    SpeechTextTokenizer,
    loading_utils,
)
from slam_hf.configuration_hubert_unit_codec import make_feature_extractor
from slam_hf.corpora.alignment.aligners import CtcAligner, WhisperAligner
from slam_hf.judging.transcription import load_recogniser
from slam_hf.loading_utils import SafeLoadingMixin, find_file, naming_damaged_files


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Resolved(str):
    resolved = COMMIT


class Base:
    @classmethod
    def from_pretrained(cls, name, revision, config, output_loading_info, use_safetensors, weights_only):
        assert use_safetensors and weights_only
        model = SimpleNamespace(config=SimpleNamespace(), revision=revision, state_dict=dict)
        return model, {"missing_keys": set(), "unexpected_keys": set()}


class Model(SafeLoadingMixin, Base):
    config_class = SpeechLMConfig


@pytest.mark.parametrize(
    ("resolved", "commit"),
    [(Resolved("main"), COMMIT), (COMMIT, COMMIT), ("main", None)],
    ids=["name", "commit", "lost"],
)
def test_the_commit_is_that_of_the_revision(monkeypatch, resolved, commit):
    monkeypatch.setattr(loading_utils, "resolve_revision", lambda name, revision, **access: resolved)
    options = {"config": SpeechLMConfig(), "use_safetensors": False, "weights_only": False}
    model = Model.from_pretrained("user/model", **options)
    assert model.config._commit_hash == commit
    assert model.revision is resolved  # nothing is resolved twice
    assert Model.from_pretrained("user/model", output_loading_info=True, **options)[0].config._commit_hash == commit


def test_folders_have_no_commit(tiny_model, tiny_codec, tmp_path):
    for model_class, model in ((SpeechLMForCausalLM, tiny_model), (HubertUnitCodec, tiny_codec)):
        model.save_pretrained(tmp_path)
        assert model_class.from_pretrained(tmp_path, revision=COMMIT).config._commit_hash is None


def test_another_model_is_not_taken_for_one(tiny_model, tiny_codec, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_codec.save_pretrained(tmp_path / "codec")
    with pytest.raises(ValueError, match="model' holds a model of type 'speech_language_model', and HubertUnitCodec"):
        HubertUnitCodec.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="codec' holds a model of type 'hubert_unit_codec', and SpeechLMForCausalLM"):
        SpeechLMForCausalLM.from_pretrained(tmp_path / "codec")


@pytest.mark.parametrize("kind", ["missing", "unexpected"])
def test_weights_are_those_of_the_configuration(tiny_codec, tmp_path, kind):
    tiny_codec.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["other" if kind == "unexpected" else "codebook"] = weights.pop("codebook").clone()
    if kind == "unexpected":
        weights["codebook"] = weights["other"].clone()
    else:
        del weights["codebook"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    name = "other" if kind == "unexpected" else "codebook"
    with pytest.raises(ValueError, match=f"the weights do not fit config.json, {kind} are {name}"):
        HubertUnitCodec.from_pretrained(tmp_path)


def test_what_comes_with_the_package_has_the_name_that_finds_it():
    codec = HubertUnitCodec.from_pretrained("quickstart:codec")
    assert (codec.name_or_path, codec.codebook_size) == ("quickstart:codec", 500)


def test_a_built_codec_is_known_by_the_folder_it_is_saved_in(tiny_codec, tmp_path):
    codec = HubertUnitCodec(tiny_codec.config)
    codec.name_or_path = ""
    codec.save_pretrained(tmp_path / "first")
    codec.save_pretrained(tmp_path / "second")
    assert codec.name_or_path == str(tmp_path / "first")


def test_a_configuration_does_not_say_how_to_load():
    hostile = {"attn_implementation": "a/b", "trust_remote_code": True}
    part = {**hostile, "auto_map": {}, "quantization_config": {}, "part": {**hostile, "auto_map": {}}}
    config = {"model_type": "x", "auto_map": {"AutoConfig": "c.C"}, "part": part, **hostile}
    kept = {"model_type": "x", "auto_map": {"AutoConfig": "c.C"}, "part": {"part": {}}}
    assert loading_utils.without_loading_options(config) == kept


DAMAGE = {"empty": b"", "truncated": None, "garbage": b"\x80\xff garbage", "a list": b"[1]", "a number": b"3"}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named(tiny_model, tmp_path, name, damage):
    tiny_model.save_pretrained(tmp_path)
    SpeechLMProcessor(make_feature_extractor(), HubertUnitTokenizer(num_units=50)).save_pretrained(tmp_path)
    (tmp_path / "notes.json").write_text("not the model's")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:30] if DAMAGE[damage] is None else DAMAGE[damage])
    classes = (HubertUnitTokenizer, SpeechLMProcessor) if "tokenizer" in name else (SpeechLMForCausalLM,)
    for cls in classes:
        with pytest.raises((OSError, ValueError), match=name):
            cls.from_pretrained(tmp_path)


def test_an_error_of_a_whole_folder_stays(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "evaluation.json").write_text("[")
    with pytest.raises(KeyError, match="mine"), naming_damaged_files(tmp_path):
        raise KeyError("mine")


def test_a_model_that_is_neither_here_nor_reachable_is_named(tmp_path):
    message = "^There is no folder 'mistyped', and from the Hub it cannot be loaded: Not connected.$"
    with pytest.raises(OSError, match=message), naming_damaged_files("mistyped"):
        raise OSError("Not connected.\nSee elsewhere.")
    with pytest.raises(
        OSError, match="^There is no folder 'mistyped', and from the Hub .*: downloads are switched off"
    ):
        HubertUnitCodec.from_pretrained("mistyped", local_files_only=True)
    with pytest.raises(OSError, match="^There is no folder 'codec', and"), naming_damaged_files("user/model"):
        raise OSError("There is no folder 'codec', and from the Hub it cannot be loaded: Not connected.")
    with pytest.raises(OSError, match="^mistyped has no config.json$"), naming_damaged_files("mistyped"):
        raise OSError("mistyped has no config.json")
    with pytest.raises(OSError, match="^Not connected.$"), naming_damaged_files(tmp_path):
        raise OSError("Not connected.")


def test_a_missing_folder_that_cannot_be_a_repository_is_named(tmp_path):
    name = str(tmp_path / "mistyped")

    with pytest.raises(OSError, match=r"^There is no folder '.*/mistyped', and it is not the name of a repository\.$"):
        HubertUnitCodec.from_pretrained(name)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_experts_implementation_internal"])
def test_a_configuration_does_not_choose_the_code_of_attention(key):
    config = {"vocab_size": 52, key: "someone/kernel", "base_config": {"model_type": "llama", key: "someone/kernel"}}
    config = SpeechLMConfig.from_dict(config)
    assert "someone/kernel" not in (config._attn_implementation, config._experts_implementation)
    assert "someone/kernel" not in str(vars(config.base_config))


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/model.safetensors", "pytorch_model.bin"])
def test_an_index_names_only_safetensors_beside_it(tiny_model, tmp_path, file):
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=r"index\.json' names '.*': weights must be safetensors in the folder"):
        SpeechLMForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("auto_class", [SpeechLMForCausalLM, AutoConfig, AutoModel, AutoModelForCausalLM])
@pytest.mark.parametrize(
    ("value", "named"),
    [({"vocab_size": "52"}, "vocab_size"), ({"id2label": 3}, "items"), ({"num_units": 70_000}, "65,536")],
)
def test_a_wrong_value_in_a_file_is_named_with_its_folder(tiny_model, tmp_path, auto_class, value, named):
    tiny_model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | value), encoding="utf-8")
    with pytest.raises(ValueError, match=f"'{tmp_path}' cannot be loaded: (.|\n)*{named}"):
        auto_class.from_pretrained(tmp_path)


def test_a_wrong_value_in_the_configuration_of_a_codec_is_named_with_its_folder(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad": "40"}), encoding="utf-8")
    for auto_class in (AutoConfig, AutoModel, HubertUnitCodec):
        with pytest.raises(ValueError, match=f"'{tmp_path}' cannot be loaded: (.|\n)*pad"):
            auto_class.from_pretrained(tmp_path)


def test_weights_of_other_sizes_are_named_with_their_folder(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name][:1].clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"'{tmp_path}' cannot be loaded: .*mismatched_sizes"):
        SpeechLMForCausalLM.from_pretrained(tmp_path)


def test_memory_that_is_used_up_is_not_called_a_fault_of_the_folder(tmp_path):
    with pytest.raises(torch.OutOfMemoryError), naming_damaged_files(tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("content", [b"{}", b'{"model": {"type": "WordLevel", "vocab": {"a": -1}}}', b'{"model": 3}'])
def test_a_tokenizer_that_is_only_json_is_named(interleaved_checkpoint, tmp_path, content):
    units, both = tmp_path / "units", tmp_path / "both"
    HubertUnitTokenizer(num_units=50).save_pretrained(units)
    text_tokenizer = str(interleaved_checkpoint / "text-tokenizer")
    SpeechTextTokenizer.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer).save_pretrained(both)
    for folder, tokenizer_class in ((units, HubertUnitTokenizer), (both, SpeechTextTokenizer)):
        (folder / "tokenizer.json").write_bytes(content)
        for loading_class in (tokenizer_class, AutoTokenizer):
            with pytest.raises(ValueError, match=f"'{folder}/tokenizer.json' is damaged"):
                loading_class.from_pretrained(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_without_files_is_named(tiny_model, tmp_path, content):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        SpeechLMForCausalLM.from_pretrained(tmp_path)


def test_damaged_files_of_other_models_are_named(tmp_path):
    """Of a speech recogniser, a text LM, ...: where their Auto classes do not say which file it was."""
    (tmp_path / "config.json").write_text("[1]")
    device = torch.device("cpu")
    loads = [
        lambda: CtcAligner.from_pretrained(str(tmp_path)),
        lambda: WhisperAligner.from_pretrained(str(tmp_path)),
        lambda: load_recogniser(str(tmp_path), device),
        lambda: SpeechLMForCausalLM.from_text_lm(tmp_path),
    ]
    for load in loads:
        with pytest.raises(ValueError, match=f"'{tmp_path}/config.json' is damaged"):
            load()


def test_a_file_is_found_in_a_folder_on_the_hub_and_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--user--codec" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "codebook.json").write_text("{}")
    assert find_file(snapshot, "codebook.json") == str(snapshot / "codebook.json")
    assert find_file("user/codec", "codebook.json", COMMIT) == str(snapshot / "codebook.json")
    assert find_file("quickstart:codec", "config.json").endswith("/codec/config.json")
    for name in (snapshot, "user/codec", "quickstart:codec"):
        assert find_file(name, "missing.json", COMMIT) is None
