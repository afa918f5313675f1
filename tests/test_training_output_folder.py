import json
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import pytest
from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, ModelConfig

from slam_hf.training import output_folder
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.output_folder import SETTINGS_NAME, claim_output_dir, make_settings
from slam_hf.training.preferences import AlignArguments
from slam_hf.training.rewards import OnlineAlignArguments


@contextmanager
def run(folder, args=None, model_args=None, overwrite=False, **training_args):
    args = replace(args or PretrainArguments(), overwrite_output_dir=overwrite)
    training_args = TrainingArguments(output_dir=str(folder), use_cpu=True, **training_args)
    with claim_output_dir(args, training_args, model_args or ModelConfig()):
        yield


def interrupt(folder, **settings):
    """A run that does not come to its end."""
    with suppress(KeyboardInterrupt), run(folder, **settings):
        raise KeyboardInterrupt


def finish(folder, **settings):
    with run(folder, **settings):
        (folder / "model.safetensors").write_text("weights")


LATEST = {"resume_from_checkpoint": "latest"}


def test_a_run_claims_an_empty_folder_and_continues_with_the_same_settings(tmp_path):
    interrupt(tmp_path / "run", learning_rate=1e-3, logging_steps=5, **LATEST)
    (tmp_path / "run" / "checkpoint-4").mkdir()
    (tmp_path / "run" / "checkpoint-4" / "rng_state.pth").write_text("")
    interrupt(tmp_path / "run", learning_rate=1e-3, logging_steps=7, save_steps=3, report_to="none", **LATEST)
    for nothing in (None, False, "False", "none"):
        with pytest.raises(ValueError, match="interrupted run: continue it with `resume_from_checkpoint: latest`"):
            interrupt(tmp_path / "run", learning_rate=1e-3, resume_from_checkpoint=nothing)


@pytest.mark.parametrize(
    ("is_shared", "on_each_node", "is_fsdp", "problem"),
    [
        (True, False, True, None),
        (False, True, False, None),
        (False, False, False, "Some machines do not see the output folder"),
        (False, True, True, "FSDP needs an `output_dir` that all machines share"),
        (True, True, False, "would write the same files: no `save_on_each_node`"),
    ],
)
def test_machines_share_an_output_folder_or_keep_their_own(
    tmp_path, monkeypatch, is_shared, on_each_node, is_fsdp, problem
):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", str(is_fsdp))
    others = iter([True, is_shared])  # what the other machine says: it has a main process, and it sees the folder
    monkeypatch.setattr(output_folder, "gather_object", lambda own: [*own, next(others)])
    with nullcontext() if problem is None else pytest.raises(ValueError, match=problem):
        finish(tmp_path / "run", save_on_each_node=on_each_node)
    assert not [path for path in (tmp_path / "run").glob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("is_finished", [False, True])
def test_differing_settings_are_named(tmp_path, is_finished):
    finish(tmp_path) if is_finished else interrupt(tmp_path)
    (tmp_path / "checkpoint-4").mkdir()
    before = (tmp_path / SETTINGS_NAME).read_text()
    with pytest.raises(ValueError, match="run with other settings") as error:
        interrupt(tmp_path, learning_rate=1e-3, seed=7, args=PretrainArguments(context_length=64), **LATEST)
    assert str(error.value).splitlines()[1:] == [
        "  context_length: was 1024, is now 64",
        "  learning_rate: was 5e-05, is now 0.001",
        "  seed: was 42, is now 7",
    ]
    assert (tmp_path / SETTINGS_NAME).read_text() == before


def test_a_run_keeps_its_way_of_packing(tmp_path):
    interrupt(tmp_path, args=PretrainArguments(cut_documents=False), **LATEST)
    (tmp_path / "checkpoint-4").mkdir()
    interrupt(tmp_path, args=PretrainArguments(cut_documents=False), **LATEST)
    with pytest.raises(ValueError, match="  cut_documents: was False, is now True"):
        interrupt(tmp_path, **LATEST)


@pytest.mark.parametrize("resume", [{}, LATEST, {"resume_from_checkpoint": "somewhere/checkpoint-2"}])
def test_a_finished_run_is_not_run_again(tmp_path, resume):
    finish(tmp_path)
    with pytest.raises(ValueError, match="is finished. Give another `output_dir`, or `overwrite_output_dir"):
        interrupt(tmp_path, **resume)


def test_what_is_not_of_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds 'config.json', which is not of this run"):
        interrupt(tmp_path, **LATEST)


def test_a_run_continues_with_its_batch(tmp_path, monkeypatch):
    interrupt(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, **LATEST)
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "rng_state.pth").touch()
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    args = PretrainArguments()
    training_args = TrainingArguments(str(tmp_path), per_device_train_batch_size=2, use_cpu=True, **LATEST)
    with suppress(KeyboardInterrupt), claim_output_dir(args, training_args, ModelConfig()):
        raise KeyboardInterrupt
    assert (args.batch_size, training_args.gradient_accumulation_steps) == (8, 2)
    with pytest.raises(ValueError, match="an interrupted run: continue it with `resume_from_checkpoint: latest`"):
        interrupt(tmp_path, per_device_train_batch_size=2)
    with pytest.raises(ValueError, match=r"  batch_size: was 8, is now 16$"):
        interrupt(tmp_path, args=PretrainArguments(batch_size=16), **LATEST)
    with pytest.raises(ValueError, match=r"  batch_size: was 8, is now 32\n  seed: was 42, is now 7$"):
        interrupt(tmp_path, per_device_train_batch_size=16, seed=7, **LATEST)
    interrupt(tmp_path, per_device_train_batch_size=2, overwrite=True)
    assert json.loads((tmp_path / SETTINGS_NAME).read_text())["settings"]["batch_size"] == 4


