"""Converts between tokenised corpora and the JSON lines of SlamKit (https://github.com/slp-rl/slamkit)."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from ..unit_vocabulary import MAX_UNITS
from .json_lines import parse_json_lines


MAX_DURATION = 2**16 - 1
"""Durations are stored as uint16."""

_KEYS = {"units", "duration", "file_name", "text", "aligned_text"}


def read_slamkit(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Read SlamKit's JSON lines as rows of a tokenised corpus, with `file_name` as their `id`. A line is
    `{"units", "duration", "file_name"}`, possibly with `text` and `aligned_text` (`[[word, start, end]]`, in seconds).
    A `ValueError` names the file and the line that is not of this form."""
    with open(path, "rb") as file:
        yield from parse_json_lines(file, os.fspath(path), from_slamkit)


def write_slamkit(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Write rows of a tokenised corpus, such as a dataset, as SlamKit's JSON lines."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(to_slamkit(row)) + "\n" for row in rows)


def from_slamkit(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row of a tokenised corpus from a record of SlamKit, in the form that [`read_slamkit`] names. Units that
    were not deduplicated are, their durations summed: the frames remain the same."""
    if not isinstance(record, Mapping) or not {"units", "duration", "file_name"} <= record.keys() <= _KEYS:
        got = list(record) if isinstance(record, Mapping) else record
        raise ValueError(
            f"expected 'units', 'duration', 'file_name' and possibly 'text', 'aligned_text', got {got!r}."
        )
    units, durations = _deduplicate(record["units"], record["duration"])
    name, text, words = record["file_name"], record.get("text"), record.get("aligned_text")
    if not isinstance(name, str) or not isinstance(text, str | None) or not isinstance(words, list | None):
        raise ValueError(
            f"'file_name' and 'text' must be text and 'aligned_text' a list, got {name!r}, {text!r} and {words!r}."
        )
    json.dumps([name, text, words], ensure_ascii=False).encode()  # raises where a surrogate stands alone
    return {
        "id": name,
        "units": units,
        "durations": durations,
        "num_frames": sum(durations),
        "text": text,
        "aligned_text": None if words is None else [_as_word(word) for word in words],
    }


def to_slamkit(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make a record of SlamKit from a row of a tokenised corpus: the inverse of [`from_slamkit`]."""
    record = {"units": list(row["units"]), "duration": list(row["durations"]), "file_name": row["id"]}
    if row.get("text") is not None:
        record["text"] = row["text"]
    if row.get("aligned_text") is not None:
        record["aligned_text"] = [[w["word"], w["start_time"], w["end_time"]] for w in row["aligned_text"]]
    return record


def _as_word(word: Any) -> dict[str, Any]:
    match word:
        case [str(text), int() | float() as start, int() | float() as end] if abs(start) < 1e9 and abs(end) < 1e9:
            return {"word": text, "start_time": float(start), "end_time": float(end)}
    raise ValueError(f"expected [word, start, end] in 'aligned_text', got {word!r}.")


def _deduplicate(units: list[int], durations: list[int]) -> tuple[list[int], list[int]]:
    if not isinstance(units, list) or not isinstance(durations, list):
        raise ValueError("'units' and 'duration' must be lists.")
    if len(units) != len(durations):
        raise ValueError(f"{len(units)} units, but {len(durations)} durations.")
    pairs = list(zip(units, durations, strict=True))
    for unit, duration in pairs:
        if type(unit) is not int or type(duration) is not int or not 0 <= unit < MAX_UNITS or duration < 1:
            raise ValueError(f"unit {unit} of {duration} frames.")
    runs = [(unit, sum(frames for _, frames in run)) for unit, run in groupby(pairs, key=lambda pair: pair[0])]
    longest = max((frames for _, frames in runs), default=0)
    if longest > MAX_DURATION:
        raise ValueError(f"a unit of {longest:,} frames: at most {MAX_DURATION:,} can be stored.")
    return [unit for unit, _ in runs], [frames for _, frames in runs]
