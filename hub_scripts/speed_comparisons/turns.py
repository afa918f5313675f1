"""Ways to do the same work take turns, and each turn is timed."""

import io
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import cache

import torch


@dataclass
class Turn:
    """The work done in one turn, in the unit of the comparison, and the time that it took on the two clocks."""

    work: float
    seconds: float
    processor_seconds: float


@dataclass
class Comparison:
    r"""
    Several ways to do the same work.

    Args:
        title (`str`):
            What the work is, and its size.
        unit (`str`):
            Unit of the speed: work per second.
        baseline (`str`):
            The way that the others are compared with.
        turns (`dict[str, list[Turn]]`):
            The turns of each way. Turns at the same position belong to one round.
        limits (`dict[str, float]`, *optional*):
            The speed of each way if all its floating-point operations ran as fast as a matrix product, measured on the
            spot.
        notes (`dict[str, dict[str, str]]`, *optional*):
            Further columns, and the value of each way in them.
    """

    title: str
    unit: str
    baseline: str
    turns: dict[str, list[Turn]]
    limits: dict[str, float] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)

    def speeds(self, way: str) -> list[float]:
        """Speed of a way in each round."""
        return [turn.work / turn.seconds for turn in self.turns[way]]

    def ratios(self, way: str, clock: str = "seconds") -> list[float]:
        """How many times as fast as the baseline a way is in each round, by one of the two clocks."""
        pairs = zip(self.turns[self.baseline], self.turns[way], strict=True)
        return [(getattr(base, clock) / base.work) / (getattr(turn, clock) / turn.work) for base, turn in pairs]


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[Turn]]:
    r"""
    Let each way do its work once per round, after one round to warm up.

    Args:
        ways (`Mapping[str, Callable[[], float]]`):
            Does the work, waits for the device, and returns the amount of work.
        rounds (`int`):
            Number of rounds.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, do_work in ways.items():
            start, processor_start = time.perf_counter(), time.process_time()
            with redirect_stderr(io.StringIO()):  # the bars of jobs
                work = do_work()
            turn = Turn(work, time.perf_counter() - start, time.process_time() - processor_start)
            if number > 0:
                turns[name].append(turn)
    return turns


@cache
def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a product of two matrices, the best of several."""
    size = 1024 if device.type == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> float:
        (matrix @ matrix)[0, 0].item()  # waits for the device
        return 2.0 * size**3

    turns = take_turns({"matmul": multiply}, rounds=10)["matmul"]
    return max(turn.work / turn.seconds for turn in turns)


def describe_device(device: torch.device) -> str:
    """Name of the device, with the threads that PyTorch uses on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
