"""Trains for a given CPU time, and resumes an interrupted training."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn


SECONDS_BETWEEN_CHECKPOINTS = 60


def train_for(
    minutes: float,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    compute_loss: Callable[[], torch.Tensor],
    learning_rate: Callable[[float, int], float],
    max_grad_norm: float,
    checkpoint: Path,
    batches_per_step: int = 1,
) -> dict[str, float]:
    r"""
    Train for a given CPU time of the process, so that pauses cost nothing.

    Args:
        minutes (`float`):
            CPU minutes to train.
        model (`nn.Module`):
            The model, trained in place.
        optimizer (`torch.optim.Optimizer`):
            Optimizer of its weights.
        compute_loss (`Callable[[], torch.Tensor]`):
            Draws a batch and gives its loss.
        learning_rate (`Callable[[float, int], float]`):
            The learning rate, from the share of the time that is spent and the number of the step.
        max_grad_norm (`float`):
            Largest norm of the gradient.
        checkpoint (`Path`):
            File for the state. Training resumes from it if it exists.
        batches_per_step (`int`, *optional*, defaults to 1):
            Batches whose mean gradient makes a step. Each has one of PyTorch's threads to itself: small networks use
            two cores better so than with both in each operation.

    Returns:
        `dict`: steps, CPU minutes and the mean of the last 100 losses.
    """
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)  # noqa: TID251 (weights_only)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.rename(checkpoint)

    def backward(_: int) -> float:
        loss = compute_loss()
        (loss / batches_per_step).backward()
        return loss.item()

    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    started, saved, losses = time.process_time() - 60 * spent, time.time(), []
    with _thread_pool() as pool:
        while spent < minutes:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spent / minutes, step)
            optimizer.zero_grad()
            losses.append(np.mean(list(pool.map(backward, range(batches_per_step)))))
            nn.utils.clip_grad_norm_(weights, max_grad_norm)
            optimizer.step()
            step, spent = step + 1, (time.process_time() - started) / 60
            if time.time() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                saved = time.time()
                print(f"{spent:.1f} CPU min, step {step}, loss {np.mean(losses[-100:]):.3f}", flush=True)
                save()
    save()
    return {"steps": step, "cpu_minutes": spent, "loss": float(np.mean(losses[-100:]))}


@contextmanager
def _thread_pool() -> Iterator[ThreadPoolExecutor]:
    """PyTorch's threads as a pool; no operation takes more than one of them."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(num_threads)
