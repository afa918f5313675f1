import json
import os
import subprocess
import sys
from pathlib import Path

import launched_script
import numpy as np
import pretrain as script
import pytest
import soundfile
import torch
from datasets import Dataset
from loopback_hub import run_with_hub
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from slam_hf import HubertUnitCodec, HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.command_line import parse_arguments
from slam_hf.sharded_checkpoints import load_sharded_model


ROOT = Path(__file__).parent.parent
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
SCRIPT = ROOT / "hub_scripts" / "pretrain.py"
QUICKSTART = ROOT / "hub_scripts" / "recipes" / "quickstart.yaml"
TINY = [
    "--base_config",
    '{"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, '
    '"num_attention_heads": 2, "num_key_value_heads": 1, "attention_dropout": 0.1}',
    *("--context_length", "32", "--disable_tqdm", "True", "--eval_steps", "100", "--logging_steps", "5"),
    *("--datasets", str(ROOT / "tests" / "fixtures" / "librispeech-units"), "--per_device_train_batch_size", "4"),
    *("--learning_rate", "1e-3", "--lr_scheduler_kwargs", '{"min_lr": 5e-5}', "--warmup_steps", "0.1"),
    *("--benchmarks", "null", "--codec", "", "--prompt", "", "--sample_steps", "-1"),
]


@pytest.fixture(scope="module")
def pretrain():
    """Calls the script in this process, with the quickstart recipe and command-line arguments."""

    def run(*arguments):
        command = ["--config", str(QUICKSTART), *TINY, *map(str, arguments)]
        libraries = (script.TrainingArguments, script.ModelArguments)
        script.main(*parse_arguments(script.__doc__, (script.PretrainArguments,), libraries, command))

    return run


def launch(output_dir: Path, *arguments: str, processes: int = 1, config: str = "ddp", **environment: str) -> int:
    """Run the script by `accelerate launch`, as `launched_script` does; its exit status."""
    command = [*ACCELERATE, "launch"]
    if processes > 1:
        config_file = ROOT / "hub_scripts" / "accelerate_configs" / f"{config}.yaml"
        command += ["--config_file", str(config_file), "--num_processes", str(processes), "--main_process_port", "0"]
    command += [launched_script.__file__, str(SCRIPT), "--config", str(QUICKSTART), *TINY]
    command += ["--output_dir", str(output_dir), *arguments]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, timeout=280).returncode


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(output_dir / "model.safetensors")


