"""Inputs of the tokenisation, in parts that are read independently, and the source of listed files."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from ..audio_files import probe_audio
from ..remote_files import NUM_THREADS, AudioDownloadError
from .recordings import Recording, Skipped, SkipReason


CHUNK_SECONDS = 300.0
"""What a killed job loses for each process that decodes: seconds of work on a CPU. 60,000 hours are 720,000 chunks."""

PROBES_AT_ONCE = 1024

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

    recordings: Sequence[Recording | Skipped]
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
        [`Source`], whose identity is the names, excerpts and texts of the recordings, and the sizes, lengths and heads
        of the files.

    Raises:
        AudioDownloadError: a server could not be reached, or refused a file, in several tries.
    """
    recordings = _skip_duplicates(recordings)
    probes = _probe_files(recordings)
    listing = hashlib.sha256()
    parts, rows, seconds, load = [], [], 0.0, 0.0
    for recording in recordings:
        length = 0.0
        if isinstance(recording, Skipped):
            line = [recording.id, recording.reason]
        else:
            probe = probes[_file(recording)]
            excerpt = (recording.offset, recording.duration)
            line = [recording.id, *excerpt, recording.text, recording.aligned_text, *probe]
            line += [label for label in (recording.speaker, recording.style) if label is not None]
            length = min(max(0.0, probe.seconds - recording.offset), recording.duration or math.inf)
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


class _Probe(NamedTuple):
    """What a file is known by without decoding it; what cannot be read is reported when its turn comes."""

    num_bytes: int | None = None
    seconds: float = 0.0
    head: str | None = None


def _probe_files(recordings: Sequence[Recording | Skipped]) -> dict[Any, _Probe]:
    files = {_file(item): item.audio for item in recordings if isinstance(item, Recording)}
    probes: dict[Any, _Probe] = {}
    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(desc="Probing files", total=len(files), delay=2.0) as bar:
        names = list(files)
        for first in range(0, len(names), PROBES_AT_ONCE):
            some = names[first : first + PROBES_AT_ONCE]
            probes |= zip(some, pool.map(_probe, map(files.__getitem__, some)), strict=True)
            bar.update(len(some))
    return probes


def _file(recording: Recording) -> Any:
    """The file of a recording, as a key: several excerpts of it need one probe."""
    return id(recording.audio) if isinstance(recording.audio, dict) else recording.audio


def _probe(audio: Any) -> _Probe:
    try:
        probe = probe_audio(audio)
    except AudioDownloadError:
        raise
    except (OSError, ValueError):
        return _Probe()
    return _Probe(probe.num_bytes, probe.seconds or 0.0, hashlib.sha256(probe.head).hexdigest()[:16])


def _skip_duplicates(recordings: Sequence[Recording | Skipped]) -> list[Recording | Skipped]:
    taken, kept = set(), []
    for recording in recordings:
        if isinstance(recording, Recording) and recording.id in taken:
            recording = Skipped(recording.id, SkipReason.WRONGLY_NAMED, "an earlier recording has this id")
        taken.add(recording.id)
        kept.append(recording)
    return kept
