import re
from itertools import pairwise

import pytest
import torch
from training_utils import BATCH_SIZE, CONTEXT_LENGTH, logged, make_trainer, random_sequences
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from slam_hf.training import throughput
from slam_hf.training.process_setup import put_before_reporters
from slam_hf.training.throughput import ThroughputCallback, flops_per_token, measure_matmul_flops, peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA RTX A5000", 111e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 3090 Ti", 71e12),
        ("NVIDIA A40", 150e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_known_gpus_have_the_peak_of_their_data_sheet(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_devices_are_measured(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX A4000")
    monkeypatch.setattr(throughput, "measure_matmul_flops", lambda device: 1e12)
    assert peak_flops(torch.device(device)) == 1e12


def test_the_measured_peak_is_that_of_a_processor():
    assert 1e8 < measure_matmul_flops(torch.device("cpu"), size=256, seconds=0.05) < 1e14


def test_the_papers_speed_is_the_papers_utilisation():
    assert 16_500 * flops_per_token(358_347_904) / 111e12 == pytest.approx(0.32, abs=0.005)
    assert 48_000 * flops_per_token(358_347_904) / 312e12 == pytest.approx(0.33, abs=0.005)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by two seconds whenever it is read."""
    readings = iter(range(0, 10_000, 2))
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(readings))


def test_speed_utilisation_and_padding_are_logged(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "peak_flops", lambda device: 1e6)
    callback = ThroughputCallback(1000, BATCH_SIZE * CONTEXT_LENGTH, warmup_steps=4)
    trainer = make_trainer(tmp_path, sequences=random_sequences(20), max_steps=10, logging_steps=2)
    trainer.callback_handler.callbacks.insert(0, callback)
    trainer.train()

    seen = logged(trainer, "num_input_tokens_seen")
    tokens = [after - before for before, after in pairwise(seen)]
    # Each log reads the clock twice: two seconds from its end to the next log's start.
    assert logged(trainer, "tokens_per_second")[2:] == [count / 2 for count in tokens[1:]]
    assert logged(trainer, "mfu")[2:] == [pytest.approx(100 * count / 2 * 6000 / 1e6) for count in tokens[1:]]
    assert logged(trainer, "padding")[2:] == [pytest.approx(100 * (1 - count / (2 * 4 * 16))) for count in tokens[1:]]
    assert logged(trainer, "progress") == [20, 40, 60, 80, 100]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Measured")]
    assert re.match(
        r"Measured over 3 steps: \d+\.\d\d s per step. Training will end at step 10, in 0:00:\d\d \(20", line
    )


def test_reporters_see_the_speed(tmp_path):
    class Reporter(TrainerCallback):
        def __init__(self):
            self.names = set()

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.names |= logs.keys()

    reporter = Reporter()
    trainer = make_trainer(tmp_path, [reporter], max_steps=2)
    trainer.callback_handler.callbacks.insert(0, ThroughputCallback(1000, 64))
    trainer.train()
    assert {"tokens_per_second", "mfu", "padding", "progress"} <= reporter.names


def test_evaluations_and_checkpoints_are_not_training(tmp_path, monkeypatch, capsys):
    """Steps take 3 s, evaluations 100 s, checkpoints 50 s."""

    class Clock(TrainerCallback):
        now = 0.0

        def on_step_end(self, args, state, control, **kwargs):
            self.now += 3

        def on_evaluate(self, args, state, control, **kwargs):
            self.now += 100

        def on_save(self, args, state, control, **kwargs):
            self.now += 50

    clock = Clock()
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(throughput, "peak_flops", lambda device: 1e6)
    callback = ThroughputCallback(1000, BATCH_SIZE * CONTEXT_LENGTH, warmup_steps=6, price_per_hour=120)
    steps = {"max_steps": 10, "logging_steps": 2, "eval_steps": 2, "save_steps": 5, "save_strategy": "steps"}
    trainer = make_trainer(tmp_path, sequences=random_sequences(20), **steps)
    trainer.eval_dataset, trainer.args.eval_strategy = random_sequences(4), IntervalStrategy.STEPS
    put_before_reporters(trainer, clock, callback)
    trainer.train()

    tokens = [after - before for before, after in pairwise(logged(trainer, "num_input_tokens_seen"))]
    assert logged(trainer, "tokens_per_second")[1:] == [pytest.approx(count / 6) for count in tokens]
    # After step 4: 109 s for three steps, and six to come.
    assert logged(trainer, "hours_left")[1] == pytest.approx(2 * 109 / 3600)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Measured")]
    assert line.startswith("Measured over 5 steps: 3.00 s per step. Training will end at step 10, in 0:00:12 (2")
    assert line.endswith("), not counting evaluations and checkpoints, and costs 0.40 at 120 an hour.")
