"""Prepares the processes of a training: their token, their cores, and one bar in place of many."""

import os
import warnings
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from tqdm.auto import tqdm
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.utils import logging


def prepare_process(args: TrainingArguments) -> None:
    """Check that FSDP has GPUs, that several processes train together, and that what `report_to` names is installed:
    an `ImportError` or a `ValueError` says what is missing. Move the Hub token to the environment, because the Trainer
    writes its arguments to files. Show no bars for loading models, writing files and preparing data. Divide the cores
    among the processes of a training on CPU, where `accelerate launch` gives each one thread, and let them wait for
    each other as long as `ddp_timeout` says."""
    if uses_fsdp(args) and PartialState().distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise ValueError(
            "FSDP needs GPUs and `accelerate launch`: without them, accelerate would train whole models instead. Use "
            "`hub_scripts/accelerate_configs/ddp.yaml`."
        )
    if args.world_size == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("These processes have no GPUs, and each would train alone: add `--use_cpu True`.")
    try:
        for reporter in get_reporting_integration_callbacks(args.report_to):
            reporter()
    except RuntimeError as error:
        raise ImportError(f"`report_to` names what is not installed. {error}") from error
    if args.hub_token is not None:
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token, None
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # by PEFT and TRL
    if args.device.type == "cpu" and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, cores // args.world_size))
    # transformers gives `ddp_timeout` to processes on GPUs only, and torch before 2.14 cannot change it later.
    if args.device.type == "cpu" and torch.distributed.is_initialized() and hasattr(torch.distributed, "set_timeout"):
        torch.distributed.set_timeout(args.ddp_timeout_delta)


def uses_fsdp(args: TrainingArguments) -> bool:
    """Whether the arguments, or the configuration of `accelerate launch`, ask for FSDP."""
    return bool(args.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")


def show_one_bar(trainer: Trainer) -> None:
    """Name the bar of a trainer, if it has one, and show none for each evaluation."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(TrainingBar)


def put_before_reporters(trainer: Trainer, *callbacks: TrainerCallback) -> None:
    """Put callbacks in front of those that report the logs, and behind the first, which says what follows a step."""
    handler = trainer.callback_handler
    others = [callback for callback in handler.callbacks if callback not in callbacks]
    handler.callbacks = [others[0], *callbacks, *others[1:]]


class TrainingBar(ProgressCallback):
    """The bar of a training, without those of its evaluations."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, desc="training", unit="step", dynamic_ncols=True)
        self.current_step = 0

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        pass