def test_quickstart_saves_what_the_auto_classes_load(pretrain, tmp_path, capsys):
    pretrain("--output_dir", tmp_path, "--max_steps", 3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert (type(model), model.config.num_units) == (SpeechLMForCausalLM, 500)
    assert (type(tokenizer), type(processor)) == (HubertUnitTokenizer, SpeechLMProcessor)
    assert tokenizer("<Un3><Un49>")["input_ids"] == [1, 5, 51]
    generated = model.generate(**tokenizer("<Un3><Un49>", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert generated.shape[1] <= 7
    assert (tmp_path / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "Validation loss (nats per unit): 6." in printed
    assert "Prompt: [50, 38, 40, 92, " in printed
    assert "length      3 steps, 384 tokens with padding" in printed


def test_a_run_is_not_continued_with_other_settings_and_leaves_no_token(pretrain, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    saving = ["--output_dir", tmp_path, "--max_steps", 2, "--save_strategy", "steps", "--save_steps", 2]
    pretrain(*saving, "--hub_token", "hf_secret")
    assert os.environ["HF_TOKEN"] == "hf_secret"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"training_args.bin", "trainer_state.json", "training_run.json"} <= {path.name for path in files}
    assert [path for path in files if b"hf_secret" in path.read_bytes()] == []

    before = {path: path.read_bytes() for path in files}
    for options in (["--seed", 3], ["--seed", 3, "--resume_from_checkpoint", "latest"]):
        with pytest.raises(ValueError, match=r"other settings(.|\n)*seed: was 0, is now 3"):
            pretrain(*saving, *options)
    with pytest.raises(ValueError, match="finished"):
        pretrain(*saving, "--resume_from_checkpoint", "latest")
    assert {path: path.read_bytes() for path in files} == before


def test_the_model_alone_is_not_continued(pretrain, tmp_path, monkeypatch):
    saving = ["--output_dir", tmp_path, "--max_steps", 2, "--save_strategy", "steps", "--save_steps", 2]
    saving += ["--save_only_model", "True"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script, "save_model_card", interrupt)
        pretrain(*saving)
    with pytest.raises(ValueError, match="checkpoint-2' holds only the model"):
        pretrain(*saving, "--resume_from_checkpoint", "latest")


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_training_continues_from_a_speech_lm_with_lora(pretrain, tmp_path):
    pretrain("--output_dir", tmp_path / "base", "--max_steps", 1)
    without_base = ["--base_config", "null", "--model_name_or_path", tmp_path / "base"]
    lora = ["--use_peft", "True", "--lora_target_modules", "q_proj", "v_proj", "--lora_r", 2]
    pretrain("--output_dir", tmp_path / "lora", "--max_steps", 2, "--learning_rate", 0.1, *without_base, *lora)
    before, after = weights(tmp_path / "base"), weights(tmp_path / "lora")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"lm.model.layers.0.self_attn.{name}_proj.weight" for name in "qv"}


def test_the_model_is_scored_and_continues_a_recording(pretrain, tmp_path, tiny_codec, recordings, capsys):
    tiny_codec.save_pretrained(tmp_path / "codec")
    units = [[i % 50 for i in range(start, start + 20)] for start in range(4)]
    names = ["1_correct", "1_incorrect", "2_correct", "2_incorrect"]
    Dataset.from_dict({"id": names, "units": units}).to_parquet(tmp_path / "tstorycloze" / "units.parquet")
    for split in ("train", "validation"):
        Dataset.from_dict({"units": units}).to_parquet(tmp_path / "corpus" / f"{split}.parquet")
    arguments = ["--num_units", 50, "--datasets", tmp_path / "corpus", "--codec", tmp_path / "codec", "--max_steps", 1]
    arguments += ["--benchmarks", json.dumps({"tstorycloze": str(tmp_path / "tstorycloze")})]
    pretrain("--output_dir", tmp_path / "model", *arguments, "--prompt", recordings[0])
    summary = json.loads((tmp_path / "model" / "evaluation" / "tstorycloze.json").read_text())
    printed = capsys.readouterr().out
    assert "tStoryCloze: 2 items" in printed
    assert f"accuracy: {100 * summary['results']['accuracy']:.1f} %" in printed
    assert f"Continuation of {recordings[0]}: {tmp_path / 'model' / 'continuation.wav'}" in printed
    assert (tmp_path / "model" / "continuation.wav").read_bytes().startswith(b"RIFF")
    assert (tmp_path / "model" / "continuation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model" / "samples" / "1-seed-1.flac").read_bytes().startswith(b"fLaC")
    assert '<audio controls src="samples/1-seed-0.flac">' in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.slow
def test_two_processes_score_the_same_model(tmp_path):
    benchmarks = {}
    for task, num_stories in (("tstorycloze", 4), ("sstorycloze", 20)):
        names = [f"{number}_{side}" for number in range(num_stories) for side in ("correct", "incorrect")]
        units = [[(start + step) % 500 for step in range(5 + start)] for start in range(len(names))]
        Dataset.from_dict({"id": names, "units": units}).to_parquet(tmp_path / task / "units.parquet")
        benchmarks[task] = str(tmp_path / task)
    assert launch(tmp_path / "two", "--max_steps", "1", "--benchmarks", json.dumps(benchmarks), processes=2) == 0
    (journal,) = (tmp_path / "two" / "evaluation" / ".journal").iterdir()
    summary = json.loads((tmp_path / "two" / "evaluation" / "sstorycloze.json").read_text())
    assert journal.name == f"{summary['model']['weights']}-float32-mean"


def test_a_codec_makes_the_continuation_audible(pretrain, tmp_path, tiny_codec: HubertUnitCodec):
    tiny_codec.save_pretrained(tmp_path / "codec")
    for split in ("train", "validation"):
        Dataset.from_dict({"units": [[i % 50 for i in range(80)]]}).to_parquet(
            tmp_path / "corpus" / f"{split}.parquet"
        )
    arguments = ["--num_units", 50, "--datasets", tmp_path / "corpus", "--codec", tmp_path / "codec", "--max_steps", 1]
    pretrain("--output_dir", tmp_path / "model", *arguments)
    assert (tmp_path / "model" / "continuation.wav").read_bytes().startswith(b"RIFF")
    assert AutoProcessor.from_pretrained(tmp_path / "model").audio_tokenizer.codebook_size == 50


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("streaming", "cut_documents"), [("False", "True"), ("True", "True"), ("True", "False")])
def test_a_killed_run_continues_to_the_same_weights(tmp_path, processes, streaming, cut_documents, record_property):
    arguments = ["--per_device_train_batch_size", str(4 // processes), "--gradient_accumulation_steps", "2"]
    arguments += ["--streaming", streaming, "--cut_documents", cut_documents, "--max_steps", "11", "--save_steps", "4"]
    saving = [*arguments, "--save_strategy", "steps", "--resume_from_checkpoint", "latest"]
    assert launch(tmp_path / "whole", *arguments, processes=processes) == 0
    assert launch(tmp_path / "cut", *saving, processes=processes, KILLED_AT="6") != 0
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert launch(tmp_path / "cut", *saving, processes=processes) == 0
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []
    record_property("attack", "pretraining: 1 run killed, the same weights")


@pytest.mark.slow
def test_a_killed_run_ends_in_its_time(tmp_path):
    arguments = ["--max_steps", "-1", "--max_train_hours", "0.002", "--logging_steps", "1", "--save_steps", "5"]
    arguments += ["--save_strategy", "steps", "--resume_from_checkpoint", "latest"]
    assert launch(tmp_path, *arguments, KILLED_AT="6") != 0
    assert launch(tmp_path, *arguments) == 0
    state = json.loads(max(tmp_path.glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime).read_text())
    assert 0.9 * 7.2 < state["stateful_callbacks"]["TimeBudget"]["attributes"]["seconds_before"] < 1.1 * 7.2
    rates = [log["learning_rate"] for log in state["log_history"] if "learning_rate" in log]
    assert rates[rates.index(max(rates)) :] == sorted(rates[rates.index(max(rates)) :], reverse=True)
    assert rates[-1] < 0.06e-3 < 0.9e-3 < max(rates)


@pytest.mark.slow
def test_the_same_batch_gives_the_same_loss_in_one_and_in_two_processes(tmp_path):
    arguments = ["--max_steps", "12", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "12"]
    arguments += ["--gradient_accumulation_steps", "2", "--base_config", TINY[1].replace("0.1", "0.0")]
    half = [*arguments, "--per_device_train_batch_size", "2"]
    assert launch(tmp_path / "one", *arguments) == 0
    assert launch(tmp_path / "ddp", *half, processes=2) == 0
    assert launch(tmp_path / "fsdp", *half, processes=2, config="fsdp") == 0
    losses = {}
    for name in ("one", "ddp", "fsdp"):
        state = json.loads((tmp_path / name / "checkpoint-12" / "trainer_state.json").read_text())
        losses[name] = [log["loss"] for log in state["log_history"] if "loss" in log]
    assert len(losses["one"]) == 12
    assert losses["ddp"] == pytest.approx(losses["one"], abs=1e-4)
    assert losses["fsdp"] == pytest.approx(losses["one"], abs=1e-4)
    assert weights(tmp_path / "fsdp").keys() == weights(tmp_path / "one").keys()
    sharded = load_sharded_model(tmp_path / "fsdp" / "checkpoint-12").state_dict()
    assert all(torch.equal(sharded[name], weight) for name, weight in weights(tmp_path / "fsdp").items())
    config = json.loads((tmp_path / "fsdp" / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_speech_lm.SpeechLMForCausalLM"


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_several_processes_train_the_same_when_they_are_heard(tmp_path, tiny_codec, config):
    tiny_codec.save_pretrained(tmp_path / "codec")
    units = np.random.default_rng(0).integers(50, size=(40, 20)).tolist()
    for split in ("train", "validation"):
        Dataset.from_dict({"units": units}).to_parquet(tmp_path / "corpus" / f"{split}.parquet")
    arguments = ["--datasets", str(tmp_path / "corpus"), "--num_units", "50", "--codec", str(tmp_path / "codec")]
    arguments += ["--max_steps", "4", "--eval_strategy", "no"]
    launched = {"processes": 2, "config": config}
    assert launch(tmp_path / "silent", *arguments, **launched) == 0
    assert launch(tmp_path / "heard", *arguments, "--sample_steps", "2", **launched) == 0
    heard = [soundfile.info(tmp_path / "heard" / "continuations" / f"step-{step}.wav").duration for step in (2, 4)]
    assert min(heard) >= 60 / 25
    silent, heard = weights(tmp_path / "silent"), weights(tmp_path / "heard")
    assert [name for name in silent if not torch.equal(silent[name], heard[name])] == []


@pytest.mark.slow
def test_compiled_training_learns_the_same(pretrain, tmp_path):
    arguments = ["--max_steps", 3, "--base_config", TINY[1].replace("0.1", "0.0")]
    pretrain("--output_dir", tmp_path / "eager", *arguments)
    pretrain("--output_dir", tmp_path / "compiled", *arguments, "--torch_compile", "True")
    torch.testing.assert_close(weights(tmp_path / "compiled"), weights(tmp_path / "eager"), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_corpus_is_streamed_from_the_hub_and_the_model_pushed_to_it(tmp_path):
    arguments = ["--config", str(QUICKSTART), *TINY, "--output_dir", str(tmp_path / "model"), "--max_steps", "4"]
    arguments += [
        "--datasets",
        "user/units",
        "--streaming",
        "True",
        "--save_strategy",
        "steps",
        "--save_steps",
        "2",
    ]
    arguments += ["--push_to_hub", "True", "--hub_model_id", "user/model", "--hub_strategy", "every_save"]
    script = f"""
import runpy, sys
from datasets import load_dataset
from huggingface_hub import HfApi

load_dataset({str(ROOT / "tests" / "fixtures" / "librispeech-units")!r}).push_to_hub("user/units")
upload_folder, messages = HfApi.upload_folder, []

def upload(self, **kwargs):
    messages.append(kwargs["commit_message"])
    return upload_folder(self, **kwargs)

HfApi.upload_folder = upload
sys.argv = [{str(SCRIPT)!r}, *{arguments!r}]
runpy.run_path(sys.argv[0], run_name="__main__")

from transformers import AutoModelForCausalLM, AutoProcessor
model = AutoModelForCausalLM.from_pretrained("user/model")
processor = AutoProcessor.from_pretrained("user/model")
names = [file.rfilename for file in HfApi().model_info("user/model").siblings]
assert "training_run.json" in names and not [name for name in names if name.endswith((".bin", ".pt", ".pth"))], names
print("loaded", type(model).__name__, type(processor).__name__, messages)
"""
    printed = run_with_hub(script, tmp_path / "cache", timeout=280).splitlines()[-1]
    assert printed.startswith("loaded SpeechLMForCausalLM SpeechLMProcessor [")
    assert "Training in progress, step 2" in printed
