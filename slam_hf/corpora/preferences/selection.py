"""Which continuations of a prompt are chosen and rejected."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...encoding.recordings import SkipReason


Continuation = Mapping[str, Any]


@dataclass(frozen=True)
class Thresholds:
    r"""
    What makes a continuation good or bad (the idea is that of arXiv 2411.01834).

    Args:
        min_score (`float`, *optional*):
            Score of the judge that a chosen continuation has at least. Defaults to no limit.
        max_score (`float`, *optional*):
            Score that a rejected one has at most, unless it repeats itself. Defaults to no limit.
        min_margin (`float`, *optional*, defaults to 0.0):
            The chosen score is higher than the rejected one by more than this; otherwise both are equally good.
        max_auto_bleu (`float`, *optional*, defaults to 0.2):
            A text with a higher auto-BLEU₂ repeats itself. It is never chosen, and rejected before others, whatever
            its score: repetition is likely, and judges of likelihood prefer it.

    Raises:
        ValueError: a threshold is not a number, or the margin or auto-BLEU is negative.
    """

    min_score: float | None = None
    max_score: float | None = None
    min_margin: float = 0.0
    max_auto_bleu: float = 0.2

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None and math.isnan(value):
                raise ValueError(f"`{name}` must be a number, got {value}.")
        for name in ("min_margin", "max_auto_bleu"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")


def choose_pair(
    continuations: Sequence[Continuation], thresholds: Thresholds
) -> tuple[Continuation, Continuation] | SkipReason:
    """The best good continuation and the worst bad one, or why there is no such pair. A continuation without a score
    or without units is neither."""
    judged = [item for item in continuations if item["score"] is not None and item["units"]]
    if len(judged) < 2:
        return SkipReason.NOT_JUDGED

    def repeats(item: Continuation) -> bool:
        return item["auto_bleu"] > thresholds.max_auto_bleu

    low, high = thresholds.min_score, thresholds.max_score
    good = [item for item in judged if not repeats(item) and (low is None or item["score"] >= low)]
    if not good:
        return SkipReason.NONE_GOOD
    chosen = max(good, key=lambda item: (item["score"], -item["auto_bleu"]))
    bad = [item for item in judged if item is not chosen]
    bad = [item for item in bad if repeats(item) or high is None or item["score"] <= high]
    if not bad:
        return SkipReason.NONE_BAD
    rejected = min(bad, key=lambda item: (not repeats(item), item["score"], -item["auto_bleu"]))
    if not repeats(rejected) and chosen["score"] - rejected["score"] <= thresholds.min_margin:
        return SkipReason.TIE
    return chosen, rejected
