"""Reads the pieces of the input, in DataLoader workers that run ahead of the encoder, and puts them into batches."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import fsspec.asyn
import numpy as np
import torch

from ..processes import exit_with_parent
from .ledger import ChunkKey, PendingPart
from .reading import Piece, PieceRules, read_pieces
from .recordings import Recording, Skipped
from .sources import Part, Row, load_seconds


WAIT_SECONDS = 5 * 3600.0
"""Seconds of audio that are read while the last pieces of a chunk wait for others of their length, to fill a batch.
For a GPU these are seconds of work, which a killed job loses."""

PIECES_AHEAD = 16
"""Pieces that each DataLoader worker reads ahead: about three minutes of audio, which are several batches of a GPU."""


SAMPLE_SCALE = 2**15
"""The 16-bit sample of full scale."""


@dataclass(frozen=True)
class ChunkPiece:
    """A piece for the encoder: its position in the chunk, and its waveform of shape `(samples,)`, float32.

    As a NumPy array it travels through pipes: the shared memory that tensors need is often too small in containers.
    """

    chunk: ChunkKey
    position: int
    waveform: np.ndarray


Batch = list[ChunkPiece]
"""Pieces that the encoder takes together, from any chunks."""


@dataclass
class ChunkEnd:
    """Follows the last piece of a chunk: the pieces, by default without their waveforms, and what was left out.

    `seconds` is the length of the pieces in all, `next_row` the row of the part that the next chunk begins with.
    """

    chunk: ChunkKey
    next_row: int
    is_last: bool = False
    pieces: list[Piece] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(eq=False)
class ChunkPieces(torch.utils.data.IterableDataset):
    """Iterates over the pending parts of the input, chunk by chunk: yields each [`ChunkPiece`] and then the
    [`ChunkEnd`]. Each DataLoader worker takes its share of the parts. An `OSError` or `ValueError` is the last item: a
    DataLoader would raise it with a traceback for its message.

    A chunk ends once it has `chunk_seconds` of audio, or with its part. With `keep_audio`, the pieces at its end have
    their waveforms as 16-bit samples. `transform` changes the waveform that is encoded, given the id of its piece.
    """

    parts: Sequence[Part]
    pending: Sequence[PendingPart]
    rules: PieceRules
    sampling_rate: int
    frame_rate: float
    chunk_seconds: float
    keep_audio: bool = False
    transform: Callable[[str, np.ndarray], np.ndarray] | None = None

    def __iter__(self) -> Iterator[ChunkPiece | ChunkEnd | OSError | ValueError]:
        worker = torch.utils.data.get_worker_info()
        share = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        try:
            for pending in self.pending[share]:
                yield from self._read_part(pending)
        except (OSError, ValueError) as error:
            yield error

    def _read_part(self, pending: PendingPart) -> Iterator[ChunkPiece | ChunkEnd]:
        end = ChunkEnd(pending.next_chunk, pending.first_row)
        load = 0.0
        for row in self.parts[end.chunk.part].read(end.next_row):
            if load >= self.chunk_seconds:
                yield end
                end = ChunkEnd(end.chunk._replace(chunk=end.chunk.chunk + 1), end.next_row)
                load = 0.0
            seconds_before = end.seconds
            for item in self._read_row(row):
                if isinstance(item, Skipped):
                    end.skipped.append(item)
                    continue
                waveform = item.waveform if self.transform is None else self.transform(item.id, item.waveform)
                yield ChunkPiece(end.chunk, len(end.pieces), waveform)
                samples = (
                    (item.waveform * SAMPLE_SCALE).round().clip(-SAMPLE_SCALE, SAMPLE_SCALE - 1).astype(np.int16)
                    if self.keep_audio
                    else None
                )
                end.pieces.append(replace(item, waveform=samples))
                end.seconds += len(item.waveform) / self.sampling_rate
            end.next_row += 1
            load += load_seconds(end.seconds - seconds_before)
        end.is_last = True
        yield end

    def _read_row(self, row: Row) -> Iterator[Piece | Skipped]:
        for recording in row:
            if isinstance(recording, Recording):
                yield from read_pieces(recording, self.rules, self.sampling_rate, self.frame_rate)
            else:
                yield recording


def make_batches(
    items: Iterable[ChunkPiece | ChunkEnd | OSError | ValueError],
    batch_shape: Callable[[int], tuple[int, int]],
    sampling_rate: int,
    wait_seconds: float = WAIT_SECONDS,
) -> Iterator[Batch | ChunkEnd | OSError | ValueError]:
    """Put the items of [`ChunkPieces`] into batches of pieces that the encoder pads to one length, from any chunks.

    `batch_shape` gives, for the samples of a piece, the number of pieces in a full batch and the length that each is
    padded to. A batch comes once it is full. What is left of a chunk that ended `wait_seconds` of audio ago comes in
    batches that are not full, and so does the rest at the end. On lengths like those of LibriSpeech, nine tenths of
    what goes through the encoder is audio; if chunks did not share batches, it would be four tenths.

    The end of a chunk comes after all of its pieces; chunks end in the order in which they were read.
    """
    groups: dict[tuple[int, int], Batch] = {}
    num_waiting: Counter[ChunkKey] = Counter()  # pieces of each chunk that are not in a batch yet
    ended: dict[ChunkKey, tuple[ChunkEnd, float]] = {}  # with the seconds that had been read by then
    seconds = 0.0

    def pop(shape: tuple[int, int]) -> Batch:
        num_waiting.subtract(piece.chunk for piece in groups[shape])
        return groups.pop(shape)

    def end_chunks(before: float) -> Iterator[Batch | ChunkEnd]:
        while ended:
            key, (end, ended_at) = next(iter(ended.items()))
            if num_waiting[key] and ended_at > before:
                return
            for shape in [shape for shape, group in groups.items() if any(piece.chunk == key for piece in group)]:
                yield pop(shape)
            del ended[key], num_waiting[key]
            yield end

    for item in items:
        if isinstance(item, ChunkPiece):
            shape = batch_shape(len(item.waveform))
            groups.setdefault(shape, []).append(item)
            num_waiting[item.chunk] += 1
            seconds += len(item.waveform) / sampling_rate
            if len(groups[shape]) == shape[0]:
                yield pop(shape)
        elif isinstance(item, ChunkEnd):
            ended[item.chunk] = item, seconds
        else:
            yield from end_chunks(math.inf)  # what was read before the error is kept
            yield item
        yield from end_chunks(seconds - wait_seconds)
    yield from end_chunks(math.inf)


def make_loader(pieces: ChunkPieces, num_workers: int) -> torch.utils.data.DataLoader:
    """A DataLoader whose items are in order for each worker, and come from whichever worker is ready first."""
    return torch.utils.data.DataLoader(
        pieces,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=PIECES_AHEAD if num_workers else None,
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        in_order=False,
    )


def _prepare_worker(parent: int, worker: int) -> None:
    # fsspec's event loop thread does not survive the fork.
    fsspec.asyn.reset_lock()
    exit_with_parent(parent)
