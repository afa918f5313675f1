import json

import pytest
import torch
from datasets import Dataset
from training_utils import make_trainer
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from slam_hf.evaluation.fingerprints import hash_model
from slam_hf.training import trained_model as module
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.trained_model import check_final_steps, trained_model


@pytest.mark.parametrize("bf16", [False, True])
def test_the_model_in_memory_is_the_one_that_was_saved(tmp_path, bf16):
    trainer = make_trainer(tmp_path, max_steps=2, bf16=bf16)
    trainer.train()
    trainer.save_model()
    model = trained_model(trainer, ModelConfig(dtype="float32"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert model is trainer.model and not model.training
    assert hash_model(model) == hash_model(loaded)
    ids = torch.arange(20)[None] % 50 + 2
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, loaded(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"attn_implementation": "flash_attention_2"}])
def test_a_model_that_computes_otherwise_is_loaded(tmp_path, options):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.save_model()
    model = trained_model(trainer, ModelConfig(**{"dtype": "float32", **options}))
    assert model is not trainer.model
    assert model.dtype == torch.float32


@pytest.fixture
def stories(tmp_path):
    """A function that writes pairs of units as a benchmark."""

    def write(*names, units=range(20)):
        rows = {"id": names, "units": [list(units)] * len(names)}
        Dataset.from_dict(rows).to_parquet(tmp_path / "stories" / "units.parquet")
        return PretrainArguments(num_units=50, benchmarks=json.dumps({"sstorycloze": str(tmp_path / "stories")}))

    return write


def test_benchmarks_are_read_before_training(stories, tmp_path):
    check_final_steps(stories("1_correct", "1_incorrect"), 16_000)
    with pytest.raises(ValueError, match="not a pair"):
        check_final_steps(stories("1_correct", "1_incorrect", "2_correct"), 16_000)
    with pytest.raises(ValueError, match="has the unit 50"):
        check_final_steps(stories("1_correct", "1_incorrect", units=[3, 50]), 16_000)
    args = stories("1_correct", "1_incorrect")
    (tmp_path / "stories" / "units.parquet").write_bytes(b"damaged")
    with pytest.raises((OSError, ValueError), match=r"units\.parquet"):
        check_final_steps(args, 16_000)


def test_matplotlib_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(module, "is_matplotlib_available", lambda: False)
    check_final_steps(PretrainArguments(), 16_000)
    assert 'pip install "slam-hf[plots]"' in capsys.readouterr().out


def test_audio_of_benchmarks_needs_a_codec(tmp_path):
    for name in ("1_correct", "1_incorrect"):
        (tmp_path / f"{name}.wav").write_bytes(b"")
    args = PretrainArguments(num_units=50, benchmarks={"sstorycloze": str(tmp_path)})
    with pytest.raises(ValueError, match="holds audio: name the `codec`"):
        check_final_steps(args, 16_000)


def test_the_prompt_and_the_recogniser_are_tried_before_training(tmp_path, recordings):
    (tmp_path / "prompt.wav").write_bytes(b"not audio")
    with pytest.raises(ValueError, match=r"prompt\.wav"):
        check_final_steps(PretrainArguments(prompt=str(tmp_path / "prompt.wav"), codec="codec"), 16_000)
    args = PretrainArguments(prompt=str(recordings[0]), codec="codec", asr_model=str(tmp_path / "whisper"))
    with pytest.raises(OSError, match="whisper"):
        check_final_steps(args, 16_000)
