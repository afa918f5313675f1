"""Measures the speed of training: tokens a second, model FLOPs utilisation, padding."""

import time
from datetime import datetime, timedelta

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import compute_mfu, get_peak_flops


MORE_PEAK_FLOPS = {"A40": 150e12, "A5000": 111e12, "5090": 210e12, "4090": 165e12, "3090": 71e12}
"""Dense bf16 FLOPs per second of GPUs that TRL's table lacks, from NVIDIA's data sheets, by a word of their names."""


def peak_flops(device: torch.device) -> float:
    """Peak FLOPs per second of a device: in bf16 from its data sheet for a known GPU, and otherwise measured now with
    products of float32 matrices."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = get_peak_flops(name, "bfloat16")
        known = known or next((MORE_PEAK_FLOPS[word] for word in name.split() if word in MORE_PEAK_FLOPS), None)
        if known is not None:
            return known
    return measure_matmul_flops(device)


def measure_matmul_flops(device: torch.device, size: int = 1024, seconds: float = 0.3) -> float:
    """Measure the peak FLOPs per second of products of float32 matrices."""
    matrix = torch.randn(size, size, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def flops_per_token(num_parameters: int) -> int:
    """FLOPs that training spends on a token: 2 per parameter forward and 4 backward (Kaplan et al., 2020,
    arXiv 2001.08361). TRL's `compute_flops_per_token` adds attention to the whole sequence, which packed documents do
    not spend, and knows only gated feed-forward blocks."""
    return 6 * num_parameters


class ThroughputCallback(TrainerCallback):
    r"""
    Adds to the logs of training: `tokens_per_second` (without padding, over all processes) and, in percent, `mfu`
    (model FLOPs utilisation) and `padding` (share of the batches), each since the last log; `progress`, how much of
    the run is done; and `hours_left`, which follows from the progress since the first step. Evaluations, checkpoints
    and samples count for `hours_left` alone. After the first steps it prints when training will end, and what that
    costs.

    It belongs behind the callback that decides what follows a step, and in front of those that report the logs.

    Args:
        num_parameters (`int`):
            Parameters of the model.
        tokens_per_step (`int`):
            Tokens of a step over all processes, with padding.
        warmup_steps (`int`, *optional*, defaults to 10):
            Steps after which to print when training will end. The first of them, which compiles and fills caches, is
            not measured.
        price_per_hour (`float`, *optional*):
            Price of an hour of all machines of the run.
    """

    def __init__(
        self, num_parameters: int, tokens_per_step: int, warmup_steps: int = 10, price_per_hour: float | None = None
    ):
        self.flops_per_token = flops_per_token(num_parameters)
        self.tokens_per_step = tokens_per_step
        self.warmup_steps = warmup_steps
        self.price_per_hour = price_per_hour
        self.paused_at: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.first_step = state.global_step
        self.peak = peak_flops(args.device)
        # The length of the schedule. With a budget of tokens or time, it is not the number of steps.
        self.schedule_length = args.max_steps if args.max_steps > 0 else state.max_steps
        self._mark(state)
        self.progress_at_start, self.start, self.seconds_paused = 0.0, self.marked_at, 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.paused_at is not None:
            pause, self.paused_at = time.perf_counter() - self.paused_at, None
            self.marked_at += pause
            self.seconds_paused += pause

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, lr_scheduler: LambdaLR, **kwargs
    ) -> None:
        self.progress = lr_scheduler.last_epoch / self.schedule_length
        step = state.global_step - self.first_step
        if step == 1:
            self._mark(state)
            self.progress_at_start, self.start, self.seconds_paused = self.progress, self.marked_at, 0.0
        elif step == self.warmup_steps and self.progress < 1 and state.is_world_process_zero:
            self._announce(args, state)
        if control.should_evaluate or control.should_save:
            self.pause()

    def pause(self) -> None:
        """Leave out the time until the next step begins."""
        if self.paused_at is None:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            self.paused_at = time.perf_counter()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs
    ) -> None:
        steps = state.global_step - self.marked_step
        if "loss" in logs and steps > 0:
            now = time.perf_counter() if self.paused_at is None else self.paused_at
            tokens = state.num_input_tokens_seen - self.marked_tokens
            tokens_per_second = tokens / (now - self.marked_at)
            speed = {
                "tokens_per_second": tokens_per_second,
                "mfu": compute_mfu(self.flops_per_token, tokens_per_second, args.world_size, self.peak),
                "padding": 100 * (1 - tokens / (self.tokens_per_step * steps)),
                "progress": 100 * self.progress,
            }
            if self.progress > self.progress_at_start:
                rate = (self.progress - self.progress_at_start) / (now - self.start)
                speed["hours_left"] = (1 - self.progress) / rate / 3600
            logs.update(speed)
            state.log_history[-1].update(speed)
            self._mark(state)

    def _mark(self, state: TrainerState) -> None:
        self.marked_step, self.marked_tokens = state.global_step, state.num_input_tokens_seen
        self.marked_at = time.perf_counter() if self.paused_at is None else self.paused_at

    def _announce(self, args: TrainingArguments, state: TrainerState) -> None:
        seconds, measured = time.perf_counter() - self.start - self.seconds_paused, self.warmup_steps - 1
        remaining = seconds * (1 - self.progress) / (self.progress - self.progress_at_start)
        steps = state.global_step + remaining / seconds * measured
        end = datetime.now() + timedelta(seconds=remaining)
        line = (
            f"Measured over {measured} steps: {seconds / measured:.2f} s per step. Training will end at step "
            f"{steps:,.0f}, in {timedelta(seconds=round(remaining))} ({end:%Y-%m-%d %H:%M:%S})"
            ", not counting evaluations and checkpoints"
        )
        if self.price_per_hour is not None:
            line += f", and costs {remaining / 3600 * self.price_per_hour:,.2f} at {self.price_per_hour:g} an hour"
        if args.device.type == "cuda":
            line += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of peak memory"
        print(line + ".")
