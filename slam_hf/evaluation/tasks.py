"""The table of tasks: all benchmarks, how their folders are read and how they are scored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .benchmarks import Pair, read_salmon, read_sblimp, read_storycloze, read_swuggy


if TYPE_CHECKING:
    import evaluate


SCORES = {"correct_scores": "correct_score", "incorrect_scores": "incorrect_score"}

CONDITIONAL_SCORES = {
    "conditional": "log p(ending given prompt)",
    "pmi": "log p(ending given prompt) - log p(ending)",
}
"""Scores beside the published one, which is that of prompt and ending together, where a benchmark has prompts. `pmi`,
the pointwise mutual information of both, ranks speech better than the published score (arXiv 2601.06329). Each is the
prefix of its columns in the records, and the key of its results."""

Modality = Literal["speech", "text"]


@dataclass(frozen=True)
class Task:
    r"""
    A benchmark. By default, it is pairs in the layout of StoryCloze, scored by accuracy in percent.

    Args:
        heading (`str`):
            Its name in tables and cards.
        read_pairs (`Callable[[str, Collection[str]], list[Pair]]`, *optional*):
            Reads the pairs of a folder in the layout of the benchmark's release, given the names of its utterances.
        metric (`str`, *optional*):
            The metric's folder in `slam_hf/metrics`. `None` stands for the mean of each input, where it is not `None`.
        inputs (`dict[str, str]`, *optional*):
            The inputs of the metric, and the column of the records that each of them is. In a continuation task,
            the column `name` may also be there as `continuation_name`.
        result (`str`, *optional*):
            The result of the metric that tables and cards show. Its interval is the result `{result}_interval`.
        kind (`"pairs"` or `"continuation"`, *optional*):
            Whether the model says which of two utterances is more likely, or continues the correct ones.
        prompt, ending (`"speech"` or `"text"`, *optional*):
            Modalities of stories. Where one is text, the benchmark must be in the cross-modal layout.
        end_at_pauses (`bool`, *optional*):
            Whether the prompts of recordings without word times end at pauses, in place of the exact time.
        scale (`float`, *optional*):
            What the result is multiplied by to be shown: 100 for what is shown in percent, otherwise 1.
        higher_is_better (`bool`, *optional*):
            Whether a good model has a high score.
    """

    heading: str
    read_pairs: Callable[[str, Collection[str]], list[Pair]] = read_storycloze
    metric: str | None = "storycloze"
    inputs: Mapping[str, str] = field(default_factory=SCORES.copy)
    result: str = "accuracy"
    kind: Literal["pairs", "continuation"] = "pairs"
    prompt: Modality = "speech"
    ending: Modality = "speech"
    end_at_pauses: bool = False
    scale: float = 100
    higher_is_better: bool = True

    @property
    def column(self) -> str:
        """`str`: The heading with an arrow that says which scores are better."""
        return f"{self.heading} {'↑' if self.higher_is_better else '↓'}"

    @property
    def is_speech(self) -> bool:
        """`bool`: Whether the utterances are speech from beginning to end."""
        return self.prompt == self.ending == "speech"

    def compute(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Compute the metric over the records of an evaluation, but for those of skipped items; `ValueError` where all
        were. Where continuation tasks judge prompts and continuations together, the results of the latter alone are
        under `continuation`. Those of pairs with prompts are of the published score, and of the
        [`CONDITIONAL_SCORES`] under their names.
        """
        scored = [record for record in records if record["skipped"] is None]
        if not scored:
            reasons = sorted({record["skipped"] for record in records})
            raise ValueError(f"Every one of {len(records)} items had to be skipped: {reasons[:5]}.")
        results = self._compute(scored)
        if self.kind == "continuation" and f"continuation_{next(iter(self.inputs.values()))}" in scored[0]:
            results["continuation"] = self._compute(scored, prefix="continuation_")
        for name in CONDITIONAL_SCORES:
            if f"{name}_correct_score" in scored[0]:
                results[name] = self._compute(scored, prefix=f"{name}_")
        return results

    def import_metric(self) -> "type[evaluate.Metric] | None":
        """Import the metric's class, if there is one; `ImportError` if it needs a package that is not installed."""
        if self.metric is None:
            return None
        # Imported here, so that the table is cheap to read.
        from evaluate.loading import import_main_class

        try:
            return import_main_class(f"slam_hf.metrics.{self.metric}.{self.metric}")
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            raise ImportError(f'{self.heading} needs {package}: pip install "slam-hf[metrics]".') from error

    def _compute(self, records: Sequence[Mapping[str, Any]], prefix: str = "") -> dict[str, Any]:
        columns = {name: [record[prefix + column] for record in records] for name, column in self.inputs.items()}
        metric = self.import_metric()
        return _means(columns) if metric is None else metric(keep_in_memory=True).compute(**columns)


