"""Compares two ways of training: how much higher does one score, with which interval over items?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slam_hf.evaluation.tasks import TASKS
from slam_hf.metrics.auto_bleu.auto_bleu import auto_bleu
from slam_hf.metrics.storycloze.storycloze import pair_outcomes

from .runs import BENCHMARKS


NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Measure:
    r"""
    A quantity that is measured on each item of a task.

    Args:
        task (`str`):
            Name of the task.
        of_items (`Callable[[pa.Table], np.ndarray]`):
            Gives the measure of each item, from the records of an evaluation. NaN where an item has none.
        format (`str`):
            Format of its numbers.
        unit (`str`):
            Unit of its differences.
        lower_is_better (`bool`, *optional*):
            Whether a low value is a good one.
    """

    task: str
    of_items: Callable[[pa.Table], np.ndarray]
    format: str
    unit: str
    lower_is_better: bool = False

    def of_runs(self, folders: Sequence[Path]) -> np.ndarray:
        """The measure of each run and item, of shape `(runs, items)`, averaged over an item's voices."""
        tables = [pq.read_table(folder / "evaluation" / f"{self.task}.parquet") for folder in folders]
        return np.stack([self._of_items(table) for table in tables])

    def _of_items(self, table: pa.Table) -> np.ndarray:
        of_items = self.of_items(table)
        if "voice" not in table.column_names:
            return of_items
        _, items = np.unique(np.array(table["id"]), return_inverse=True)
        return np.bincount(items, of_items) / np.bincount(items)


def _accuracy(task: str) -> Measure:
    def of_items(table: pa.Table) -> np.ndarray:
        return 100 * pair_outcomes(np.array(table["correct_score"]), np.array(table["incorrect_score"]))

    return Measure(task, of_items, ".1f", "points")


def _log_likelihood(task: str) -> Measure:
    return Measure(task, lambda table: np.array(table["correct_score"]), ".3f", "nats a unit")


def _perplexity(prefix: str) -> Measure:
    def of_items(table: pa.Table) -> np.ndarray:
        return np.array(table[f"{prefix}negative_log_likelihood"].to_pylist(), dtype=np.float64)

    return Measure("genppl", of_items, ".3f", "nats a token", lower_is_better=True)


def _repetition(table: pa.Table) -> np.ndarray:
    return np.array([100 * auto_bleu(text) for text in table["transcript"].to_pylist()])


ACCURACIES = {TASKS[task].heading: _accuracy(task) for task in BENCHMARKS}

MEASURES = {
    **ACCURACIES,
    "log-likelihood of sentences": _log_likelihood("sblimp"),
    "log-likelihood of stories": _log_likelihood("tstorycloze"),
}
"""Accuracies in percent, and mean log-likelihoods of the correct utterances, which differ much earlier."""

OWN_MEASURES = {
    **ACCURACIES,
    "log GenPPL": _perplexity(""),
    "log GenPPL of continuations": _perplexity("continuation_"),
    "auto-BLEU": Measure("auto_bleu", _repetition, ".1f", "points", lower_is_better=True),
}
"""Accuracies, and what is heard in continuations of other prompts than those of the pairs."""


@dataclass(frozen=True)
class Finding:
    r"""
    A change of the training that helps, as the paper says.

    Args:
        name (`str`):
            Name of the change.
        better, worse (`str`):
            Names of the runs with and without it.
        measures (`dict[str, Measure]`, *optional*):
            What is compared.
        needs (`tuple[str, ...]`, *optional*):
            Options that the runs need.
    """

    name: str
    better: str
    worse: str
    measures: Mapping[str, Measure] = field(default_factory=MEASURES.copy)
    needs: tuple[str, ...] = ()


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
        lower_is_better (`bool`, *optional*):
            Whether a low value of the measure is a good one.
    """

    measure: str
    value: float
    interval: tuple[float, float]
    by_seed: list[float]
    lower_is_better: bool = False

    @property
    def verdict(self) -> Literal["holds", "does not hold", "undecided"]:
        """`str`: "does not hold" if the change made the measure worse."""
        low, high = sorted(-end for end in self.interval) if self.lower_is_better else self.interval
        return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


@dataclass(frozen=True)
class Comparison:
    """A finding, and its difference in each measure."""

    finding: Finding
    differences: list[Difference]


def compare(finding: Finding, folders: Mapping[str, Sequence[Path]]) -> Comparison:
    """Compare the runs of a finding, seed by seed and item by item. `folders` has one folder per seed for each run, or
    one for all seeds where the run does not depend on them."""
    differences = []
    for name, measure in finding.measures.items():
        gains = measure.of_runs(folders[finding.better]) - measure.of_runs(folders[finding.worse])
        gains = gains[:, np.isfinite(gains).all(axis=0)]
        value, interval = mean_with_interval(gains.mean(axis=0))
        by_seed = gains.mean(axis=1).tolist()
        differences.append(Difference(name, value, interval, by_seed, measure.lower_is_better))
    return Comparison(finding, differences)


def mean_with_interval(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean of items of shape `(items,)` but for those that are NaN, and its 95 % percentile bootstrap interval."""
    values = values[np.isfinite(values)]
    rng = np.random.default_rng(0)
    means = rng.choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), (float(low), float(high))
