"""Does one way of training score higher than another, beyond what chance among items explains?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from slam_hf.metrics.storycloze.storycloze import pair_outcomes

from .runs import TASKS


NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Finding:
    r"""
    What the paper says helps.

    Args:
        name (`str`):
            What.
        better, worse (`str`):
            The runs with and without it.
    """

    name: str
    better: str
    worse: str


@dataclass(frozen=True)
class Difference:
    r"""
    What a finding changed on a benchmark.

    Args:
        task (`str`):
            The benchmark.
        value (`float`):
            Accuracy with what is said to help, less accuracy without it: between -1 and 1.
        interval (`tuple[float, float]`):
            95 % interval over the benchmark's items, the seeds being averaged.
        by_seed (`list[float]`):
            The difference of each seed.
    """

    task: str
    value: float
    interval: tuple[float, float]
    by_seed: list[float]

    @property
    def verdict(self) -> Literal["holds", "does not hold", "undecided"]:
        """`str`: "does not hold" where the opposite does."""
        low, high = self.interval
        return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


@dataclass(frozen=True)
class Comparison:
    """A finding, and what it changed on each benchmark."""

    finding: Finding
    differences: list[Difference]


def compare(finding: Finding, folders: Mapping[str, Sequence[Path]]) -> Comparison:
    """Compare the runs of a finding, seed by seed and item by item. `folders` are those of the seeds by run."""
    differences = []
    for task in TASKS:
        gains = outcomes(folders[finding.better], task) - outcomes(folders[finding.worse], task)
        value, interval = mean_with_interval(gains.mean(axis=0))
        differences.append(Difference(task, value, interval, gains.mean(axis=1).tolist()))
    return Comparison(finding, differences)


def outcomes(folders: Sequence[Path], task: str) -> np.ndarray:
    """Which pairs of a benchmark runs have right, of shape `(runs, pairs)`: 1, 0, or 0.5 for a tie."""
    tables = [pq.read_table(folder / "evaluation" / f"{task}.parquet") for folder in folders]
    return np.stack([pair_outcomes(table["correct_score"], table["incorrect_score"]) for table in tables])


def mean_with_interval(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean of items of shape `(items,)`, and its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), (float(low), float(high))
