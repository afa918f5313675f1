"""Converts between tokenised corpora and the JSON lines of SlamKit (https://github.com/slp-rl/slamkit)."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..encoding.unit_rows import MAX_UNITS


_KEYS = {"units", "duration", "file_name", "text", "aligned_text"}


def read_slamkit(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    r"""
    Read SlamKit's JSON lines as rows of a tokenised corpus.

    Args:
        path (`str` or `os.PathLike`):
            A file of lines `{"units", "duration", "file_name"}`, possibly with `text` and `aligned_text`
            (`[[word, start, end]]`, in seconds).

    Yields:
        `dict`: a row per line, in order, with `file_name` as its `id`.

    Raises:
        ValueError: a line is not of this form.
    """
    with open(path, encoding="utf-8") as file:
        yield from parse_slamkit(file, os.fspath(path))


def parse_slamkit(lines: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    """[`read_slamkit`] of lines that have been read, from a file called `name`."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield from_slamkit(json.loads(line))
            except ValueError as error:
                raise ValueError(f"'{name}', line {number}: {error}") from error


def write_slamkit(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike) -> None:
    r"""
    Write rows of a tokenised corpus as SlamKit's JSON lines.

    Args:
        rows (iterable of `Mapping`):
            The rows; a dataset is one.
        path (`str` or `os.PathLike`):
            The file to write.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(to_slamkit(row)) + "\n" for row in rows)


def from_slamkit(record: Mapping[str, Any]) -> dict[str, Any]:
    r"""
    Make a row of a tokenised corpus from a record of SlamKit.

    Args:
        record (`Mapping`):
            `{"units", "duration", "file_name"}`, possibly with `text` and `aligned_text`. Units that were not
            deduplicated are, their durations summed: the frames remain the same.

    Returns:
        `dict`: the row.

    Raises:
        ValueError: the record is not of this form.
    """
    if not isinstance(record, Mapping) or not {"units", "duration", "file_name"} <= record.keys() <= _KEYS:
        raise ValueError(
            f"expected 'units', 'duration', 'file_name' and possibly 'text', 'aligned_text', got {list(record)}."
        )
    units, durations = _deduplicate(record["units"], record["duration"])
    words = record.get("aligned_text")
    return {
        "id": record["file_name"],
        "units": units,
        "durations": durations,
        "num_frames": sum(durations),
        "text": record.get("text"),
        "aligned_text": words and [dict(zip(("word", "start_time", "end_time"), word, strict=True)) for word in words],
    }


def to_slamkit(row: Mapping[str, Any]) -> dict[str, Any]:
    r"""
    Make a record of SlamKit from a row of a tokenised corpus: the inverse of [`from_slamkit`].

    Args:
        row (`Mapping`):
            The row.

    Returns:
        `dict`: `{"units", "duration", "file_name"}`, with `text` and `aligned_text` where the row has them.
    """
    record = {"units": list(row["units"]), "duration": list(row["durations"]), "file_name": row["id"]}
    if row.get("text") is not None:
        record["text"] = row["text"]
    if row.get("aligned_text") is not None:
        record["aligned_text"] = [[w["word"], w["start_time"], w["end_time"]] for w in row["aligned_text"]]
    return record


def _deduplicate(units: list[int], durations: list[int]) -> tuple[list[int], list[int]]:
    if len(units) != len(durations):
        raise ValueError(f"{len(units)} units, but {len(durations)} durations.")
    merged_units: list[int] = []
    merged_durations: list[int] = []
    for unit, duration in zip(units, durations, strict=True):
        if not 0 <= unit < MAX_UNITS or duration < 1:
            raise ValueError(f"unit {unit} of {duration} frames.")
        if merged_units and unit == merged_units[-1]:
            merged_durations[-1] += duration
        else:
            merged_units.append(unit)
            merged_durations.append(duration)
    return merged_units, merged_durations
