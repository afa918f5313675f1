import numpy as np
import pytest
import torch
from quickstart import timed_training
from transformers import Trainer, TrainingArguments


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps, self.stop_at = 0, None

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.steps == self.stop_at:
            raise KeyboardInterrupt
        self.steps += 1
        return {"loss": (self.weight - x.mean()).square()}


class Draws(torch.utils.data.IterableDataset):
    def __iter__(self):
        rng = np.random.default_rng(0)
        while True:
            yield {"x": rng.standard_normal(1, np.float32)}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains a model for twenty seconds, in which each step takes one."""

    def train(name: str, stop_at: int | None = None) -> tuple[dict[str, float], torch.Tensor]:
        model = Line()
        model.stop_at = stop_at
        monkeypatch.setattr(timed_training.time, "process_time", lambda: model.steps)
        options = timed_training.TIMED | {"logging_steps": 5, "save_steps": 4}
        args = TrainingArguments(str(tmp_path / name), **options, per_device_train_batch_size=1, learning_rate=0.1)
        figures = timed_training.train_for(Trainer(model, args, train_dataset=Draws()), minutes=20 / 60)
        return figures, model.weight.detach()

    return train


def test_a_training_that_was_stopped_ends_where_one_that_was_not_ends(train, tmp_path):
    figures, expected = train("whole")
    assert figures["steps"] == 20
    assert figures["cpu_minutes"] == pytest.approx(20 / 60)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_at=10)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["checkpoint-8"]
    again, weight = train("stopped")
    assert again == figures
    assert torch.equal(weight, expected)
    assert (tmp_path / "stopped" / "model.safetensors").exists()