def _means(columns: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """The mean of each column with its 95 % interval over items, and the number of items with a value in each. `None`
    and NaN do not count."""
    from ..metrics.storycloze.storycloze import confidence_interval

    results: dict[str, Any] = {}
    table = np.array([*columns.values()], dtype=np.float64)
    for name, row in zip(columns, table, strict=True):
        values = row[np.isfinite(row)]
        results[name] = float(values.mean()) if len(values) else np.nan
        interval = confidence_interval(lambda groups: groups[0].mean(), [values]) if len(values) else [np.nan] * 2
        results[f"{name}_interval"] = interval
    return results | {"num_rated": int(np.isfinite(table).all(axis=0).sum())}


TASKS = {
    "sblimp": Task("sBLIMP", read_sblimp, "sblimp", SCORES | {"types": "type", "subtypes": "subtype", "ids": "id"}),
    "sstorycloze": Task("sStoryCloze"),
    "tstorycloze": Task("tStoryCloze"),
    "sstorycloze_s2t": Task("sStoryCloze S→T", ending="text"),
    "sstorycloze_t2s": Task("sStoryCloze T→S", prompt="text"),
    "sstorycloze_t2t": Task("sStoryCloze T→T", prompt="text", ending="text"),
    "tstorycloze_s2t": Task("tStoryCloze S→T", ending="text"),
    "tstorycloze_t2s": Task("tStoryCloze T→S", prompt="text"),
    "tstorycloze_t2t": Task("tStoryCloze T→T", prompt="text", ending="text"),
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
        metric="genppl",
        inputs={"predictions": "transcript", "losses": "negative_log_likelihood"},
        result="genppl",
        kind="continuation",
        scale=1,
        higher_is_better=False,
    ),
    "auto_bleu": Task(
        "Auto-BLEU",
        metric="auto_bleu",
        inputs={"predictions": "transcript"},
        result="auto_bleu",
        kind="continuation",
        higher_is_better=False,
    ),
    "llm_judge": Task(
        "LLM judge",
        metric=None,
        inputs={"score": "judge_score", "unparsed": "judge_unparsed", "unscored": "judge_unscored"},
        result="score",
        kind="continuation",
        end_at_pauses=True,
        scale=1,
    ),
    "speech_quality": Task(
        "DNSMOS",
        metric=None,
        inputs={name: name for name in ("overall", "signal", "background", "p808")},
        result="overall",
        kind="continuation",
        scale=1,
    ),
    "speaker_similarity": Task(
        "speaker similarity",
        metric=None,
        inputs={"similarity": "similarity"},
        result="similarity",
        kind="continuation",
        scale=1,
    ),
}
"""Tasks by the name that scripts and files give them, in the order of the columns of a results table. `_s2t` stands
for speech to text, and so on; speech to speech is the plain task."""


def pair_tasks() -> list[str]:
    """The names of the tasks of pairs, which a model without a codec can be scored on."""
    return [name for name, task in TASKS.items() if task.kind == "pairs"]
