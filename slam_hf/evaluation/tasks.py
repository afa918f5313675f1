"""The table of tasks: all benchmarks, how their folders are read and how they are scored."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .benchmarks import Pair, read_salmon, read_sblimp, read_storycloze, read_swuggy


if TYPE_CHECKING:
    import evaluate


@dataclass(frozen=True)
class Task:
    r"""
    A benchmark.

    Args:
        heading (`str`):
            Its name in tables and cards.
        read_pairs (`Callable[[str, Collection[str]], list[Pair]]`):
            Reads the pairs of a folder in the layout of the benchmark's release, given the names of its utterances.
        metric (`str`):
            The metric's folder in `slam_hf/metrics`.
        inputs (`dict[str, str]`):
            The inputs of the metric, and the column of the records that each of them is. In a continuation task,
            every column `name` is also there as `continuation_name`.
        result (`str`, *optional*, defaults to `"accuracy"`):
            The result of the metric that tables and cards show. Its interval is the result `{result}_interval`.
        kind (`"pairs"` or `"continuation"`, *optional*, defaults to `"pairs"`):
            Whether the model says which of two utterances is more likely, or continues the correct ones.
        scale (`float`, *optional*, defaults to 100):
            What the result is multiplied by to be shown: 100 for what is shown in percent, otherwise 1.
        higher_is_better (`bool`, *optional*, defaults to `True`):
            Whether a good model has a high score.
    """

    heading: str
    read_pairs: Callable[[str, Collection[str]], list[Pair]]
    metric: str
    inputs: Mapping[str, str]
    result: str = "accuracy"
    kind: Literal["pairs", "continuation"] = "pairs"
    scale: float = 100
    higher_is_better: bool = True

    @property
    def column(self) -> str:
        """`str`: The heading with an arrow that says which scores are better."""
        return f"{self.heading} {'↑' if self.higher_is_better else '↓'}"

    def compute(self, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        r"""
        Compute the metric over the records of an evaluation, such as those of the Parquet file that it wrote.

        Args:
            records (iterable of `Mapping`):
                One record per item. Items that were skipped do not count.

        Returns:
            `dict`: the results of the metric. In a continuation task, they are of prompts and continuations together,
            and those of the continuations alone are under `continuation`.

        Raises:
            ImportError: the metric needs a package that is not installed.
            ValueError: every item was skipped.
        """
        scored = keep_scored(records)
        results = self._compute(scored)
        if self.kind == "continuation":
            results["continuation"] = self._compute(scored, prefix="continuation_")
        return results

    def import_metric(self) -> "type[evaluate.Metric]":
        """Import the metric's class; `ImportError` if it needs a package that is not installed."""
        # Imported here, so that the table is cheap to read.
        from evaluate.loading import import_main_class

        try:
            return import_main_class(f"slam_hf.metrics.{self.metric}.{self.metric}")
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            raise ImportError(f'{self.heading} needs {package}: pip install "slam-hf[metrics]".') from error

    def _compute(self, records: Sequence[Mapping[str, Any]], prefix: str = "") -> dict[str, Any]:
        columns = {name: [record[prefix + column] for record in records] for name, column in self.inputs.items()}
        return self.import_metric()(keep_in_memory=True).compute(**columns)


def keep_scored(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of items that were not skipped; `ValueError` where there are none."""
    records = list(records)
    scored = [record for record in records if record["skipped"] is None]
    if not scored:
        reasons = sorted({record["skipped"] for record in records})
        raise ValueError(f"Every one of {len(records)} items had to be skipped: {reasons[:5]}.")
    return scored


SCORES = {"correct_scores": "correct_score", "incorrect_scores": "incorrect_score"}
TRANSCRIPTS = {"predictions": "transcript"}

TASKS = {
    "sblimp": Task("sBLIMP", read_sblimp, "sblimp", SCORES | {"types": "type", "subtypes": "subtype", "ids": "id"}),
    "sstorycloze": Task("sStoryCloze", read_storycloze, "storycloze", SCORES),
    "tstorycloze": Task("tStoryCloze", read_storycloze, "storycloze", SCORES),
    "swuggy": Task(
        "sWUGGY in vocabulary",
        read_swuggy,
        "swuggy",
        SCORES | {"ids": "id", "frequencies": "frequency"},
        result="in_vocabulary_accuracy",
    ),
    "salmon": Task("SALMon", read_salmon, "salmon", SCORES | {"parts": "part"}),
    "genppl": Task(
        "GenPPL",
        read_storycloze,
        "genppl",
        TRANSCRIPTS | {"losses": "negative_log_likelihood"},
        result="genppl",
        kind="continuation",
        scale=1,
        higher_is_better=False,
    ),
    "auto_bleu": Task(
        "Auto-BLEU",
        read_storycloze,
        "auto_bleu",
        TRANSCRIPTS,
        result="auto_bleu",
        kind="continuation",
        higher_is_better=False,
    ),
}
"""Tasks by the name that scripts and files give them, in the order of the columns of a results table."""


def pair_tasks() -> list[str]:
    """The names of the tasks of pairs, which a model without a codec can be scored on."""
    return [name for name, task in TASKS.items() if task.kind == "pairs"]
