"""Preference pairs of unit strings, from the units of their three clips."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ..encoding.recordings import PAIR_CLIPS, Skipped, SkipReason
from ..unit_vocabulary import MAX_UNITS, UNIT_PATTERN, unit_string


def make_pair(
    id: str, prompt: Mapping[str, Any], chosen: Mapping[str, Any], rejected: Mapping[str, Any]
) -> dict[str, Any]:
    """Make a row of preference pairs from three rows of a tokenised corpus, whose units are not empty.

    The clips are encoded one by one, but a continuation is deduplicated together with its prompt, as speech that was
    recorded in one go is: where it begins with the last unit of the prompt, that unit belongs to the prompt. Equal
    neighbours never occur in pretraining, so the model would take them for an error of the continuation. A
    continuation that only repeats the last unit of its prompt is the empty string.
    """
    row = {"id": id, "prompt": unit_string(prompt["units"]), "prompt_text": prompt["text"]}
    for name, clip in (("chosen", chosen), ("rejected", rejected)):
        repeats_last_unit = clip["units"][0] == prompt["units"][-1]
        row[name] = unit_string(clip["units"][repeats_last_unit:])
        row[f"{name}_text"] = clip["text"]
    return row


def as_unit_string(units: Any, num_units: int = MAX_UNITS) -> str:
    """A unit string, made of one or of a list of units. A `ValueError` says that it is neither, or names a unit that
    is outside the vocabulary of `num_units`."""
    if isinstance(units, str):
        if re.fullmatch(rf"({UNIT_PATTERN.pattern})*", units) is None:
            raise ValueError(f"{units[:40]!r} is not a unit string, such as '<Un3><Un49>'.")
        units = [int(unit) for unit in UNIT_PATTERN.findall(units)]
    if not isinstance(units, list) or not all(type(unit) is int for unit in units):
        raise ValueError(f"expected a unit string or a list of units, got {str(units)[:40]!r}.")
    wrong = next((unit for unit in units if not 0 <= unit < num_units), None)
    if wrong is not None:
        raise ValueError(f"unit {wrong} is outside the vocabulary of units 0 to {num_units - 1}.")
    return unit_string(units)


def pair_rows(
    rows: Sequence[Mapping[str, Any]], skipped: Sequence[Skipped]
) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Make preference pairs from the rows of their clips, which follow each other, with the ids `<pair>/prompt`,
    `/chosen` and `/rejected`. A pair is [`Skipped`] if a clip of it was skipped or cut, or if a continuation has no
    unit of its own."""
    pairs: list[dict[str, Any]] = []
    incomplete = dict.fromkeys(item.id.rpartition("/")[0] for item in skipped)
    lacking = [Skipped(id, SkipReason.INCOMPLETE, "a clip was skipped") for id in incomplete]
    for id, group in groupby(rows, key=lambda row: row["id"].rpartition("/")[0]):
        if id in incomplete:
            continue
        clips = {row["id"].rpartition("/")[2]: row for row in group}
        if clips.keys() != set(PAIR_CLIPS):
            lacking.append(Skipped(id, SkipReason.INCOMPLETE, "a clip is longer than a piece"))
            continue
        pair = make_pair(id, **clips)
        if pair["chosen"] and pair["rejected"]:
            pairs.append(pair)
        else:
            lacking.append(Skipped(id, SkipReason.INCOMPLETE, "a continuation adds no unit to the prompt"))
    return pairs, lacking
