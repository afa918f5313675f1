"""Speech prompts: the beginnings of recordings, or of the rows of a tokenised corpus."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from datasets import load_dataset_builder

from ...encoding.dataset_source import divide_dataset, identify_split, load_split
from ...encoding.reading import PieceRules, read_pieces
from ...encoding.recordings import Skipped, SkipReason
from ...encoding.segmentation import Segmentation
from ...encoding.source_arguments import SourceArguments
from ...encoding.sources import Part, Row, RowsPart, Source
from ...judging.continuations import cut_units, end_of_prompt


UNIT_COLUMNS = ("id", "units", "durations")
TEXT_COLUMNS = ("text", "aligned_text")


@dataclass(frozen=True)
class Prompt:
    """A prompt: its waveform of shape `(samples,)` at the codec's sampling rate, or else its units, and its length.
    `text` is what is said in it, where the times of words tell."""

    id: str
    seconds: float
    waveform: np.ndarray | None = None
    units: list[int] | None = None
    text: str | None = None


def open_corpus(args: SourceArguments) -> Source:
    r"""
    Make a source of the rows of a tokenised corpus.

    Raises:
        ValueError: it is not a tokenised corpus, or has no such split.
    """
    builder = load_dataset_builder(args.source, args.dataset_config, data_dir=args.data_dir)
    identity = identify_split(builder, args.dataset_split)
    corpus = load_split(builder, args.dataset_split, identity).with_format(None)
    if missing := [name for name in UNIT_COLUMNS if name not in corpus.column_names]:
        raise ValueError(f"'{args.source}' is not a tokenised corpus: it has no column {missing[0]!r}.")
    corpus = corpus.select_columns([*UNIT_COLUMNS, *(name for name in TEXT_COLUMNS if name in corpus.column_names)])
    return Source(divide_dataset(corpus, _as_stored), identity)


def _as_stored(row: dict[str, Any], position: str) -> dict[str, Any]:
    return row


def select_prompts(source: Source, num_prompts: int | None) -> Source:
    """A source with the first `num_prompts` rows only, in parts whose length is not given: each prompt takes about the
    same time. A `ValueError` says that the number of rows is not known."""
    parts, left = [], num_prompts
    for part in source.parts:
        num_rows = part.num_rows
        if left is not None and num_rows is None:
            raise ValueError("`num_prompts` is not for a streamed dataset, whose rows are not counted: leave one out.")
        if left is not None:
            num_rows = min(left, num_rows)
            left -= num_rows
        if num_rows != 0:
            parts.append(RowsPart(partial(_read_first, part, num_rows), num_rows))
    return replace(source, parts=parts, identity={**source.identity, "num_prompts": num_prompts})


def _read_first(part: Part, num_rows: int | None, start: int) -> Iterator[Any]:
    return itertools.islice(part.read(start), None if num_rows is None else num_rows - start)


def read_prompt(row: Row | dict[str, Any], seconds: float, sampling_rate: int, frame_rate: float) -> Prompt | Skipped:
    """Read the beginning of a row: about `seconds`, to the nearest end of a word where the times of words are known.
    What is shorter is taken as a whole."""
    if isinstance(row, dict):
        return _cut_units(row, seconds, frame_rate)
    (recording,) = row
    if isinstance(recording, Skipped):
        return recording
    words = recording.aligned_text or []
    end = end_of_prompt(words, seconds)
    rules = PieceRules(Segmentation(max(1.0, end), cut="fixed"))
    piece = next(read_pieces(recording, rules, sampling_rate, frame_rate))
    if isinstance(piece, Skipped):
        return replace(piece, id=recording.id)
    length = len(piece.waveform) / sampling_rate
    text = piece.text or _text_until(words, end)
    return Prompt(recording.id, length, waveform=piece.waveform, text=text)


def _cut_units(row: dict[str, Any], seconds: float, frame_rate: float) -> Prompt | Skipped:
    units, length = cut_units(row, seconds, frame_rate)
    if not units:
        return Skipped(row["id"], SkipReason.TOO_SHORT, f"no unit ends within {seconds:g} s")
    words = row.get("aligned_text") or []
    text = row.get("text") if len(units) == len(row["units"]) else _text_until(words, end_of_prompt(words, seconds))
    return Prompt(row["id"], length, units=units, text=text)


def _text_until(words: list[dict[str, Any]], end: float) -> str | None:
    said = [word["word"].strip() for word in words if word["end_time"] is not None and word["end_time"] <= end]
    return " ".join(said) or None
