import json
import shutil
import subprocess
from pathlib import Path

import align_dpo
import launched_script
import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from test_pretrain import ACCELERATE
from training_utils import tiny_speech_lm
from transformers import AutoProcessor, EncodecFeatureExtractor
from trl import DPOConfig, DPOTrainer

from slam_hf import HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.command_line import parse_arguments
from slam_hf.hub.samples import read_samples
from slam_hf.unit_vocabulary import unit_string


ROOT = Path(__file__).parent.parent
SETTINGS = {
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "dataloader_pin_memory": False,
    "precompute_ref_log_probs": True,
    "report_to": "none",
}


def separable_pairs(count: int, seed: int) -> Dataset:
    """Pairs with an obvious rule: what is chosen goes up from the prompt's last unit, the other goes down."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        prompt = generator.integers(10, 40, size=generator.integers(3, 6))
        steps = np.arange(1, generator.integers(4, 8))
        rows.append(
            {
                "prompt": unit_string(prompt),
                "chosen": unit_string(prompt[-1] + steps),
                "rejected": unit_string(prompt[-1] - steps),
                "prompt_text": "a b c",
                "chosen_text": "d e f",
            }
        )
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny speech language model with its processor."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_speech_lm(hidden_size=32, intermediate_size=64, num_hidden_layers=2, initializer_range=0.1).save_pretrained(
        folder
    )
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def align(checkpoint, tmp_path_factory):
    """Calls the script in this process, on separable pairs. `command` makes its arguments."""
    folder = tmp_path_factory.mktemp("pairs")
    separable_pairs(128, seed=0).to_parquet(folder / "train.parquet")
    separable_pairs(32, seed=1).to_parquet(folder / "test.parquet")

    def command(output_dir: Path, **arguments) -> list[str]:
        arguments = {
            "model_name_or_path": checkpoint,
            "dataset_name": folder,
            "output_dir": output_dir,
            "per_device_train_batch_size": 8,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "inverse_sqrt",
            "warmup_steps": 2,
            "logging_steps": 1,
            "eval_on_start": True,
            **SETTINGS,
            **arguments,
        }
        return [text for name, value in arguments.items() for text in (f"--{name}", *str(value).split())]

    def run(output_dir: Path, **arguments):
        args = command(output_dir, **arguments)
        libraries = (align_dpo.DPOConfig, align_dpo.ModelArguments)
        align_dpo.main(*parse_arguments(align_dpo.__doc__, (align_dpo.AlignArguments,), libraries, args))
        return load_file(output_dir / "model.safetensors")

    run.command = command
    return run


def test_prompt_and_completions_meet_at_the_unit(checkpoint, tmp_path):
    row = {"prompt": "<Un3><Un49>", "chosen": "<Un7>", "rejected": "<Un49><Un0><Un1>"}
    trainer = DPOTrainer(
        model=SpeechLMForCausalLM.from_pretrained(checkpoint),
        args=DPOConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=Dataset.from_list([row]),
        processing_class=HubertUnitTokenizer(num_units=50),
    )
    tokens = trainer.train_dataset[0]
    assert tokens["prompt_ids"] == [1, 5, 51]
    assert tokens["chosen_ids"] == [9, 1]
    assert tokens["rejected_ids"] == [51, 2, 3, 1]
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].tolist() == [[1, 5, 51, 9, 1, 0, 0], [1, 5, 51, 51, 2, 3, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0], [1] * 7]
    assert batch["completion_mask"].tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]


def test_reference_log_probabilities_are_those_of_the_model(checkpoint, tmp_path):
    pairs = separable_pairs(3, seed=2).select_columns(["prompt", "chosen", "rejected"])
    tokenizer = HubertUnitTokenizer(num_units=50)
    trainer = DPOTrainer(
        model=SpeechLMForCausalLM.from_pretrained(checkpoint),
        args=DPOConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    model = SpeechLMForCausalLM.from_pretrained(checkpoint)
    for pair, row in zip(pairs, trainer.train_dataset, strict=True):
        for name in ("chosen", "rejected"):
            ids = torch.tensor([tokenizer(pair["prompt"] + pair[name])["input_ids"] + [tokenizer.eos_token_id]])
            prompt_length = len(tokenizer(pair["prompt"])["input_ids"])
            expected = model.log_likelihood(ids, reduction="sum") - model.log_likelihood(
                ids[:, :prompt_length], reduction="sum"
            )
            assert row[f"ref_{name}_logps"] == pytest.approx(expected.item(), abs=1e-3)


def test_preferences_are_learnt(align, tmp_path, capsys):
    align(tmp_path, max_steps=40, save_strategy="steps", save_steps=40, max_auto_bleu=0.3)
    state = json.loads((tmp_path / "checkpoint-40" / "trainer_state.json").read_text())
    accuracies = [log["rewards/accuracies"] for log in state["log_history"] if "rewards/accuracies" in log]
    assert accuracies[-1] > 0.95
    printed = capsys.readouterr().out
    first, last = (
        float(text) for text in printed.split("Held-out reward margin: ")[1].split(" after")[0].split(" at first, ")
    )
    assert first == 0.0
    assert last > 1.0
    first, last = (
        float(text)
        for text in printed.split("Held-out reward accuracy (%): ")[1].split(" after")[0].split(" at first, ")
    )
    assert last > 95
    assert type(AutoProcessor.from_pretrained(tmp_path)) is SpeechLMProcessor
    assert type(SpeechLMForCausalLM.from_pretrained(tmp_path)) is SpeechLMForCausalLM


def test_lora_is_merged_into_the_model(align, checkpoint, tmp_path):
    before = load_file(checkpoint / "model.safetensors")
    after = align(
        tmp_path, max_steps=2, use_peft=True, lora_r=2, lora_target_modules="q_proj v_proj", save_strategy="no"
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"lm.model.layers.{layer}.self_attn.{name}_proj.weight" for layer in range(2) for name in "qv"}


def test_an_interrupted_alignment_continues_to_the_same_weights(align, tmp_path, monkeypatch):
    whole = align(tmp_path / "whole", max_steps=6, save_strategy="no")

    def interrupt(trainer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(align_dpo, "save_model_card", interrupt)
        align(tmp_path / "cut", max_steps=6, save_strategy="steps", save_steps=3)
    for path in (tmp_path / "cut" / "checkpoint-6").iterdir():
        path.unlink()
    cut = align(tmp_path / "cut", max_steps=6, save_strategy="steps", save_steps=3, resume_from_checkpoint="latest")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


def test_the_aligned_model_continues_a_recording_for_its_card(align, checkpoint, tiny_codec, recordings, tmp_path):
    with pytest.raises(ValueError, match="names no codec to continue the recording `prompt` with"):
        align(tmp_path / "aligned", max_steps=1, prompt=recordings[0])
    tiny_codec.save_pretrained(tmp_path / "codec")
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.audio_tokenizer = tiny_codec
    shutil.copytree(checkpoint, tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    model = {"model_name_or_path": tmp_path / "model", "prompt": recordings[0], "seed": 3}
    with pytest.raises(FileNotFoundError, match="missing.wav"):
        align(tmp_path / "aligned", max_steps=1, **model | {"prompt": "missing.wav"})
    align(tmp_path / "aligned", max_steps=1, save_strategy="no", **model)
    samples = read_samples(tmp_path / "aligned")
    assert [sample.continuation for sample in samples] == ["1-seed-3.flac", "1-seed-4.flac"]
    assert "samples/1-seed-3.flac" in (tmp_path / "aligned" / "README.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{}, {"precompute_ref_log_probs": False}, {"use_peft": True, "lora_target_modules": "q_proj v_proj", "lora_r": 4}],
    ids=["reference before training", "reference beside it", "LoRA"],
)
def test_two_processes_with_fsdp_align_as_one(align, tmp_path, arguments):
    one = align(tmp_path / "one", max_steps=4, **arguments)
    command = [*ACCELERATE, "launch", "--num_processes", "2"]
    command += ["--config_file", str(ROOT / "hub_scripts" / "accelerate_configs" / "fsdp.yaml")]
    command += ["--main_process_port", "0", launched_script.__file__, align_dpo.__file__]
    half = {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2}
    subprocess.run([*command, *align.command(tmp_path / "two", **half, **arguments)], check=True, timeout=280)
    two = load_file(tmp_path / "two" / "model.safetensors")
    assert two.keys() == one.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=0)
