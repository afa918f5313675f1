"""Reads a manifest: a table of recordings and excerpts, as JSON lines or CSV."""

import csv
import io
import json
import logging
import os
import posixpath
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import PurePath
from typing import Any, TextIO

from ..audio_files import open_file
from ..remote_files import local_path
from .recordings import Recording, Skipped, SkipReason, check_seconds, is_utf8, read_labels
from .unit_rows import piece_id


logger = logging.getLogger(__name__)

_COLUMNS = frozenset({"path", "offset", "duration", "id", "text", "aligned_text"})

# Other protocols of fsspec read local files, or files inside other files.
_REMOTE_PROTOCOLS = ("http://", "https://", "hf://", "s3://", "gs://", "gcs://", "az://", "abfs://")


def read_manifest(
    path: str | os.PathLike, root: str | os.PathLike | None = None, label_columns: Mapping[str, str] | None = None
) -> list[Recording | Skipped]:
    r"""
    Read a manifest.

    Args:
        path (`str` or `os.PathLike`):
            Path or URL of a file that ends in `.jsonl`, `.json` (JSON lines), `.csv` or `.tsv`. Each row has `path`
            (a path, or a URL of a web server, the Hub or an object store), and may have `offset` and `duration` in
            seconds (an excerpt), `id`, `text` and, in JSON, `aligned_text` (`[{"word", "start_time", "end_time"}]`).
        root (`str` or `os.PathLike`, *optional*):
            Folder, or its URL, that the paths are relative to and may not leave. Defaults to the folder of the
            manifest, where a path may also be any URL.
        label_columns (`dict[str, str]`, *optional*):
            The columns of `speaker` and `style`, where they are read.

    Returns:
        `list`: [`Recording`], in the order of the rows, and [`Skipped`] for rows that are malformed or whose path is
        not below `root`. The id of a row without `id` is its path, with a media fragment for an excerpt. A warning
        names the columns that are not read.

    Raises:
        ValueError: the file cannot be read, has another extension, or is a table without a column `path`.
        AudioDownloadError: a server could not be reached, or refused the file, in several tries.
    """
    name, label_columns, allow_urls = os.fsdecode(path), label_columns or {}, root is None
    if root is None:
        root = posixpath.dirname(name) if local_path(name) is None else os.path.dirname(name)
    local = local_path(root)
    folder = os.fsdecode(root).rstrip("/") if local is None else os.path.realpath(local)
    locate = partial(_locate, folder=folder, allow_urls=allow_urls)
    recordings: list[Recording | Skipped] = []
    unknown: set[str] = set()
    for number, row in _read_rows(name):
        try:
            recordings.append(_as_recording(row, locate, label_columns))
            unknown |= row.keys() - _COLUMNS - {*label_columns.values()}
        except ValueError as error:
            reason = SkipReason.WRONGLY_NAMED if isinstance(error, _WrongNameError) else SkipReason.MALFORMED
            recordings.append(Skipped(f"{os.path.basename(name)}:{number}", reason, str(error)))
    if unknown:
        columns = ", ".join(map(repr, sorted(unknown)))
        logger.warning("'%s': not read: %s. The known columns are %s.", name, columns, ", ".join(sorted(_COLUMNS)))
    return recordings


class _WrongNameError(ValueError):
    """A row whose path or id cannot be used."""


def _locate(path: str, folder: str, allow_urls: bool) -> str:
    """The path or URL of what a row names: a file below a folder or, if URLs are allowed, any remote one."""
    if "://" in path and "::" not in path and path.startswith(_REMOTE_PROTOCOLS):
        if not allow_urls and not path.startswith(f"{folder}/"):
            raise _WrongNameError(f"the URL {reprlib.repr(path)} is not below the root folder")
        return path
    if "://" in path:
        raise _WrongNameError(f"the URL {reprlib.repr(path)} is not of a web server, the Hub or an object store")
    if local_path(folder) is None:
        located = f"{folder}/{path}"
        is_below = not path.startswith("/") and ".." not in path.split("/")
    else:
        try:
            located = os.path.realpath(os.path.join(folder, path))
        except ValueError:
            raise ValueError("'path' holds a NUL character") from None
        is_below = os.path.commonpath([located, folder]) == folder
    if not is_below:
        raise _WrongNameError(f"the path {reprlib.repr(path)} leads out of the root folder")
    return located


def _read_rows(path: str) -> Iterator[tuple[int, Any]]:
    """Rows, each with the number of its last line. In place of a row that cannot be parsed comes a `ValueError`."""
    suffix = PurePath(path).suffix
    if suffix not in (".jsonl", ".json", ".csv", ".tsv"):
        raise ValueError(f"'{path}': expected a manifest that ends in .jsonl, .json, .csv or .tsv.")
    with open_file(path) as file:
        text = io.TextIOWrapper(io.BufferedReader(file), encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield from _read_json(text) if suffix.startswith(".json") else _read_table(text, path)


def _read_json(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: also a number of over 4,300 digits
                yield number, ValueError(f"not JSON: {error}")


def _read_table(file: TextIO, path: str) -> Iterator[tuple[int, Any]]:
    delimiter = "\t" if path.endswith(".tsv") else ","
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


def _as_recording(row: Any, locate: Callable[[str], str], label_columns: Mapping[str, str]) -> Recording:
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
    labels = read_labels(row, label_columns)
    return Recording(id, locate(path), offset, duration, row.get("text"), words, **labels)


def _seconds(row: dict[str, Any], key: str, default: float | None) -> float | None:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, str):  # as in a table
        with suppress(ValueError):
            value = float(value)
    check_seconds(key, value)
    return float(value)
