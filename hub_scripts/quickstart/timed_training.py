"""Trains for a given CPU time with the stock Trainer, and resumes an interrupted training."""

import time
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from slam_hf.training.budget import HORIZON, TimeBudget


TIMED: dict[str, Any] = {
    "max_steps": HORIZON,
    "use_cpu": True,
    "logging_steps": 100,
    "save_steps": 100,
    "save_total_limit": 1,
    "remove_unused_columns": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "disable_tqdm": True,
    "accelerator_config": {"dispatch_batches": False},  # dispatching cuts all tensors of a batch to one length
}
"""Values of `TrainingArguments` that [`train_for`] needs. The learning rate falls with the share of the time."""


def train_for(trainer: Trainer, minutes: float) -> dict[str, float]:
    r"""
    Train for a given CPU time of this process, so that pauses cost nothing.

    Args:
        trainer ([`~transformers.Trainer`]):
            Has `TIMED` among its arguments. Training resumes from the last checkpoint in its folder, where the model
            is saved in the end.
        minutes (`float`):
            CPU minutes to train.

    Returns:
        `dict`: steps, CPU minutes and the last mean loss that was logged.
    """
    budget = TimeBudget(60 * minutes, clock=time.process_time)
    trainer.add_callback(budget)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(trainer.args.output_dir))
    trainer.save_model()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    figures = {"steps": trainer.state.global_step, "cpu_minutes": budget.elapsed / 60}
    return figures | {"loss": losses[-1] if losses else trainer.state.log_history[-1]["train_loss"]}
