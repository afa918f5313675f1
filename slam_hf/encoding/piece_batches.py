"""Runs ahead of the encoder in DataLoader workers: reads parts of the input and forms batches."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import fsspec.asyn
import numpy as np
import torch

from .length_groups import BATCHES_PER_WINDOW, group_by_length
from .reading import Piece, PieceRules, read_pieces
from .recordings import Recording, Skipped
from .sources import Part, Row, load_seconds


class ChunkKey(NamedTuple):
    """Which chunk of which part."""

    part: int
    chunk: int


@dataclass(frozen=True)
class PendingPart:
    """A part of the input from the first row that has not been tokenised on."""

    next_chunk: ChunkKey
    first_row: int


@dataclass(frozen=True)
class Batch:
    """Pieces that the encoder takes together, by their position in the chunk.

    `waveforms` has shape `(batch, samples)`, float32, and is zero after the first `lengths` samples of each row.
    """

    chunk: ChunkKey
    positions: list[int]
    waveforms: np.ndarray
    lengths: np.ndarray


@dataclass
class ChunkEnd:
    """Comes after the last batch of a chunk: its pieces without their waveforms, and what was left out.

    `seconds` is the audio of the pieces, `next_row` the row of the part that the next chunk begins with.
    """

    chunk: ChunkKey
    next_row: int
    is_last: bool = False
    pieces: list[Piece] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0


class PieceBatches(torch.utils.data.IterableDataset):
    r"""
    Iterates over parts of the input as batches of pieces, chunk by chunk.

    What a batch holds depends on the chunk alone, so that even an encoder whose results depended on the batch would
    give the same units in any number of processes and after any interruption.

    Args:
        parts (sequence of [`Part`]):
            All parts of the input.
        pending (sequence of [`PendingPart`]):
            What to read of them. Each DataLoader worker takes its share.
        rules ([`PieceRules`]):
            Which pieces the recordings give.
        sampling_rate (`int`):
            Sampling rate of the codec, in Hz.
        frame_rate (`float`):
            Frames per second of the codec.
        chunk_seconds (`float`):
            A chunk ends with the row that gives it this much audio, or with its part.
        batch_seconds (`float`):
            Most audio in a batch, padding included.

    Yields:
        [`Batch`] and, after those of a chunk, its [`ChunkEnd`].
    """

    def __init__(
        self,
        parts: Sequence[Part],
        pending: Sequence[PendingPart],
        rules: PieceRules,
        sampling_rate: int,
        frame_rate: float,
        chunk_seconds: float,
        batch_seconds: float,
    ):
        self.parts = parts
        self.pending = pending
        self.rules = rules
        self.sampling_rate = sampling_rate
        self.frame_rate = frame_rate
        self.chunk_seconds = chunk_seconds
        self.batch_samples = int(batch_seconds * sampling_rate)

    def __iter__(self) -> Iterator[Batch | ChunkEnd]:
        worker = torch.utils.data.get_worker_info()
        share = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        for pending in self.pending[share]:
            yield from self._read_part(pending)

    def _read_part(self, pending: PendingPart) -> Iterator[Batch | ChunkEnd]:
        chunk = ChunkEnd(pending.next_chunk, pending.first_row)
        window: list[Piece] = []
        load = 0.0
        for row, is_last in _mark_last(self.parts[chunk.chunk.part].read(chunk.next_row)):
            seconds_before = chunk.seconds
            for item in self._read_row(row):
                if isinstance(item, Skipped):
                    chunk.skipped.append(item)
                    continue
                chunk.pieces.append(replace(item, waveform=None))
                chunk.seconds += len(item.waveform) / self.sampling_rate
                window.append(item)
                if sum(len(piece.waveform) for piece in window) >= BATCHES_PER_WINDOW * self.batch_samples:
                    yield from self._batches(chunk, window)
                    window = []
            chunk.next_row += 1
            load += load_seconds(chunk.seconds - seconds_before)
            if load >= self.chunk_seconds and not is_last:
                yield from self._batches(chunk, window)
                yield chunk
                chunk = ChunkEnd(chunk.chunk._replace(chunk=chunk.chunk.chunk + 1), chunk.next_row)
                window, load = [], 0.0
        yield from self._batches(chunk, window)
        yield replace(chunk, is_last=True)

    def _read_row(self, row: Row) -> Iterator[Piece | Skipped]:
        for recording in row:
            if isinstance(recording, Recording):
                yield from read_pieces(recording, self.rules, self.sampling_rate, self.frame_rate)
            else:
                yield recording

    def _batches(self, chunk: ChunkEnd, window: list[Piece]) -> Iterator[Batch]:
        """Batches of the chunk's last pieces, those of the window."""
        first = len(chunk.pieces) - len(window)
        lengths = np.array([len(piece.waveform) for piece in window], dtype=np.int64)
        for group in group_by_length(lengths.tolist(), self.batch_samples):
            waveforms = np.zeros((len(group), int(lengths[group].max())), dtype=np.float32)
            for padded, position in zip(waveforms, group, strict=True):
                padded[: lengths[position]] = window[position].waveform
            yield Batch(chunk.chunk, [first + position for position in group], waveforms, lengths[group])


def make_loader(batches: PieceBatches, num_workers: int) -> torch.utils.data.DataLoader:
    """A DataLoader that hands on each worker's batches and chunk ends in order, whichever worker is ready first."""
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        # Kept as NumPy arrays, the batches travel through pipes: shared memory is often too small in containers.
        collate_fn=_identity,
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        in_order=False,
    )


def _identity(item: Batch | ChunkEnd) -> Batch | ChunkEnd:
    return item


def _prepare_worker(parent: int, worker: int) -> None:
    # fsspec's event loop thread does not survive the fork.
    fsspec.asyn.reset_lock()
    # A worker whose parent is killed would wait forever for somebody to take its last batch from the pipe.
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _mark_last(rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    previous = None
    for row in rows:
        if previous is not None:
            yield previous, False
        previous = row
    if previous is not None:
        yield previous, True