@pytest.mark.parametrize("with_default", [True, False])
def test_a_run_of_an_earlier_version_had_the_defaults_of_later_settings(tmp_path, monkeypatch, with_default):
    args, size = PretrainArguments(dataset_num_proc=2), {"per_device_train_batch_size": 4}
    interrupt(tmp_path, args=args, **LATEST, **size)
    noted = json.loads((tmp_path / SETTINGS_NAME).read_text())
    for name in ("cut_documents", "batch_size", "dataset_num_proc"):
        del noted["settings"][name]
    # It noted what a batch was made of, and ran on two processes.
    noted["settings"] |= {"gradient_accumulation_steps": 3, "price_per_hour": 1.0, **size}
    (tmp_path / SETTINGS_NAME).write_text(json.dumps(noted))
    (tmp_path / "checkpoint-4").mkdir()
    for number in range(2):
        (tmp_path / "checkpoint-4" / f"rng_state_{number}.pth").write_text("")
    args = replace(args, cut_documents=with_default)
    expected = nullcontext() if with_default else pytest.raises(ValueError, match="cut_documents: was True, is now F")
    with expected:
        interrupt(tmp_path, args=args, overwrite=with_default, **LATEST, **size)
        assert (tmp_path / "checkpoint-4").is_dir()
        noted = json.loads((tmp_path / SETTINGS_NAME).read_text())["settings"]
        assert (noted["cut_documents"], noted["batch_size"], noted["dataset_num_proc"]) == (True, 24, 2)


def test_an_alignment_continues_with_its_batch_where_processes_divide_it(tmp_path, monkeypatch):
    args = AlignArguments(dataset_name="user/pairs")
    interrupt(tmp_path, args=args, per_device_train_batch_size=10, gradient_accumulation_steps=2, **LATEST)
    (tmp_path / "checkpoint-4").mkdir()
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    training_args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, **LATEST)
    with suppress(KeyboardInterrupt), claim_output_dir(args, training_args, ModelConfig()):
        raise KeyboardInterrupt
    assert (training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps) == (2, 5)
    monkeypatch.setattr(TrainingArguments, "world_size", 3)
    with pytest.raises(ValueError, match="3 processes do not divide the batch of this run, of 20: start another"):
        interrupt(tmp_path, args=args, per_device_train_batch_size=4, **LATEST)


