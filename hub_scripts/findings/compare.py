"""Compares two ways of training: how much higher does one score, with which interval over items?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slam_hf.evaluation.tasks import TASKS
from slam_hf.metrics.storycloze.storycloze import pair_outcomes

from .runs import BENCHMARKS


NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Measure:
    r"""
    A quantity that is measured on each pair of a benchmark.

    Args:
        task (`str`):
            Name of the task.
        of_pairs (`Callable[[np.ndarray, np.ndarray], np.ndarray]`):
            Gives the measure of each pair, from the scores of the correct and the incorrect utterances.
        format (`str`):
            Format of its numbers.
        unit (`str`):
            Unit of its differences.
    """

    task: str
    of_pairs: Callable[[np.ndarray, np.ndarray], np.ndarray]
    format: str
    unit: str

    def of_runs(self, folders: Sequence[Path]) -> np.ndarray:
        """The measure of each run and item, of shape `(runs, items)`, averaged over an item's voices."""
        tables = [pq.read_table(folder / "evaluation" / f"{self.task}.parquet") for folder in folders]
        return np.stack([self._of_items(table) for table in tables])

    def _of_items(self, table: pa.Table) -> np.ndarray:
        of_pairs = self.of_pairs(np.array(table["correct_score"]), np.array(table["incorrect_score"]))
        if "voice" not in table.column_names:
            return of_pairs
        _, items = np.unique(np.array(table["id"]), return_inverse=True)
        return np.bincount(items, of_pairs) / np.bincount(items)


def _accuracy(task: str) -> Measure:
    return Measure(task, lambda correct, incorrect: 100 * pair_outcomes(correct, incorrect), ".1f", "points")


def _log_likelihood(task: str) -> Measure:
    return Measure(task, lambda correct, incorrect: correct, ".3f", "nats a unit")


MEASURES = {
    **{TASKS[task].heading: _accuracy(task) for task in BENCHMARKS},
    "log-likelihood of sentences": _log_likelihood("sblimp"),
    "log-likelihood of stories": _log_likelihood("tstorycloze"),
}
"""Accuracies in percent, and mean log-likelihoods of the correct utterances, which differ much earlier."""


@dataclass(frozen=True)
class Finding:
    r"""
    A change of the training that helps, as the paper says.

    Args:
        name (`str`):
            Name of the change.
        better, worse (`str`):
            Names of the runs with and without it.
    """

    name: str
    better: str
    worse: str


@dataclass(frozen=True)
class Difference:
    r"""
    The difference that a change made to a measure.

    Args:
        measure (`str`):
            Name of the measure.
        value (`float`):
            The measure with the change minus the measure without it.
        interval (`tuple[float, float]`):
            95 % interval over the benchmark's items, averaged over seeds.
        by_seed (`list[float]`):
            The difference of each seed.
    """

    measure: str
    value: float
    interval: tuple[float, float]
    by_seed: list[float]

    @property
    def verdict(self) -> Literal["holds", "does not hold", "undecided"]:
        """`str`: "does not hold" if the change made the measure worse."""
        low, high = self.interval
        return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


@dataclass(frozen=True)
class Comparison:
    """A finding, and its difference in each measure."""

    finding: Finding
    differences: list[Difference]


def compare(finding: Finding, folders: Mapping[str, Sequence[Path]]) -> Comparison:
    """Compare the runs of a finding, seed by seed and item by item. `folders` has one folder per seed for each run."""
    differences = []
    for name, measure in MEASURES.items():
        gains = measure.of_runs(folders[finding.better]) - measure.of_runs(folders[finding.worse])
        value, interval = mean_with_interval(gains.mean(axis=0))
        differences.append(Difference(name, value, interval, gains.mean(axis=1).tolist()))
    return Comparison(finding, differences)


def mean_with_interval(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean of items of shape `(items,)`, and its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), (float(low), float(high))
