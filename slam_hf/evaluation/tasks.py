"""The table of tasks: all benchmarks, how their folders are read and how they are scored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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
            The metric's folder in `slam_hf/metrics`.
        inputs (`dict[str, str]`, *optional*):
            The inputs of the metric, and the column of the records that each of them is. In a continuation task,
            every column `name` is also there as `continuation_name`.
        result (`str`, *optional*):
            The result of the metric that tables and cards show. Its interval is the result `{result}_interval`.
        kind (`"pairs"` or `"continuation"`, *optional*):
            Whether the model says which of two utterances is more likely, or continues the correct ones.
        prompt, ending (`"speech"` or `"text"`, *optional*):
            Modalities of stories. Where one is text, the benchmark must be in the cross-modal layout.
        scale (`float`, *optional*):
            What the result is multiplied by to be shown: 100 for what is shown in percent, otherwise 1.
        higher_is_better (`bool`, *optional*):
            Whether a good model has a high score.
    """

    heading: str
    read_pairs: Callable[[str, Collection[str]], list[Pair]] = read_storycloze
    metric: str = "storycloze"
    inputs: Mapping[str, str] = field(default_factory=SCORES.copy)
    result: str = "accuracy"
    kind: Literal["pairs", "continuation"] = "pairs"
    prompt: Modality = "speech"
    ending: Modality = "speech"
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
        were. Results of continuation tasks are of prompts and continuations together, and of the latter alone under
        `continuation`. Those of pairs with prompts are of the published score, and of the [`CONDITIONAL_SCORES`] under
        their names.
        """
        scored = [record for record in records if record["skipped"] is None]
        if not scored:
            reasons = sorted({record["skipped"] for record in records})
            raise ValueError(f"Every one of {len(records)} items had to be skipped: {reasons[:5]}.")
        results = self._compute(scored)
        if self.kind == "continuation":
            results["continuation"] = self._compute(scored, prefix="continuation_")
        for name in CONDITIONAL_SCORES:
            if f"{name}_correct_score" in scored[0]:
                results[name] = self._compute(scored, prefix=f"{name}_")
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
}
"""Tasks by the name that scripts and files give them, in the order of the columns of a results table. `_s2t` stands
for speech to text, and so on; speech to speech is the plain task."""


def pair_tasks() -> list[str]:
    """The names of the tasks of pairs, which a model without a codec can be scored on."""
    return [name for name, task in TASKS.items() if task.kind == "pairs"]
