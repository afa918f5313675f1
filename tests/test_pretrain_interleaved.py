"""`pretrain.py` and `align_dpo.py` on speech, text and both in turn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import align_dpo
import numpy as np
import pretrain as script
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from test_align_dpo import SETTINGS, separable_pairs
from test_pretrain import TINY, interrupt
from training_utils import tiny_speech_lm
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, TrainerCallback, trainer
from trl import DPOConfig

from slam_hf import SpeechLMForCausalLM, SpeechTextTokenizer
from slam_hf.command_line import parse_arguments
from slam_hf.quickstart import resolve_path
from slam_hf.run_record import read_run_records


RECIPE = Path(script.__file__).parent / "recipes" / "quickstart-interleaved.yaml"
VOCABULARY = 2_000 + 50 + 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Forty utterances of four words, with a card that says their frame rate."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    words = [(" One", 0.0, 0.2), (" day", 0.2, 0.4), (" in", 0.4, 0.6), (" spring", 0.6, 0.8)]
    for split, count in (("train", 40), ("validation", 3)):
        Dataset.from_list(
            [
                {
                    "units": generator.integers(50, size=10).tolist(),
                    "durations": [2] * 10,
                    "text": "One day in spring",
                    "aligned_text": [
                        dict(zip(("word", "start_time", "end_time"), word, strict=True)) for word in words
                    ],
                }
                for _ in range(count)
            ]
        ).to_parquet(folder / f"{split}.parquet")
    (folder / "README.md").write_text("---\nframe_rate: 25\n---\n")
    return folder


@pytest.fixture(scope="module")
def command(corpus) -> list[str]:
    """Arguments of the script: a tiny model on the forty utterances."""
    datasets = [
        {"path": str(corpus), "modality": modality, "weight": weight}
        for modality, weight in (("text", 0.2), ("interleaved", 0.55), ("speech", 0.25))
    ]
    recipe = corpus / "recipe.yaml"
    recipe.write_text(json.dumps({"datasets": datasets, "interleaving": "random", "num_units": 50}))
    start = TINY.index("--datasets")
    command = ["--config", str(recipe), *TINY[:start], *TINY[start + 2 :], "--lr_scheduler_type", "cosine_with_min_lr"]
    command += ["--text_tokenizer", "quickstart:tokenizer", "--save_strategy", "no", "--eval_strategy", "no"]
    return [*command, "--use_cpu", "True", "--dataloader_pin_memory", "False"]


@pytest.fixture(scope="module")
def pretrain(command):
    """Calls the script in this process."""

    def run(*arguments):
        libraries = (script.TrainingArguments, script.ModelArguments)
        given = [*command, *map(str, arguments)]
        script.main(*parse_arguments(script.__doc__, (script.PretrainArguments,), libraries, given))

    return run


@pytest.fixture(scope="module")
def trained(pretrain, tmp_path_factory) -> Path:
    """A model of speech and text after a step."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    pretrain("--output_dir", folder, "--max_steps", 1)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    before, after = weights(before), weights(after)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_model_of_speech_and_text_is_trained_recorded_and_loaded(trained):
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert (type(model), type(tokenizer)) == (SpeechLMForCausalLM, SpeechTextTokenizer)
    assert model.config.vocab_size == len(tokenizer) == VOCABULARY
    assert (model.config.has_text, model.config.num_units, model.config.bos_token_id) == (True, 50, 1)
    assert type(AutoProcessor.from_pretrained(trained).tokenizer) is SpeechTextTokenizer
    (record,) = read_run_records(trained)
    assert [corpus.modality for corpus in record.corpora] == ["text", "interleaved", None]
    assert [corpus.num_units for corpus in record.corpora] == [None, 400, 400]
    assert set(record.validation) == {f"validation loss of {name}" for name in ("text", "interleaved", "speech")}
    assert (record.recipe["interleaving"], record.recipe["interleaving_share"]) == ("random", 0.3)
    assert "modality: `interleaved`" in (trained / "README.md").read_text()


def test_an_interrupted_run_continues_to_the_same_weights_with_any_number_of_workers(pretrain, tmp_path, monkeypatch):
    # Worker processes take a number from the random state of dropout.
    arguments = ["--max_steps", 6, "--learning_rate", 0.01, "--base_config", TINY[1].replace("0.1", "0.0")]
    saving = [*arguments, "--save_strategy", "steps", "--save_steps", 3, "--resume_from_checkpoint", "latest"]

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                interrupt()

    pretrain("--output_dir", tmp_path / "whole", *arguments)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Interrupt])
        pretrain("--output_dir", tmp_path / "cut", *saving)
    pretrain("--output_dir", tmp_path / "cut", *saving, "--dataloader_num_workers", 2)
    assert changed(tmp_path / "whole", tmp_path / "cut") == set()
    state = json.loads((tmp_path / "cut" / "checkpoint-6" / "trainer_state.json").read_text())
    (log,) = [log for log in state["log_history"] if "loss" in log]
    losses = [log[f"loss_{modality}"] for modality in ("text", "interleaved", "speech")]
    assert min(losses) < log["loss"] < max(losses)


