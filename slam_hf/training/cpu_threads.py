"""Uses all cores of a machine without a GPU."""

import os

import torch
from transformers import TrainingArguments


def use_all_cores(args: TrainingArguments) -> None:
    """Divide the cores among the processes of a training on CPU, where `accelerate launch` gives each one thread."""
    if args.device.type == "cpu" and torch.get_num_threads() == 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, cores // args.world_size))
