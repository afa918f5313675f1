import json
import logging
import os
import pickle
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from test_sharded_checkpoints import Malicious, save_shards
from training_utils import make_trainer, tiny_speech_lm
from transformers import TrainerCallback, TrainingArguments

from slam_hf import SpeechLMForCausalLM
from slam_hf.training import checkpoints
from slam_hf.training.checkpoints import (
    CHECKSUMS_NAME,
    ChecksumCallback,
    CutShortError,
    check_checkpoint,
    checkpoint_to_resume,
    train_or_resume,
)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    """The folder of a run of one process that saved at steps 2, 4, ... 10."""
    folder = tmp_path_factory.mktemp("run")
    make_trainer(folder, [ChecksumCallback()], max_steps=10, save_strategy="steps", save_steps=2).train()
    return folder


@pytest.fixture
def two_checkpoints(output_dir, tmp_path):
    """The last two of its checkpoints, to be damaged."""
    for step in (8, 10):
        shutil.copytree(output_dir / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    return tmp_path


def resume(output_dir, value="latest"):
    return checkpoint_to_resume(TrainingArguments(output_dir=str(output_dir), resume_from_checkpoint=value))


def test_latest_is_the_last_step(output_dir):
    assert resume(output_dir) == str(output_dir / "checkpoint-10")


def test_every_file_of_a_checkpoint_has_its_checksum(output_dir):
    files = {path.name for path in (output_dir / "checkpoint-10").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < files
    assert json.loads((output_dir / "checkpoint-10" / CHECKSUMS_NAME).read_text()).keys() == files - {CHECKSUMS_NAME}


DAMAGES = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "of another checkpoint": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.attack
@pytest.mark.parametrize(
    "file", ["trainer_state.json", "rng_state.pth", "optimizer.pt", "scheduler.pt", "model.safetensors", "config.json"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(two_checkpoints, file, damage, capsys, record_property):
    path = two_checkpoints / "checkpoint-10" / file
    content = DAMAGES[damage](path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")
    assert f"Skipped: '{path}' is " in capsys.readouterr().out
    with pytest.raises(ValueError, match=str(path)):
        resume(two_checkpoints, str(path.parent))
    shutil.rmtree(two_checkpoints / "checkpoint-8")
    with pytest.raises(ValueError, match=f"There is no checkpoint to resume from. '{path}' is "):
        resume(two_checkpoints)
    record_property("attack", "checkpoint with a damaged file: it is named, and the checkpoint before is resumed")


@pytest.mark.parametrize("file", ["trainer_state.json", "rng_state.pth"])
def test_a_checkpoint_that_lacks_a_file_is_passed_over(two_checkpoints, file):
    (two_checkpoints / "checkpoint-10" / CHECKSUMS_NAME).unlink()
    (two_checkpoints / "checkpoint-10" / file).unlink()
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")


def test_a_checkpoint_whose_state_was_cut_short_is_passed_over(two_checkpoints, capsys):
    (two_checkpoints / "checkpoint-10" / CHECKSUMS_NAME).unlink()
    path = two_checkpoints / "checkpoint-10" / "trainer_state.json"
    path.write_text(path.read_text()[:100])
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")
    shutil.rmtree(two_checkpoints / "checkpoint-8")
    capsys.readouterr()
    assert resume(two_checkpoints) is None
    assert capsys.readouterr().out.splitlines() == [
        f"Skipped: '{path}' is missing or cut short.",
        "Training starts at step 0: there is no complete checkpoint.",
    ]


def test_what_is_left_of_a_killed_checkpoint_is_no_part_of_the_next(two_checkpoints):
    for step in (8, 10):  # killed when it was complete, and while another process wrote its random state
        (two_checkpoints / f"checkpoint-{step}" / CHECKSUMS_NAME).unlink()
    state = two_checkpoints / "checkpoint-10" / "rng_state.pth"
    state.rename(state.with_name("rng_state_0.pth"))
    arguments = {"save_strategy": "steps", "save_steps": 2, "resume_from_checkpoint": "latest"}
    train_or_resume(make_trainer(two_checkpoints, max_steps=9, **arguments))
    assert {path.name for path in two_checkpoints.glob("checkpoint-*")} == {"checkpoint-8", "checkpoint-9"}


def test_shards_that_are_incomplete_or_would_execute_something_are_passed_over(two_checkpoints, tmp_path, capsys):
    (two_checkpoints / "checkpoint-10" / CHECKSUMS_NAME).unlink()
    for name in ("pytorch_model_fsdp_0", "optimizer_0", "elsewhere"):
        save_shards(two_checkpoints / "checkpoint-10" / name, "model", {"lr": 0.1})
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-10")
    (two_checkpoints / "checkpoint-10" / "elsewhere" / ".metadata").write_bytes(
        pickle.dumps(Malicious(tmp_path / "executed"))
    )
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")
    assert "elsewhere/.metadata' is not an index of shards: it refers to 'posix.mkdir'" in capsys.readouterr().out
    assert not (tmp_path / "executed").exists()
    shutil.rmtree(two_checkpoints / "checkpoint-10" / "elsewhere")
    (two_checkpoints / "checkpoint-10" / "optimizer_0" / ".metadata").unlink()
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")
    assert "optimizer_0' lacks .metadata. The run was killed" in capsys.readouterr().out


class Terminate(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_a_run_with_a_checkpoint_that_continues_exactly(tmp_path, capsys):
    saving = {"max_steps": 5, "enable_jit_checkpoint": True, "resume_from_checkpoint": "latest"}
    whole = make_trainer(tmp_path / "whole", **saving)
    train_or_resume(whole)
    with pytest.raises(SystemExit) as stopped:
        train_or_resume(make_trainer(tmp_path / "cut", [Terminate()], **saving))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "Stopped by SIGTERM, with a checkpoint of step 3." in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-3"]
    assert (tmp_path / "cut" / "checkpoint-3" / CHECKSUMS_NAME).is_file()
    resumed = make_trainer(tmp_path / "cut", **saving)
    train_or_resume(resumed)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])


def test_a_machine_that_keeps_its_own_checkpoints_has_the_states_of_its_processes(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 5}')
    (checkpoint / "rng_state_0.pth").write_text("")
    args = TrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint="latest", save_on_each_node=True)
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    assert checkpoint_to_resume(args) == str(checkpoint)
    monkeypatch.setattr(checkpoints, "gather_object", lambda problems: [*problems, CutShortError("cut on another")])
    assert checkpoint_to_resume(args) is None
    monkeypatch.setattr(TrainingArguments, "process_index", 1)
    args.resume_from_checkpoint = str(checkpoint)
    with pytest.raises(ValueError, match="rng_state_1.pth' is missing on .* in the same order"):
        checkpoint_to_resume(args)


def test_another_machine_keeps_the_weights_too(tmp_path, monkeypatch):
    args = TrainingArguments(output_dir=str(tmp_path), save_on_each_node=True)
    model = tiny_speech_lm(tie_word_embeddings=True)
    checkpoints.save_on_other_machine(model, args, tmp_path)
    assert list(tmp_path.iterdir()) == []  # the first machine, where the Trainer saves them
    monkeypatch.setattr(TrainingArguments, "process_index", 2)
    checkpoints.save_on_other_machine(model, args, tmp_path)
    loaded = SpeechLMForCausalLM.from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    model.save_pretrained(tmp_path / "by transformers")
    assert (
        load_file(tmp_path / "model.safetensors").keys()
        == load_file(tmp_path / "by transformers" / "model.safetensors").keys()
    )


def test_a_renamed_checkpoint_is_passed_over(two_checkpoints, capsys):
    (two_checkpoints / "checkpoint-10").rename(two_checkpoints / "checkpoint-12")
    assert resume(two_checkpoints) == str(two_checkpoints / "checkpoint-8")
    assert "checkpoint-12/trainer_state.json' is of step 10, not of step 12." in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[", "[" * 100_000, "1"])
def test_damaged_checksums_are_named(two_checkpoints, content):
    (two_checkpoints / "checkpoint-10" / CHECKSUMS_NAME).write_text(content)
    with pytest.raises(ValueError, match="checksums.json' is damaged"):
        check_checkpoint(two_checkpoints / "checkpoint-10")


def test_the_model_alone_is_not_resumed(tmp_path):
    make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2, save_only_model=True).train()
    for value in ("latest", str(tmp_path / "checkpoint-2")):
        with pytest.raises(ValueError, match=r"checkpoint-2' holds only the model \(`save_only_model`\)"):
            resume(tmp_path, value)


def test_several_processes_have_a_random_state_each(tmp_path):
    (tmp_path / "trainer_state.json").write_text("{}")
    (tmp_path / "rng_state_0.pth").write_text("{}")
    with pytest.raises(ValueError, match="has the random state of one process of several"):
        check_checkpoint(tmp_path)
    (tmp_path / "rng_state_1.pth").write_text("")
    assert check_checkpoint(tmp_path) == 2


def test_another_number_of_processes_is_said(output_dir, monkeypatch, capsys):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    assert resume(output_dir) == str(output_dir / "checkpoint-10")
    assert (
        "checkpoint-10' is of 1 process(es), and this run has 2. It continues with the same batches, but not bit"
        in capsys.readouterr().out
    )


def test_a_checkpoint_that_lacks_random_states_is_passed_over(tmp_path):
    recorder = {"RunRecorder": {"args": {}, "attributes": {"num_processes": 3}}}
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 5, "stateful_callbacks": recorder}))
    for rank in range(3):
        (checkpoint / f"rng_state_{rank}.pth").write_text("")
        if rank < 2:
            assert resume(tmp_path) is None
    assert resume(tmp_path) == str(checkpoint)
    (checkpoint / "rng_state.pth").write_text("")  # of one process that was killed while it wrote this step
    assert check_checkpoint(checkpoint) == 3


def test_without_a_checkpoint_a_run_begins(tmp_path):
    assert resume(tmp_path) is None
    assert resume(tmp_path / "nothing here") is None


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resume(tmp_path, "some/checkpoint-3") == "some/checkpoint-3"
    assert resume(tmp_path, None) is None


@pytest.mark.parametrize(("value", "step"), [("true", 10), ("True", 10), ("false", None)])
def test_true_is_latest_as_it_is_for_the_trainer(output_dir, value, step):
    assert resume(output_dir, value) == (step and str(output_dir / f"checkpoint-{step}"))


def test_tied_weights_are_not_reported_as_missing(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    saving = {"save_strategy": "steps", "save_steps": 2, "resume_from_checkpoint": "latest"}
    make_trainer(tmp_path, max_steps=2, model=tiny_speech_lm(tie_word_embeddings=True), **saving).train()
    model = tiny_speech_lm(tie_word_embeddings=True)
    train_or_resume(make_trainer(tmp_path, max_steps=4, model=model, **saving))
    assert "missing keys" not in caplog.text
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