@pytest.mark.slow
def test_the_same_batch_gives_the_same_loss_in_one_and_in_two_processes(command, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]
    losses = []
    for processes in (1, 2):
        arguments = ["--base_config", TINY[1].replace("0.1", "0.0"), "--max_steps", "6", "--logging_steps", "1"]
        arguments += ["--save_strategy", "steps", "--save_steps", "6", "--output_dir", str(tmp_path / f"{processes}")]
        arguments += ["--per_device_train_batch_size", f"{4 // processes}", "--ddp_find_unused_parameters", "False"]
        workers = ["--multi_gpu", "--num_processes", "2"] if processes == 2 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launch, *workers, script.__file__, *command, *arguments], env=environment, timeout=280)
        assert done.returncode == 0
        state = json.loads((tmp_path / f"{processes}" / "checkpoint-6" / "trainer_state.json").read_text())
        losses.append([log["loss"] for log in state["log_history"] if "loss" in log])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_lora_trains_a_model_of_speech_and_text(pretrain, trained, tmp_path):
    start = ["--base_config", "null", "--model_name_or_path", trained, "--text_tokenizer", ""]
    lora = ["--use_peft", "True", "--lora_target_modules", "q_proj", "v_proj", "--lora_r", 2]
    pretrain("--output_dir", tmp_path / "lora", "--max_steps", 2, "--learning_rate", 0.1, *start, *lora)
    names = {f"lm.model.layers.0.self_attn.{name}_proj.weight" for name in "qv"}
    assert changed(trained, tmp_path / "lora") == names
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "lora").config.vocab_size == VOCABULARY


@pytest.mark.parametrize("use_peft", [False, True])
def test_preferences_align_a_model_of_speech_and_text(trained, tmp_path, use_peft):
    for split, seed in (("train", 0), ("test", 1)):
        separable_pairs(16, seed).to_parquet(tmp_path / "pairs" / f"{split}.parquet")
    settings = {**SETTINGS, "precompute_ref_log_probs": False, "max_steps": 1, "learning_rate": 0.1}
    settings |= {"per_device_train_batch_size": 4, "save_strategy": "no", "eval_on_start": True}
    align_dpo.main(
        align_dpo.AlignArguments(dataset_name=str(tmp_path / "pairs")),
        DPOConfig(output_dir=str(tmp_path / "aligned"), **settings),
        align_dpo.ModelArguments(model_name_or_path=str(trained), use_peft=use_peft, dtype="float32"),
    )
    names = changed(trained, tmp_path / "aligned")
    assert {name for name in names if "_proj" in name}
    assert ("lm.model.embed_tokens.weight" in names) is not use_peft
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "aligned")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "aligned")
    pair = tokenizer.encode_units([[1, 2, 3]], return_tensors="pt")
    assert torch.isfinite(model.log_likelihood(**pair)).all()
    assert [record.objective for record in read_run_records(tmp_path / "aligned")][-1] == "preference alignment"


def test_a_model_of_units_alone_is_not_trained_on_text(pretrain, tmp_path):
    tiny_speech_lm().save_pretrained(tmp_path / "units")
    start = ["--base_config", "null", "--model_name_or_path", tmp_path / "units", "--text_tokenizer", ""]
    with pytest.raises(ValueError, match="is a SpeechLM of units alone, and cannot be trained on text"):
        pretrain("--output_dir", tmp_path / "model", "--max_steps", 1, *start)


def test_epochs_are_refused(pretrain, tmp_path):
    with pytest.raises(ValueError, match="Training on interleaved corpora has no epochs: give one of max_steps"):
        pretrain("--output_dir", tmp_path, "--num_train_epochs", 2)


def test_the_recipe_trains_on_what_comes_with_the_package():
    libraries = (script.TrainingArguments, script.ModelArguments)
    args, training_args, _ = parse_arguments("", (script.PretrainArguments,), libraries, ["--config", str(RECIPE)])
    assert args.text_tokenizer == resolve_path("quickstart:tokenizer")
    shares = {name: sum(c.weight for c in args.datasets if c.modality == name) for name in ("text", "interleaved")}
    assert shares == pytest.approx({"text": 0.202, "interleaved": 0.543})
    assert training_args.max_steps * args.context_length > 1_000_000
