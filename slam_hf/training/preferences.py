"""Preference pairs, as TRL's `DPOTrainer` takes them."""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from trl import ScriptArguments

from ..corpora.preference_pairs import as_unit_string
from ..quickstart import resolve_path


PAIR_COLUMNS = ["prompt", "chosen", "rejected"]


@dataclass
class AlignArguments(ScriptArguments):
    r"""
    Which preference pairs to align with: what every script of TRL takes (`dataset_name`, a Hub id, a folder or
    `"quickstart:preferences"`; `dataset_config`, `dataset_train_split`, `dataset_test_split`), and

    Args:
        max_auto_bleu (`float`, *optional*):
            Keep pairs of which prompt and chosen text together have an auto-BLEU₂ below this. Speech that repeats
            itself is easy to continue likely, and preference training would make it more so. Defaults to no filter.
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Whether to delete what an earlier run has left in the output folder.
    """

    max_auto_bleu: float | None = field(
        default=None, metadata={"help": "Keep pairs of which prompt and chosen text have an auto-BLEU-2 below this."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete what an earlier run has left in the output folder."}
    )

    def __post_init__(self):
        if self.dataset_name is None:
            raise ValueError(
                "Name the preference pairs: `dataset_name`, a Hub id, a folder or quickstart:preferences."
            )
        self.dataset_name = resolve_path(self.dataset_name)


def prepare_pairs(pairs: Dataset, max_auto_bleu: float | None = None) -> Dataset:
    r"""
    Pairs of unit strings, without those whose text repeats itself.

    Args:
        pairs (`Dataset`):
            Columns `prompt`, `chosen` and `rejected`, unit strings (`<Un3><Un49>...`) or lists of units, and for the
            filter `prompt_text` and `chosen_text`.
        max_auto_bleu (`float`, *optional*):
            Keep pairs of which prompt and chosen text together have an auto-BLEU₂ below this; arXiv 2502.15814 takes
            0.3. Defaults to no filter.

    Returns:
        `Dataset`: the columns `prompt`, `chosen` and `rejected`, unit strings.

    Raises:
        ValueError: a column is missing, or a text that the filter needs.
        ImportError: the filter's NLTK is missing.
    """
    wanted = PAIR_COLUMNS if max_auto_bleu is None else [*PAIR_COLUMNS, "prompt_text", "chosen_text"]
    missing = [name for name in wanted if name not in pairs.column_names]
    if missing:
        raise ValueError(
            f"Preference pairs lack the columns {', '.join(missing)}: they need {', '.join(PAIR_COLUMNS)}, and the "
            "texts for the filter `max_auto_bleu`."
        )
    if max_auto_bleu is not None:
        pairs = _without_repetition(pairs, max_auto_bleu)
    return pairs.select_columns(PAIR_COLUMNS).map(_as_strings, with_indices=True)


def _without_repetition(pairs: Dataset, max_auto_bleu: float) -> Dataset:
    try:
        from ..metrics.auto_bleu.auto_bleu import auto_bleu
    except ImportError as error:
        raise ImportError('The filter `max_auto_bleu` needs NLTK: pip install "slam-hf[metrics]".') from error

    def repeats_little(prompt: str | None, chosen: str | None) -> bool:
        if prompt is None or chosen is None:
            raise ValueError("A pair has no text, which the filter `max_auto_bleu` reads: leave the filter out.")
        return auto_bleu(f"{prompt} {chosen}", n=2) < max_auto_bleu

    return pairs.filter(repeats_little, input_columns=["prompt_text", "chosen_text"])


def _as_strings(pair: dict[str, Any], row: int) -> dict[str, str]:
    try:
        return {name: as_unit_string(units) for name, units in pair.items()}
    except ValueError as error:
        raise ValueError(f"Preference pair {row}: {error}") from error
