"""Reads a manifest: a table of recordings and excerpts, as JSON lines or CSV."""

import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .recordings import Recording, Skipped, SkipReason
from .unit_rows import piece_id


def read_manifest(path: str | os.PathLike, root: str | os.PathLike | None = None) -> list[Recording | Skipped]:
    r"""
    Read a manifest.

    Args:
        path (`str` or `os.PathLike`):
            A file that ends in `.jsonl`, `.json` (JSON lines), `.csv` or `.tsv`. Each row has `path`, and may have
            `offset` and `duration` in seconds (an excerpt), `id`, `text` and, in JSON, `aligned_text`
            (`[{"word", "start_time", "end_time"}]`).
        root (`str` or `os.PathLike`, *optional*):
            Folder that the rows' paths are relative to, and that they may not leave. Defaults to the manifest's.

    Returns:
        `list`: [`Recording`], in the order of the rows, and [`Skipped`] for rows that name no recording below `root`.
        Rows without `id` have their path as id, with a media fragment for an excerpt.

    Raises:
        ValueError: the file's extension is none of these, or a CSV file has no column `path`.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    recordings: list[Recording | Skipped] = []
    for number, row in _read_rows(path):
        try:
            recordings.append(_as_recording(row, root))
        except _BadRowError as error:
            recordings.append(Skipped(f"{path.name}:{number}", *error.args))
    return recordings


class _BadRowError(Exception):
    """Reason and detail of a row that is left out."""


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix in (".jsonl", ".json"):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse_json(line)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            if "path" not in (reader.fieldnames or []):
                raise ValueError(f"'{path}': expected a column 'path', got {reader.fieldnames}.")
            for row in reader:
                yield reader.line_num, {key: value for key, value in row.items() if key and value}
    else:
        raise ValueError(f"'{path}': expected a manifest that ends in .jsonl, .json, .csv or .tsv.")


def _parse_json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return error


def _as_recording(row: Any, root: Path) -> Recording:
    if isinstance(row, json.JSONDecodeError):
        raise _BadRowError(SkipReason.MALFORMED, f"not JSON: {row}")
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise _BadRowError(SkipReason.MALFORMED, "no 'path'")
    offset = _seconds(row, "offset") or 0.0
    duration = _seconds(row, "duration")
    if duration == 0.0:
        raise _BadRowError(SkipReason.MALFORMED, "'duration' is 0")
    end = None if duration is None else offset + duration
    id = str(row["id"]) if row.get("id") is not None else piece_id(row["path"], offset or None, end)
    for text in (row["path"], id):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise _BadRowError(SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    text, words = row.get("text"), row.get("aligned_text")
    if not isinstance(text, str | None):
        raise _BadRowError(SkipReason.MALFORMED, f"'text' is {text!r}")
    if words is not None and not _are_timed_words(words):
        raise _BadRowError(SkipReason.MALFORMED, "'aligned_text' is no list of words with 'start_time' and 'end_time'")
    return Recording(
        id=id,
        audio=_resolve(row["path"], root),
        offset=offset,
        duration=duration,
        text=text,
        aligned_text=words,
    )


def _are_timed_words(words: Any) -> bool:
    return isinstance(words, list) and all(
        isinstance(word, dict)
        and isinstance(word.get("word"), str)
        and all(isinstance(word.get(key), float | int) for key in ("start_time", "end_time"))
        for word in words
    )


def _seconds(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise _BadRowError(SkipReason.MALFORMED, f"{key!r} is {value!r}, no number of seconds")
    return seconds


def _resolve(path: str, root: Path) -> str:
    resolved, real_root = os.path.realpath(root / path), os.path.realpath(root)
    if os.path.commonpath([resolved, real_root]) != real_root:
        raise _BadRowError(SkipReason.WRONGLY_NAMED, f"the path {path!r} leads out of the root folder")
    return resolved
