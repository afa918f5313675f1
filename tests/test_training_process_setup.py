import os

import datasets
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from training_utils import make_trainer
from transformers import ProgressCallback, TrainingArguments
from transformers.integrations import integration_utils
from transformers.utils import logging

from slam_hf.training.process_setup import prepare_process, show_one_bar


@pytest.fixture(autouse=True)
def bars():
    """The bars that a test hides are shown in the next one."""
    yield
    datasets.enable_progress_bars()
    logging.enable_progress_bar()


def test_a_training_has_one_bar_with_a_name(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    prepare_process(trainer.args)
    trainer.args.disable_tqdm = False
    trainer.add_callback(ProgressCallback)
    show_one_bar(trainer)
    trainer.train()
    trainer.evaluate(trainer.train_dataset)
    trainer.train_dataset.map(lambda row: {"length": len(row["input_ids"])})
    shown = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "%|" in line]
    assert shown
    assert all(line.startswith("training: ") for line in shown)


def test_a_trainer_without_a_bar_gets_none(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=1)
    show_one_bar(trainer)
    trainer.train()
    assert "%|" not in capsys.readouterr().err


@pytest.fixture
def arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    return TrainingArguments(str(tmp_path), use_cpu=True)


def test_fsdp_without_gpus_is_refused(arguments, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU):
        monkeypatch.setitem(PartialState._shared_state, "distributed_type", kind)
        with pytest.raises(ValueError, match="FSDP needs GPUs"):
            prepare_process(arguments)
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.MULTI_GPU)
    prepare_process(arguments)


def test_processes_that_would_each_train_alone_are_refused(arguments, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="no GPUs, and each would train alone: add `--use_cpu True`"):
        prepare_process(arguments)
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    prepare_process(arguments)


@pytest.mark.parametrize(("processes", "threads"), [(1, 6), (2, 3), (8, 1)])
def test_a_single_thread_becomes_the_process_s_share_of_the_cores(arguments, monkeypatch, processes, threads):
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    torch.set_num_threads(1)
    prepare_process(arguments)
    assert torch.get_num_threads() == threads


def test_a_chosen_number_of_threads_stays(arguments):
    torch.set_num_threads(2)
    prepare_process(arguments)
    assert torch.get_num_threads() == 2


def test_a_reporter_that_is_not_installed_is_named_before_training(arguments, monkeypatch):
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: False)
    arguments.report_to = ["trackio"]
    with pytest.raises(ImportError, match=r"`report_to` names what is not installed.* `pip install trackio`"):
        prepare_process(arguments)
    arguments.report_to = ["tracky"]
    with pytest.raises(ValueError, match="tracky is not supported, only "):
        prepare_process(arguments)


def test_the_token_is_in_the_environment_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    trainer = make_trainer(tmp_path, max_steps=1, hub_token="hf_secret")
    prepare_process(trainer.args)
    trainer.train()
    trainer.save_model()
    assert os.environ["HF_TOKEN"] == "hf_secret"
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()
