"""Reads parts of the input and forms batches, in DataLoader workers that run ahead of the encoder."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import fsspec.asyn
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..processes import exit_with_parent
from .ledger import ChunkKey, PendingPart
from .length_groups import fullest_group
from .reading import Piece, PieceRules, read_pieces
from .recordings import Recording, Skipped
from .sources import Part, Row, load_seconds


@dataclass(frozen=True)
class Batch:
    """Pieces that the encoder takes together, with their positions in the chunk.

    `waveforms` has shape `(batch, samples)`, float32, and is zero after the first `lengths` samples of each row. As
    NumPy arrays they travel through pipes: the shared memory that tensors need is often too small in containers.
    """

    chunk: ChunkKey
    positions: list[int]
    waveforms: np.ndarray
    lengths: np.ndarray


@dataclass
class ChunkEnd:
    """Follows the last batch of a chunk: the pieces without their waveforms, and what was left out.

    `seconds` is the length of the pieces in all, `next_row` the row of the part that the next chunk begins with.
    """

    chunk: ChunkKey
    next_row: int
    is_last: bool = False
    pieces: list[Piece] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(eq=False)
class PieceBatches(torch.utils.data.IterableDataset):
    """Iterates over the pending parts of the input, chunk by chunk: yields each [`Batch`] and then its [`ChunkEnd`].
    Each DataLoader worker takes its share of the parts. An `OSError` or `ValueError` is the last item: a DataLoader
    would raise it with a traceback for its message.

    A chunk ends once it has `chunk_seconds` of audio, or with its part. A batch has at most `batch_seconds`, padding
    included; a longer piece is a batch of its own. It comes as soon as that much audio waits: those pieces of it whose
    lengths are similar. The others wait for more of their kind, until the chunk ends. On the lengths of LibriSpeech,
    8 % of what the batches hold is padding, against 23 % if the pieces were taken as they come.

    What a batch holds depends on the chunk alone, so that even an encoder whose results depended on the batch would
    give the same units in any number of processes and after any interruption.
    """

    parts: Sequence[Part]
    pending: Sequence[PendingPart]
    rules: PieceRules
    sampling_rate: int
    frame_rate: float
    chunk_seconds: float
    batch_seconds: float

    def __iter__(self) -> Iterator[Batch | ChunkEnd | OSError | ValueError]:
        worker = torch.utils.data.get_worker_info()
        share = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        try:
            for pending in self.pending[share]:
                yield from self._read_part(pending)
        except (OSError, ValueError) as error:
            yield error

    def _read_part(self, pending: PendingPart) -> Iterator[Batch | ChunkEnd]:
        end = ChunkEnd(pending.next_chunk, pending.first_row)
        waiting: dict[int, np.ndarray] = {}  # waveforms by their position in the chunk
        load = 0.0
        for row in self.parts[end.chunk.part].read(end.next_row):
            if load >= self.chunk_seconds:
                yield from self._batches(end, waiting)
                yield end
                end = ChunkEnd(end.chunk._replace(chunk=end.chunk.chunk + 1), end.next_row)
                load = 0.0
            seconds_before = end.seconds
            for item in self._read_row(row):
                if isinstance(item, Skipped):
                    end.skipped.append(item)
                    continue
                waiting[len(end.pieces)] = item.waveform
                end.pieces.append(replace(item, waveform=None))
                end.seconds += len(item.waveform) / self.sampling_rate
                yield from self._batches(end, waiting, min_samples=self.batch_seconds * self.sampling_rate)
            end.next_row += 1
            load += load_seconds(end.seconds - seconds_before)
        end.is_last = True
        yield from self._batches(end, waiting)
        yield end

    def _batches(self, end: ChunkEnd, waiting: dict[int, np.ndarray], min_samples: float = 0) -> Iterator[Batch]:
        """Batches of the waveforms that wait, while they have at least this many samples in all."""
        while waiting and sum(map(len, waiting.values())) >= min_samples:
            lengths = [len(waveform) for waveform in waiting.values()]
            group = fullest_group(lengths, max_total=int(self.batch_seconds * self.sampling_rate))
            positions = list(map(list(waiting).__getitem__, group))
            padded = pad_sequence([torch.from_numpy(waiting.pop(p)) for p in positions], batch_first=True).numpy()
            yield Batch(end.chunk, positions, padded, np.array(lengths)[group])

    def _read_row(self, row: Row) -> Iterator[Piece | Skipped]:
        for recording in row:
            if isinstance(recording, Recording):
                yield from read_pieces(recording, self.rules, self.sampling_rate, self.frame_rate)
            else:
                yield recording


def make_loader(batches: PieceBatches, num_workers: int) -> torch.utils.data.DataLoader:
    """A DataLoader whose items are in order for each worker, and come from whichever worker is ready first."""
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        in_order=False,
    )


def _prepare_worker(parent: int, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which ends its workers
    # fsspec's event loop thread does not survive the fork.
    fsspec.asyn.reset_lock()
    exit_with_parent(parent)
