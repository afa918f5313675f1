"""Inputs of the tokenisation, in parts that are read independently, and the source of listed files."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from ..audio_files import AudioProbe, ByteRange, probe_audio
from ..remote_files import AudioDownloadError, look_at_files
from .recordings import Recording, Skipped, SkipReason
from .unit_rows import UNIT_ROW_SCHEMA


CHUNK_SECONDS = 300.0
"""What a killed job loses for each process that decodes: seconds of work on a CPU. 60,000 hours are 720,000 chunks."""

ROWS_AT_ONCE = 10_000
"""Recordings that become rows of a table together. Each takes much memory meanwhile."""

RECORDING_COLUMNS = ("id", "offset", "duration", "text", "aligned_text", "speaker", "style")

Item = TypeVar("Item")

Row = list[Recording | Skipped]
"""The recordings of one row of the input, which stay together: one, or the three clips of a preference pair."""


class Part(Protocol):
    """Consecutive rows of the input, read by one process."""

    seconds: float | None
    num_rows: int | None

    def read(self, start: int) -> Iterator[Row]:
        """The rows of the part, from number `start` on."""


@dataclass(frozen=True)
class RowsPart:
    """Rows that a function reads, of a length that is not known."""

    read: Callable[[int], Iterator[Any]]
    num_rows: int | None = None
    seconds: None = None


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


LISTING_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "path": pa.binary(),  # names of files need not be UTF-8
        "start": pa.int64(),
        "size": pa.int64(),
        "offset": pa.float64(),
        "duration": pa.float64(),
        "text": pa.string(),
        "aligned_text": UNIT_ROW_SCHEMA.field("aligned_text").type,
        "speaker": pa.string(),
        "style": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)
"""A recording in a file or in a part of one, or what was skipped."""


@dataclass(frozen=True)
class FilePart:
    """Rows of a listing as recordings, which are made when they are read: a hundred times as many rows fit in memory.
    All parts share the table, which goes to another process once. Each slice of it would take all of it along."""

    listing: pa.Table
    first: int
    num_rows: int
    seconds: float

    def read(self, start: int) -> Iterator[Row]:
        rows = self.listing.slice(self.first + start, max(0, self.num_rows - start))
        return ([_from_row(row)] for row in rows.to_pylist())


def divide_listing(listing: pa.Table, sizes: Sequence[tuple[int, float]]) -> list[FilePart]:
    """The parts of a listing, by the number of rows and the seconds of each."""
    firsts = accumulate((num_rows for num_rows, _ in sizes), initial=0)
    return [FilePart(listing, first, *size) for first, size in zip(firsts, sizes, strict=False)]


def file_source(recordings: Sequence[Recording | Skipped], chunk_seconds: float = CHUNK_SECONDS) -> Source:
    r"""
    Make a source of listed files.

    Args:
        recordings (sequence of [`Recording`] or [`Skipped`]):
            A listing, such as those of [`list_audio_folder`] and [`read_manifest`], of audio in files or in parts of
            files. A recording with the id of an earlier one is skipped.
        chunk_seconds (`float`, *optional*, defaults to 300.0):
            A part takes recordings until it has this many seconds of audio, by the headers of the files.

    Returns:
        [`Source`], whose identity is the names, excerpts and texts of the recordings, and the sizes, lengths and heads
        of the files.

    Raises:
        AudioDownloadError: a server could not be reached, or refused a file, in several tries.
    """
    recordings = _skip_duplicates(recordings)
    # Several excerpts of a file need one probe.
    files = list(dict.fromkeys(item.audio for item in recordings if isinstance(item, Recording)))
    probes = dict(zip(files, look_at_files(_probe, files, "Probing files"), strict=True))
    listing = hashlib.sha256()
    lengths = []
    for recording in recordings:
        length = 0.0
        if isinstance(recording, Skipped):
            line = [recording.id, recording.reason]
        else:
            probe = probes[recording.audio]
            excerpt = (recording.offset, recording.duration)
            line = [recording.id, *excerpt, recording.text, recording.aligned_text, *probe]
            line += [label for label in (recording.speaker, recording.style) if label is not None]
            length = min(max(0.0, probe.seconds - recording.offset), recording.duration or math.inf)
        listing.update(json.dumps(line).encode() + b"\n")
        lengths.append(length)
    sizes = [(len(part), sum(part)) for part, _ in in_chunks(lengths, chunk_seconds, load_seconds) if part]
    tables = [
        pa.Table.from_pylist([_to_row(item) for item in recordings[first : first + ROWS_AT_ONCE]], LISTING_SCHEMA)
        for first in range(0, len(recordings), ROWS_AT_ONCE)
    ]
    parts = divide_listing(pa.concat_tables([LISTING_SCHEMA.empty_table(), *tables]), sizes)
    return Source(parts, {"files": len(recordings), "listing": listing.hexdigest()}, chunk_seconds)


def in_chunks(
    items: Iterable[Any], size: float, load: Callable[[Item], float], make: Callable[[Any], Item] = lambda item: item
) -> Iterator[tuple[list[Item], bool]]:
    """Consecutive items whose loads add up to `size`, and whether they are the last, which may be none. The work of
    `make` on an item begins after the chunk before it was yielded and could be saved."""
    chunk, total = [], 0.0
    for item in items:
        if total >= size:
            yield chunk, False
            chunk, total = [], 0.0
        chunk.append(make(item))
        total += load(chunk[-1])
    yield chunk, True


def load_seconds(seconds: float) -> float:
    """How much a recording counts towards a chunk: its length, but at least a second, because each file takes time."""
    return max(seconds, 1.0)


def share_parts(parts: Sequence[Part], rank: int, world_size: int) -> range:
    """The numbers of a task's parts: neighbours, with about the same amount of audio for each task. If the length
    of a part is unknown, the numbers of rows count instead; if one of these is unknown, all parts count the same."""
    loads = [part.seconds for part in parts]
    if None in loads:
        loads = [part.num_rows for part in parts]
    if None in loads:
        loads = [1.0] * len(parts)
    loads = np.array([load_seconds(load) for load in loads])
    middles = np.cumsum(loads) - loads / 2
    first, last = np.searchsorted(middles, loads.sum() * np.array([rank, rank + 1]) / world_size)
    return range(first, last)


def _probe(audio: str | ByteRange) -> AudioProbe:
    try:
        return probe_audio(audio)
    except AudioDownloadError:
        raise
    except (OSError, ValueError):  # reported when its turn comes
        return AudioProbe()


def _to_row(item: Recording | Skipped) -> dict[str, Any]:
    if isinstance(item, Skipped):
        return item.as_texts()
    row = {name: getattr(item, name) for name in RECORDING_COLUMNS}
    if isinstance(item.audio, ByteRange):
        return row | {"path": os.fsencode(item.audio.path), "start": item.audio.start, "size": item.audio.size}
    return row | {"path": os.fsencode(item.audio)}


def _from_row(row: dict[str, Any]) -> Recording | Skipped:
    if row["reason"] is not None:
        return Skipped(row["id"], SkipReason(row["reason"]), row["detail"])
    audio = os.fsdecode(row["path"])
    if row["start"] is not None:
        audio = ByteRange(audio, row["start"], row["size"])
    return Recording(audio=audio, **{name: row[name] for name in RECORDING_COLUMNS})


def _skip_duplicates(recordings: Sequence[Recording | Skipped]) -> list[Recording | Skipped]:
    taken, kept = set(), []
    for recording in recordings:
        if isinstance(recording, Recording) and recording.id in taken:
            recording = Skipped(recording.id, SkipReason.WRONGLY_NAMED, "an earlier recording has this id")
        taken.add(recording.id)
        kept.append(recording)
    return kept
