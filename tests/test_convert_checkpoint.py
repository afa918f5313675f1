import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from test_sharded_checkpoints import save_shards
from training_utils import tiny_speech_lm
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, OPTConfig, OPTForCausalLM

from slam_hf import HubertUnitCodec, HubertUnitTokenizer, SpeechLMProcessor, SpeechTextTokenizer
from slam_hf.configuration_hubert_unit_codec import make_feature_extractor
from slam_hf.hub.repository_files import publishable_files
from slam_hf.sharded_checkpoints import MODEL_SHARDS


SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "convert_checkpoint.py"
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Run the script into `tmp_path / "converted"`, and return that folder, or the error that it ends with."""

    def run(**arguments) -> Path | str:
        command = [str(SCRIPT), "--output_dir", str(tmp_path / "converted")]
        for name, value in arguments.items():
            command += [f"--{name}", str(value)]
        monkeypatch.setattr(sys, "argv", command)
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stopped:
            return str(stopped.code)
        return tmp_path / "converted"

    return run


def test_a_published_checkpoint_becomes_complete(convert, published_checkpoint, tmp_path):
    folder = convert(source=published_checkpoint, repo_id="user/model")
    input_ids = torch.from_numpy(np.load(published_checkpoint / "reference.npz")["input_ids"])
    models = [AutoModelForCausalLM.from_pretrained(checkpoint) for checkpoint in (folder, published_checkpoint)]
    with torch.no_grad():
        assert torch.equal(models[0](input_ids).logits, models[1](input_ids).logits)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer("<Un7>")["input_ids"] == [1, 9]
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "audio-to-audio"
    config = json.loads((folder / "config.json").read_text())
    assert "AutoModelForCausalLM" in config["auto_map"]
    assert "trust_remote_code" not in config
    assert {path.suffix for path in folder.iterdir()} == {".md", ".py", ".json", ".safetensors"}
    assert list(tmp_path.iterdir()) == [folder]
    for path in folder.iterdir():
        assert str(FIXTURES).encode() not in path.read_bytes(), path

    assert "exists: remove it" in convert(source=published_checkpoint)


def test_a_sharded_checkpoint_becomes_complete(convert, tmp_path):
    model = tiny_speech_lm()
    save_shards(tmp_path / "checkpoint-2" / MODEL_SHARDS, "model", model.state_dict())
    model.config.save_pretrained(tmp_path / "checkpoint-2")
    SpeechLMProcessor(make_feature_extractor(16_000), HubertUnitTokenizer(50)).save_pretrained(
        tmp_path / "checkpoint-2"
    )
    model.generation_config.save_pretrained(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match="in shards: `slam-hf convert --source .*/checkpoint-2` makes a whole one"):
        publishable_files(tmp_path / "checkpoint-2")
    folder = convert(source=tmp_path / "checkpoint-2")
    for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert set(publishable_files(folder)) >= {folder / "model.safetensors", folder / "processor_config.json"}


def test_a_checkpoint_of_text_and_speech_becomes_complete(convert, interleaved_checkpoint):
    case = json.loads((interleaved_checkpoint / "interleaved.json").read_text())["cases"][0]
    folder = convert(source=interleaved_checkpoint, text_tokenizer=interleaved_checkpoint / "text-tokenizer")
    for tokenizer in (AutoTokenizer.from_pretrained(folder), AutoProcessor.from_pretrained(folder).tokenizer):
        assert isinstance(tokenizer, SpeechTextTokenizer)
        assert tokenizer(case["string"])["input_ids"] == case["input_ids"]
    reference = np.load(interleaved_checkpoint / "reference.npz")
    input_ids, mask = (torch.from_numpy(reference[name]) for name in ("input_ids", "attention_mask"))
    scores = AutoModelForCausalLM.from_pretrained(folder).log_likelihood(input_ids, mask)
    torch.testing.assert_close(scores, torch.from_numpy(reference["ll_mean"]), atol=1e-4, rtol=0)
    assert "over text and 40 discrete speech units" in (folder / "README.md").read_text()
    for path in folder.iterdir():
        assert str(FIXTURES).encode() not in path.read_bytes(), path

    assert "Pass the text tokenizer" in convert(source=interleaved_checkpoint, output_dir=folder.parent / "other")


def test_parts_become_a_codec(convert, tiny_codec):
    folder = convert(
        hubert=FIXTURES / "hubert-25hz",
        layer=3,
        kmeans=FIXTURES / "hubert-25hz" / "kmeans.bin",
        vocoder=FIXTURES / "unit-hifigan" / "g_00500000",
        vocoder_config=FIXTURES / "unit-hifigan" / "config.json",
    )
    codec = HubertUnitCodec.from_pretrained(folder)
    for name, tensor in tiny_codec.state_dict().items():
        assert torch.equal(codec.state_dict()[name], tensor), name
    assert ModelCard.load(folder / "README.md").text
    for path in folder.iterdir():
        assert str(FIXTURES).encode() not in path.read_bytes(), path


def test_other_families_are_recognised(convert, tmp_path, capsys):
    folder = convert(source=FIXTURES / "gslm-scaling")
    assert AutoProcessor.from_pretrained(folder).tokenizer("<Un7>")["input_ids"] == [1, 9]
    shutil.rmtree(folder)

    config = OPTConfig(
        hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16, vocab_size=54
    )
    config.offset = 4
    OPTForCausalLM(config).save_pretrained(tmp_path / "twist")
    folder = convert(source=tmp_path / "twist")
    # TWIST puts nothing in front of the units.
    assert AutoProcessor.from_pretrained(folder).tokenizer("<Un7>")["input_ids"] == [9]


def test_a_text_lm_is_exported_in_one_command(convert, published_checkpoint):
    folder = convert(source=published_checkpoint, to_text_lm=True)
    model, text_lm = (AutoModelForCausalLM.from_pretrained(source) for source in (published_checkpoint, folder))
    assert type(text_lm) is type(model.lm)
    assert not list(folder.glob("*.py"))
    prompt = AutoTokenizer.from_pretrained(folder)("<Un7><Un3>", return_tensors="pt")
    assert prompt["input_ids"].tolist() == [[1, 9, 5]]
    options = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(text_lm.generate(**prompt, **options), model.generate(**prompt, **options))


def test_a_text_lm_of_text_and_speech_reads_both(convert, interleaved_checkpoint):
    folder = convert(
        source=interleaved_checkpoint, to_text_lm=True, text_tokenizer=interleaved_checkpoint / "text-tokenizer"
    )
    model, text_lm = (AutoModelForCausalLM.from_pretrained(source) for source in (interleaved_checkpoint, folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__module__.startswith("transformers.")
    for case in json.loads((interleaved_checkpoint / "interleaved.json").read_text())["cases"]:
        assert tokenizer(case["string"])["input_ids"] == case["input_ids"]
        units = [token for token in tokenizer.convert_ids_to_tokens(case["input_ids"]) if token.startswith("<Un")]
        heard = tokenizer.decode(case["input_ids"], skip_special_tokens=True)
        assert [f"<Un{unit}>" for unit in re.findall("<Un([0-9]+)>", heard)] == units
    ids = torch.tensor([case["input_ids"]])
    with torch.no_grad():
        assert torch.equal(text_lm(ids).logits, model(ids).logits)


def test_a_codec_with_other_units_is_refused(convert, published_checkpoint, tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    error = convert(source=published_checkpoint, codec=tmp_path / "codec")
    assert "has 50 units and the model 500" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec"]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda weights: weights.write_bytes(weights.read_bytes()[:-1]), "is damaged or cut short"),
        (lambda weights: weights.write_bytes(b"\x80\x04."), "is damaged or cut short"),
        (lambda weights: weights.unlink(), "lacks model.safetensors"),
        (lambda weights: weights.with_name("config.json").write_text("{"), "config.json' is not JSON"),
        (lambda weights: weights.with_name("config.json").write_text("{}"), "holds a model of type None"),
        (lambda weights: weights.with_name("config.json").unlink(), "lacks config.json"),
    ],
    ids=["cut short", "a pickle", "no weights", "no JSON", "another type", "no configuration"],
)
def test_damaged_checkpoints_leave_nothing_behind(convert, published_checkpoint, tmp_path, damage, error):
    source = tmp_path / "source"
    shutil.copytree(published_checkpoint, source)
    damage(source / "model.safetensors")
    assert error in convert(source=source)
    assert list(tmp_path.iterdir()) == [source]


def test_weights_that_are_missing_are_named(convert, published_checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(published_checkpoint, source)
    config = json.loads((source / "config.json").read_text())
    config["base_config"]["num_hidden_layers"] = 3
    (source / "config.json").write_text(json.dumps(config))
    assert "do not fit config.json, missing are lm.model.layers.2." in convert(source=source)


def test_what_to_convert_must_be_clear(convert, published_checkpoint):
    assert "Name either `--source`" in convert()
    assert "Name either `--source`" in convert(source=published_checkpoint, hubert="hubert")
    assert "needs `--hubert`, `--layer` and `--kmeans`" in convert(hubert="hubert")
    parts = {"hubert": "hubert", "layer": 3, "kmeans": "kmeans.bin"}
    assert "`--to_text_lm` needs `--source`" in convert(**parts, to_text_lm=True)
