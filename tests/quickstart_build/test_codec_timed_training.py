import itertools

import pytest
import torch
from quickstart.codec import timed_training


def test_training_ends_with_its_time_and_pause_after_where_it_was_stopped(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(timed_training.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(timed_training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    rates = []

    def train(checkpoint, stop_at=None):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.AdamW(model.parameters())

        def compute_loss():
            if len(rates) == stop_at:
                raise KeyboardInterrupt
            return (model(torch.ones(1)) - 1).square().sum()

        def learning_rate(share, step):
            rates.append((round(share, 3), step))
            return 0.1 * (1 - share)

        figures = timed_training.train_for(0.1, model, optimizer, compute_loss, learning_rate, 1.0, checkpoint)
        return figures, model.weight.item()

    whole, expected = train(tmp_path / "whole.pt")
    assert (whole["steps"], whole["cpu_minutes"]) == (6, pytest.approx(0.1))
    shares = rates.copy()
    rates.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped.pt", stop_at=4)
    rates.pop()
    assert train(tmp_path / "stopped.pt") == (whole | {"loss": pytest.approx(whole["loss"], abs=1)}, expected)
    assert rates == shares == [(round(step / 6, 3), step) for step in range(6)]


def test_step_takes_the_mean_gradient_of_its_batches(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(timed_training.time, "process_time", lambda: next(clock))
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters())
    batches = iter([1.0, 3.0])
    figures = timed_training.train_for(
        1 / 60, model, optimizer, lambda: model.weight.sum() * next(batches), lambda *_: 0.5, 9.0, tmp_path / "x.pt", 2
    )
    assert (figures["steps"], model.weight.item()) == (1, -0.5 * 2)
