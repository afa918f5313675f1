"""How fast training is: tokens a second, model FLOPs utilisation, padding."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


PEAK_BF16_FLOPS = [
    ({"B200"}, 2250e12),
    ({"H200"}, 989e12),
    ({"H100", "PCIe"}, 756e12),
    ({"H100"}, 989e12),
    ({"A100"}, 312e12),
    ({"A40"}, 150e12),
    ({"A10"}, 125e12),
    ({"L40S"}, 362e12),
    ({"L4"}, 121e12),
    ({"A6000"}, 155e12),
    ({"A5000"}, 111e12),
    ({"RTX", "5090"}, 210e12),
    ({"RTX", "4090"}, 165e12),
    ({"RTX", "3090"}, 71e12),
]
"""Words in the name of a GPU, and its dense bf16 FLOPs a second by NVIDIA's data sheets. The first fit counts."""


def peak_flops(device: torch.device) -> float:
    r"""
    FLOPs a second of which a device is capable: in bf16 and by its data sheet for a known GPU, else as products of
    two float32 matrices show now.
    """
    if device.type == "cuda":
        words = set(re.split("[ -]", torch.cuda.get_device_name(device)))
        for name, peak in PEAK_BF16_FLOPS:
            if name <= words:
                return peak
    return measure_matmul_flops(device)


def measure_matmul_flops(device: torch.device, size: int = 1024, seconds: float = 0.3) -> float:
    r"""
    FLOPs a second of products of two float32 matrices, at best.

    Args:
        device (`torch.device`):
            Where to multiply.
        size (`int`, *optional*, defaults to 1024):
            Rows and columns of the matrices.
        seconds (`float`, *optional*, defaults to 0.3):
            How long to try.
    """
    matrix = torch.randn(size, size, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def flops_per_token(num_parameters: int) -> int:
    r"""
    FLOPs that training spends on a token: 2 per parameter forward and 4 backward (Kaplan et al., 2020,
    arXiv 2001.08361). What attention spends beside its projections is left out, so a utilisation is never overstated.
    """
    return 6 * num_parameters


class ThroughputCallback(TrainerCallback):
    r"""
    Adds to the logs of training: `tokens_per_second` (without padding, over all processes), `mfu` (model FLOPs
    utilisation, from 0 to 1) and `padding` (share of the batches), each since the last log, and the share of the
    run that is done, `progress`. After the first steps it says when training will end.

    Args:
        num_parameters (`int`):
            Parameters of the model.
        tokens_per_step (`int`):
            Tokens of a step over all processes, with padding.
        peak (`float`):
            FLOPs a second of which all devices together are capable.
        print_fn (`Callable`):
            Prints a line, on one process.
        warmup_steps (`int`, *optional*, defaults to 10):
            Steps after which to say when training will end. The first of them, which compiles and fills caches, is
            not measured.
    """

    def __init__(
        self,
        num_parameters: int,
        tokens_per_step: int,
        peak: float,
        print_fn: Callable[[str], None],
        warmup_steps: int = 10,
    ):
        self.flops_per_token = flops_per_token(num_parameters)
        self.tokens_per_step = tokens_per_step
        self.peak = peak
        self.print = print_fn
        self.warmup_steps = warmup_steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first_step = state.global_step
        # The length of the schedule: budgets of tokens and time have one that is no number of steps.
        self.schedule_length = args.max_steps if args.max_steps > 0 else state.max_steps
        self._mark(state)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: LRScheduler | None = None,
        **kwargs: Any,
    ) -> None:
        self.progress = lr_scheduler.last_epoch / self.schedule_length
        step = state.global_step - self.first_step
        if step == 1:
            self._mark(state)
            self.progress_at_start, self.start = self.progress, self.marked_at
        elif step == self.warmup_steps and self.progress < 1:
            self._announce(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if "loss" in logs and state.global_step > self.marked_step:
            speed = self._speed(state)
            logs.update(speed)
            state.log_history[-1].update(speed)
            self._mark(state)

    def _mark(self, state: TrainerState) -> None:
        self.marked_step, self.marked_tokens = state.global_step, state.num_input_tokens_seen
        self.marked_at = time.perf_counter()

    def _speed(self, state: TrainerState) -> dict[str, float]:
        tokens = state.num_input_tokens_seen - self.marked_tokens
        tokens_per_second = tokens / (time.perf_counter() - self.marked_at)
        return {
            "tokens_per_second": tokens_per_second,
            "mfu": tokens_per_second * self.flops_per_token / self.peak,
            "padding": 1 - tokens / (self.tokens_per_step * (state.global_step - self.marked_step)),
            "progress": self.progress,
        }

    def _announce(self, args: TrainingArguments, state: TrainerState) -> None:
        seconds = time.perf_counter() - self.start
        remaining = seconds * (1 - self.progress) / (self.progress - self.progress_at_start)
        steps = state.global_step + remaining / seconds * (self.warmup_steps - 1)
        end = datetime.now() + timedelta(seconds=remaining)
        line = (
            f"Measured over {self.warmup_steps - 1} steps: {seconds / (self.warmup_steps - 1):.2f} s a step. "
            f"Training will end at step {steps:,.0f}, in {timedelta(seconds=round(remaining))} "
            f"({end:%Y-%m-%d %H:%M:%S})"
        )
        if args.device.type == "cuda":
            line += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of memory in use at most"
        self.print(line + ".")
