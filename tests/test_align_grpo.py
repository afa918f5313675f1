import json
from pathlib import Path

import align_grpo
import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny_judges import save_recogniser, save_text_lm
from training_utils import tiny_speech_lm
from transformers import AutoProcessor, EncodecFeatureExtractor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from slam_hf import HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.command_line import parse_arguments
from slam_hf.unit_vocabulary import unit_string


SETTINGS = {
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "save_strategy": "no",
}


def random_prompts(count: int) -> list[str]:
    generator = np.random.default_rng(0)
    return [unit_string(generator.integers(0, 50, size=generator.integers(4, 9))) for _ in range(count)]


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_online_trainers_take_the_model_and_the_tokenizer_as_they_are(trainer, config, tmp_path):
    called = []

    def share_of_unit_7(prompts, completions, completion_ids, **columns):
        called.extend(zip(prompts, completions, completion_ids, strict=True))
        return [text.count("<Un7>") / len(ids) for text, ids in zip(completions, completion_ids, strict=True)]

    args = config(
        output_dir=str(tmp_path),
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=8,
        max_steps=25,
        learning_rate=3e-3,
        beta=0.0,
        logging_steps=1,
        **SETTINGS,
    )
    online = trainer(
        model=tiny_speech_lm(hidden_size=32, intermediate_size=64, num_hidden_layers=2, initializer_range=0.1),
        reward_funcs=share_of_unit_7,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": random_prompts(16)}),
        processing_class=HubertUnitTokenizer(num_units=50),
    )
    online.train()
    prompt, completion, ids = called[0]
    assert prompt in random_prompts(16)
    units = [index - 2 for index in ids if index > 1]  # without <S>, which may end it
    assert completion == unit_string(units)
    rewards = [log["reward"] for log in online.state.log_history if "reward" in log]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.2


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_codec) -> Path:
    """Folders of the models and of the prompts."""
    folder = tmp_path_factory.mktemp("workplace")
    tiny_codec.save_pretrained(folder / "codec")
    tiny_speech_lm(initializer_range=0.1).save_pretrained(folder / "model")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    processor = SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50), audio_tokenizer=tiny_codec)
    processor.save_pretrained(folder / "model")
    save_recogniser(folder / "recogniser")
    save_text_lm(folder / "text_lm")
    Dataset.from_dict({"prompt": random_prompts(8)}).to_parquet(folder / "prompts" / "train.parquet")
    Dataset.from_dict({"prompt": random_prompts(10)[8:]}).to_parquet(folder / "prompts" / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def align(workplace):
    """Calls the script in this process."""

    def run(output_dir: Path, **arguments):
        arguments = {
            **SETTINGS,
            "model_name_or_path": workplace / "model",
            "dataset_name": workplace / "prompts",
            "asr_model": workplace / "recogniser",
            "judge_model": workplace / "text_lm",
            "output_dir": output_dir,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 2,
            "num_generations": 4,
            "num_generations_eval": 1,
            "max_completion_length": 12,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            **arguments,
        }
        command = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
        libraries = (align_grpo.GRPOConfig, align_grpo.ModelArguments)
        align_grpo.main(*parse_arguments(align_grpo.__doc__, (align_grpo.OnlineAlignArguments,), libraries, command))
        return load_file(output_dir / "model.safetensors")

    return run


def test_what_a_model_says_is_judged_while_it_is_trained(align, workplace, tmp_path, capsys):
    after = align(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2, eval_on_start=True)
    assert "Held-out reward: " in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "training_run.json").read_text())
    assert record["objective"] == "online alignment"
    assert (record["recipe"]["judge"], record["recipe"]["num_generations"]) == ("perplexity", 4)
    assert record["corpora"][0]["num_rows"] == 8
    assert record["validation_steps"] == [0, 2]
    assert type(SpeechLMForCausalLM.from_pretrained(tmp_path)) is SpeechLMForCausalLM
    assert AutoProcessor.from_pretrained(tmp_path).audio_tokenizer is not None
    before = load_file(workplace / "model" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in after)
    with pytest.raises(ValueError, match="asr_model"):  # another reward is another run
        align(tmp_path, max_steps=2, asr_model="another")


@pytest.mark.slow
def test_an_interrupted_alignment_continues_to_the_same_weights(align, tmp_path, monkeypatch):
    whole = align(tmp_path / "whole", max_steps=4)

    def interrupt(trainer):
        raise KeyboardInterrupt

    saves = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(align_grpo, "save_model_card", interrupt)
        align(tmp_path / "cut", **saves)
    for path in (tmp_path / "cut" / "checkpoint-4").iterdir():
        path.unlink()
    cut = align(tmp_path / "cut", **saves, resume_from_checkpoint="latest")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


def test_a_model_without_a_codec_cannot_speak(align, workplace, tmp_path):
    HubertUnitTokenizer(num_units=50).save_pretrained(tmp_path / "model")
    tiny_speech_lm().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="model' names no codec, which makes speech of its units"):
        align(tmp_path / "out", model_name_or_path=tmp_path / "model")


def test_fsdp_is_refused(align, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="Online alignment is not possible with FSDP"):
        align(tmp_path / "out")
