import os

import pytest
import torch
from transformers import TrainingArguments

from slam_hf.training.cpu_threads import use_all_cores


@pytest.fixture
def arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    return TrainingArguments(str(tmp_path), use_cpu=True)


@pytest.mark.parametrize(("processes", "threads"), [(1, 6), (2, 3), (8, 1)])
def test_a_single_thread_becomes_the_process_s_share_of_the_cores(arguments, monkeypatch, processes, threads):
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    torch.set_num_threads(1)
    use_all_cores(arguments)
    assert torch.get_num_threads() == threads


def test_a_chosen_number_of_threads_stays(arguments):
    torch.set_num_threads(2)
    use_all_cores(arguments)
    assert torch.get_num_threads() == 2
