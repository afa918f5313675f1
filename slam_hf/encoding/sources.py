"""Inputs of the tokenisation, in parts that are read independently, and the source of listed files."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ..audio_files import open_audio
from .recordings import Recording, Skipped, SkipReason


CHUNK_SECONDS = 300.0
"""What a killed job loses for each process that decodes: seconds of work on a CPU. 60,000 hours are 720,000 chunks."""

Row = list[Recording | Skipped]
"""The recordings of one row of the input, which stay together: one, or the three clips of a preference pair."""


class Part(Protocol):
    """Consecutive rows of the input, read by one process."""

    seconds: float | None
    num_rows: int | None

    def read(self, start: int) -> Iterator[Row]:
        """The rows of the part, from number `start` on."""


@dataclass(frozen=True)
class Source:
    r"""
    What to tokenise.

    Args:
        parts (sequence of [`Part`]):
            The input in order. They depend on the input only, not on the number of processes.
        identity (`dict`):
            What distinguishes this input from others, as plain values for JSON.
        chunk_seconds (`float`, *optional*, defaults to 300.0):
            Seconds of audio in a chunk. A part is tokenised in chunks, and a killed job loses the chunk it was in.
        has_pairs (`bool`, *optional*, defaults to `False`):
            Whether the rows are preference pairs.
    """

    parts: Sequence[Part]
    identity: dict[str, Any]
    chunk_seconds: float = CHUNK_SECONDS
    has_pairs: bool = False


@dataclass(frozen=True)
class FilePart:
    """Recordings in files."""

    recordings: tuple[Recording | Skipped, ...]
    seconds: float

    @property
    def num_rows(self) -> int:
        return len(self.recordings)

    def read(self, start: int) -> Iterator[Row]:
        return ([recording] for recording in self.recordings[start:])


def file_source(recordings: Sequence[Recording | Skipped], chunk_seconds: float = CHUNK_SECONDS) -> Source:
    r"""
    Make a source of listed files.

    Args:
        recordings (sequence of [`Recording`] or [`Skipped`]):
            A listing, such as those of [`list_audio_folder`] and [`read_manifest`]. A recording with the id of an
            earlier one is skipped.
        chunk_seconds (`float`, *optional*, defaults to 300.0):
            A part takes recordings until it has this many seconds of audio, by the headers of the files.

    Returns:
        [`Source`], whose identity is the names, excerpts, texts and sizes of the files.
    """
    recordings = _skip_duplicates(recordings)
    with ThreadPoolExecutor(max_workers=16) as pool:
        probes = list(pool.map(_probe, recordings))
    listing = hashlib.sha256()
    parts, rows, seconds, load = [], [], 0.0, 0.0
    for recording, (size, length) in zip(recordings, probes, strict=True):
        if isinstance(recording, Skipped):
            line = [recording.id, recording.reason]
        else:
            excerpt = (recording.offset, recording.duration)
            line = [recording.id, *excerpt, recording.text, recording.aligned_text, size]
        listing.update(json.dumps(line).encode() + b"\n")
        rows.append(recording)
        seconds += length
        load += load_seconds(length)
        if load >= chunk_seconds:
            parts.append(FilePart(tuple(rows), seconds))
            rows, seconds, load = [], 0.0, 0.0
    if rows:
        parts.append(FilePart(tuple(rows), seconds))
    return Source(parts, {"files": len(recordings), "listing": listing.hexdigest()}, chunk_seconds)


def load_seconds(seconds: float) -> float:
    """How much a recording counts towards a chunk: its length, but at least a second, because each file takes time."""
    return max(seconds, 1.0)


def _probe(recording: Recording | Skipped) -> tuple[int | None, float]:
    """Size in bytes and length in seconds of a recording, as far as they are known without decoding it."""
    size, seconds = None, 0.0
    if isinstance(recording, Recording):
        with suppress(OSError, ValueError):  # what cannot be read is reported when its turn comes
            size = os.stat(recording.audio).st_size
            with open_audio(recording.audio) as file:
                remaining = (file.num_samples or 0) / file.sampling_rate - recording.offset
            seconds = min(max(0.0, remaining), recording.duration or math.inf)
    return size, seconds


def _skip_duplicates(recordings: Sequence[Recording | Skipped]) -> list[Recording | Skipped]:
    taken, kept = set(), []
    for recording in recordings:
        if isinstance(recording, Recording) and recording.id in taken:
            recording = Skipped(recording.id, SkipReason.WRONGLY_NAMED, "an earlier recording has this id")
        taken.add(recording.id)
        kept.append(recording)
    return kept
