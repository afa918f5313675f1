"""Reads a manifest: a table of recordings and excerpts, as JSON lines or CSV."""

import csv
import json
import logging
import os
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from .recordings import Recording, Skipped, SkipReason, check_seconds, is_utf8
from .unit_rows import piece_id


logger = logging.getLogger(__name__)

_COLUMNS = frozenset({"path", "offset", "duration", "id", "text", "aligned_text"})


def read_manifest(path: str | os.PathLike, root: str | os.PathLike | None = None) -> list[Recording | Skipped]:
    r"""
    Read a manifest.

    Args:
        path (`str` or `os.PathLike`):
            A file that ends in `.jsonl`, `.json` (JSON lines), `.csv` or `.tsv`. Each row has `path`, and may have
            `offset` and `duration` in seconds (an excerpt), `id`, `text` and, in JSON, `aligned_text`
            (`[{"word", "start_time", "end_time"}]`).
        root (`str` or `os.PathLike`, *optional*):
            Folder that the paths are relative to and may not leave. Defaults to the folder of the manifest.

    Returns:
        `list`: [`Recording`], in the order of the rows, and [`Skipped`] for rows that are malformed or whose path is
        not below `root`. The id of a row without `id` is its path, with a media fragment for an excerpt. A warning
        names the columns that are not read.

    Raises:
        ValueError: the file has another extension, or a table has no column `path`.
    """
    path = Path(path)
    root = os.path.realpath(path.parent if root is None else root)
    recordings: list[Recording | Skipped] = []
    unknown: set[str] = set()
    for number, row in _read_rows(path):
        try:
            recordings.append(_as_recording(row, root))
            unknown |= row.keys() - _COLUMNS
        except ValueError as error:
            reason = SkipReason.WRONGLY_NAMED if isinstance(error, _WrongNameError) else SkipReason.MALFORMED
            recordings.append(Skipped(f"{path.name}:{number}", reason, str(error)))
    if unknown:
        columns = ", ".join(map(repr, sorted(unknown)))
        logger.warning("'%s': not read: %s. The known columns are %s.", path, columns, ", ".join(sorted(_COLUMNS)))
    return recordings


class _WrongNameError(ValueError):
    """A row whose path or id cannot be used."""


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows, each with the number of its last line. A row that cannot be parsed is a `ValueError` that says why."""
    if path.suffix not in (".jsonl", ".json", ".csv", ".tsv"):
        raise ValueError(f"'{path}': expected a manifest that ends in .jsonl, .json, .csv or .tsv.")
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _read_json(file) if path.suffix.startswith(".json") else _read_table(file, path)


def _read_json(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: also a number of over 4,300 digits
                yield number, ValueError(f"not JSON: {error}")


def _read_table(file: TextIO, path: Path) -> Iterator[tuple[int, Any]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        columns = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise ValueError(f"'{path}': the first line is not a header ({error}).") from error
    if "path" not in columns or len(set(columns)) < len(columns):
        raise ValueError(f"'{path}': expected different columns and among them 'path', got {columns}.")
    while True:
        first = rows.line_num + 1
        try:
            values = [value.strip() for value in next(rows)]
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num, ValueError(f"lines {first} to {rows.line_num} are not a row: {error}")
            continue
        if len(values) == len(columns):
            yield rows.line_num, {key: value for key, value in zip(columns, values, strict=True) if value}
        elif values:
            yield rows.line_num, ValueError(f"{len(values)} fields for {len(columns)} columns")


def _as_recording(row: Any, root: str) -> Recording:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise ValueError("no 'path'")
    path, id, words = row["path"], row.get("id"), row.get("aligned_text")
    offset, duration = _seconds(row, "offset", 0.0), _seconds(row, "duration", None)
    if id is None:
        id = piece_id(path, offset or None, None if duration is None else offset + duration)
    elif isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not is_utf8(path) or (isinstance(id, str) and not is_utf8(id)):
        raise _WrongNameError("the name is not UTF-8")
    if isinstance(words, list) and any(isinstance(word, dict) and None in word.values() for word in words):
        raise ValueError("'aligned_text' has a word without a time")
    return Recording(id, _resolve(path, root), offset, duration, row.get("text"), words)


def _seconds(row: dict[str, Any], key: str, default: float | None) -> float | None:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, str):  # as in a table
        with suppress(ValueError):
            value = float(value)
    check_seconds(key, value)
    return float(value)


def _resolve(path: str, root: str) -> str:
    try:
        resolved = os.path.realpath(os.path.join(root, path))
    except ValueError:
        raise ValueError("'path' holds a NUL character") from None
    if os.path.commonpath([resolved, root]) != root:
        raise _WrongNameError(f"the path {reprlib.repr(path)} leads out of the root folder")
    return resolved