def test_an_online_alignment_needs_arguments_with_its_batch(tmp_path, monkeypatch):
    args = OnlineAlignArguments(dataset_name="user/prompts", judge_model="user/judge")

    def settings(processes, **arguments):
        monkeypatch.setattr(TrainingArguments, "world_size", processes)
        training_args = GRPOConfig(str(tmp_path), num_generations=4, use_cpu=True, **arguments, **LATEST)
        with suppress(KeyboardInterrupt), claim_output_dir(args, training_args, ModelConfig()):
            raise KeyboardInterrupt

    settings(1, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(
        ValueError, match="batch_size` is the product of(.|\n)*\n  generation_batch_size: was 8, is now 16"
    ):
        settings(2, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    settings(2, per_device_train_batch_size=4, gradient_accumulation_steps=1)


def test_a_run_that_saved_only_the_model_is_named(tmp_path):
    interrupt(tmp_path)
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(
        ValueError, match=r"they hold only the model \(`save_only_model`\), so that it cannot continue"
    ):
        interrupt(tmp_path)
    (tmp_path / "checkpoint-4" / "rng_state_0.pth").write_text("")
    with pytest.raises(ValueError, match="continue it with `resume_from_checkpoint: latest`"):
        interrupt(tmp_path)


@pytest.mark.parametrize(
    "argument",
    [
        {"auto_find_batch_size": True},
        {"train_sampling_strategy": "group_by_length"},
        {"dataloader_drop_last": True},
        {"average_tokens_across_devices": False},
        {"accelerator_config": {"split_batches": True}},
    ],
)
def test_arguments_that_would_change_the_batches_are_refused(tmp_path, argument):
    with pytest.raises(ValueError, match=f"Leave out `[a-z_.]*{next(iter(argument))}"):
        interrupt(tmp_path, **argument)


def test_overwriting_deletes_what_a_run_has_left_and_nothing_else(tmp_path):
    finish(tmp_path)
    for name in ("evaluation/sblimp.json", "checkpoint-4/model.safetensors", "notes.txt", "training_run.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    interrupt(tmp_path, overwrite=True, learning_rate=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes.txt", SETTINGS_NAME]


def test_overwriting_continues_what_it_began(tmp_path):
    finish(tmp_path)
    interrupt(tmp_path, overwrite=True, seed=1, **LATEST)
    (tmp_path / "checkpoint-4").mkdir()
    interrupt(tmp_path, overwrite=True, seed=1, **LATEST)
    assert (tmp_path / "checkpoint-4").is_dir()
    interrupt(tmp_path, overwrite=True, seed=2, **LATEST)
    assert not (tmp_path / "checkpoint-4").is_dir()


def test_nothing_came_of_a_run_without_checkpoints(tmp_path):
    interrupt(tmp_path, seed=1)
    interrupt(tmp_path, seed=2, **LATEST)
    assert json.loads((tmp_path / SETTINGS_NAME).read_text())["settings"]["seed"] == 2


def test_a_checkpoint_elsewhere_has_the_settings_of_its_run(tmp_path):
    interrupt(tmp_path / "old", seed=1)
    checkpoint = str(tmp_path / "old" / "checkpoint-4")
    with pytest.raises(ValueError, match=r"checkpoint-4' is of a run with other settings(.|\n)*seed: was 1, is now 2"):
        interrupt(tmp_path / "new", seed=2, resume_from_checkpoint=checkpoint)
    interrupt(tmp_path / "new", seed=1, resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("content", ["[", "[" * 100_000, "1"])
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / SETTINGS_NAME).write_text(content)
    with pytest.raises(ValueError, match="training_settings.json' is damaged"):
        interrupt(tmp_path)


def test_a_folder_is_of_one_run_at_a_time(tmp_path):
    other = f"from slam_hf.folder_lock import lock_folder\nwith lock_folder({str(tmp_path)!r}): print('held')"
    with run(tmp_path):
        result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert f"Another job is writing to '{tmp_path}'" in result.stderr


def test_settings_hold_neither_token_nor_what_weights_do_not_depend_on(tmp_path):
    training_args = TrainingArguments(output_dir=str(tmp_path), hub_token="hf_secret", hub_model_id="user/model")
    settings = make_settings(PretrainArguments(), training_args, ModelConfig())
    assert "hf_secret" not in json.dumps(settings)
    assert not {"output_dir", "hub_model_id", "logging_steps", "save_steps", "prompt", "use_cpu"} & settings.keys()
    assert {"datasets", "max_steps", "optim", "lora_r", "model_name_or_path", "lr_scheduler_kwargs"} <= settings.keys()
    training_args = DPOConfig(output_dir=str(tmp_path), use_cpu=True)
    settings = make_settings(AlignArguments(dataset_name="user/pairs"), training_args, ModelConfig())
    assert {"beta", "loss_type", "dataset_name", "max_auto_bleu"} <= settings.keys()
