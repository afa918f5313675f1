"""One bar for a training, in place of many without names."""

from typing import Any

import datasets
from tqdm.auto import tqdm
from transformers import ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging


def hide_small_bars() -> None:
    """Show no bars for loading models, writing files and preparing data."""
    datasets.disable_progress_bars()
    logging.disable_progress_bar()


def show_one_bar(trainer: Trainer) -> None:
    """Name the bar of a trainer, if it has one, and show none for each evaluation."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(TrainingBar)


class TrainingBar(ProgressCallback):
    """The bar of a training, without those of its evaluations."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, desc="training", unit="step", dynamic_ncols=True)
        self.current_step = 0

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        pass
