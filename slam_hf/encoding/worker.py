"""Encodes recordings into the ledger, chunk by chunk: a job that can be killed at any moment."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from ..modeling_hubert_unit_codec import HubertUnitCodec
from .ledger import ChunkKey, ChunkRecord, Ledger
from .piece_batches import Batch, ChunkEnd, ChunkPieces, make_batches, make_loader
from .reading import PieceRules
from .recordings import Skipped, SkipReason
from .sources import Source
from .unit_rows import UNIT_ROW_SCHEMA, VOICE_ROW_SCHEMA


def encode_parts(
    source: Source,
    codec: HubertUnitCodec,
    rules: PieceRules,
    ledger: Ledger,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 2,
    keep_audio: bool = False,
    transform: Callable[[str, np.ndarray], np.ndarray] | None = None,
    computation: "Computation | None" = None,
) -> None:
    r"""
    Encode what the ledger lacks of one task's share of a source.

    The shares of all tasks are the whole source. The tasks do not communicate: they may run at the same time or one
    after the other, on any machines that see the folder of the ledger, and be started again. Once all have ended,
    `ledger.finished(source.parts)` has all chunks.

    The codec encodes on the device that it is on, in batches of the shapes that it asks for. `num_workers` processes
    decode and resample ahead of it. With `keep_audio`, the rows are those of `VOICE_ROW_SCHEMA`. `transform` gives the
    waveform to encode in place of that of a piece, from its id and its waveform of shape `(samples,)`. A `computation`
    makes other rows than units.

    Raises:
        ChildProcessError: one of these processes was killed.
        DiskFullError: no space is left. What is finished is kept.
        FileNotFoundError: the folder of the ledger was moved or removed meanwhile.
    """
    pending = ledger.begin(source.parts, rank, world_size)
    rates = (codec.sampling_rate, codec.frame_rate)
    pieces = ChunkPieces(source.parts, pending, rules, *rates, source.chunk_seconds, keep_audio, transform)
    results: defaultdict[ChunkKey, dict[int, Any]] = defaultdict(dict)  # by chunk and position of the piece
    start, make_rows = (None, _make_rows) if computation is None else (computation.start, computation.make_rows)
    try:
        batches = make_batches(make_loader(pieces, num_workers), codec.batch_shape, codec.sampling_rate)
        for item, values in _encode_batches(codec, batches, start):
            if isinstance(item, OSError | ValueError):
                raise item
            if isinstance(item, list):
                for piece, value in zip(item, values, strict=True):
                    results[piece.chunk][piece.position] = value
            else:
                ledger.add(item.chunk, *make_rows(item, results.pop(item.chunk, {}), codec))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "A process that decodes recordings was killed, as happens when memory runs out. Start the same command "
            "again to continue, with a smaller num_workers."
        ) from error


class Computation(Protocol):
    """What is computed of the pieces in place of units, and the rows that it becomes."""

    def start(self, codec: HubertUnitCodec, batch: Batch) -> Callable[[], list[Any]]:
        """Start to compute a batch. Returns a function that waits for the result of each piece."""

    def make_rows(
        self, end: ChunkEnd, results: dict[int, Any], codec: HubertUnitCodec
    ) -> tuple[pa.Table, ChunkRecord]:
        """The rows of a chunk, from the results by the positions of its pieces, and its record."""


def _encode_batches(
    codec: HubertUnitCodec,
    items: Iterable[Batch | ChunkEnd | OSError | ValueError],
    start: Callable[[HubertUnitCodec, Batch], Callable[[], list[Any]]] | None = None,
) -> Iterator[tuple[Batch | ChunkEnd | OSError | ValueError, list[Any] | None]]:
    """The items in order; batches come with the results of their pieces: by default the unit of each frame, arrays of
    shape `(num_frames,)`.

    A GPU starts the next batch before the results of the last one are waited for, so that it does not idle between two
    batches, or while a chunk is written.
    """
    start = start or _start_batch
    waiting: deque[tuple[Any, Callable[[], list[Any]] | None]] = deque()
    max_running = 0 if codec.device.type == "cpu" else 1
    for item in items:
        waiting.append((item, start(codec, item) if isinstance(item, list) else None))
        while waiting and (waiting[0][1] is None or sum(finish is not None for _, finish in waiting) > max_running):
            item, finish = waiting.popleft()
            yield item, finish and finish()
    for item, finish in waiting:
        yield item, finish and finish()


def waveforms(batch: Batch) -> list[torch.FloatTensor]:
    """The clips of a batch as the codec takes them: on the host, as the codec moves them to its device."""
    return [torch.from_numpy(piece.waveform) for piece in batch]


@torch.inference_mode()
def _start_batch(codec: HubertUnitCodec, batch: Batch) -> Callable[[], list[np.ndarray]]:
    """Start to encode a batch. Returns a function that waits for the units."""
    codes = codec.encode(waveforms(batch)).audio_codes[:, 0]
    is_on_gpu = codes.device.type == "cuda"
    codes = codes.to("cpu", non_blocking=is_on_gpu)
    is_done = torch.cuda.current_stream(codec.device).record_event() if is_on_gpu else None

    def finish() -> list[np.ndarray]:
        if is_done is not None:
            is_done.synchronize()
        return [row[row >= 0] for row in codes.numpy()]

    return finish


def _make_rows(end: ChunkEnd, frames: dict[int, np.ndarray], codec: HubertUnitCodec) -> tuple[pa.Table, ChunkRecord]:
    """The rows of a chunk whose pieces are encoded, deduplicated, and its record."""
    rows, skipped = [], list(end.skipped)
    for position, piece in enumerate(end.pieces):
        kept = torch.from_numpy(frames[position][piece.keep_from : piece.keep_to])
        if len(kept) == 0:
            skipped.append(Skipped(piece.id, SkipReason.TOO_SHORT, "not one frame of the codec"))
            continue
        units, durations = codec.deduplicate(kept)
        row = {"id": piece.id, "units": units.tolist(), "durations": durations.tolist(), "num_frames": len(kept)}
        row |= {"text": piece.text, "aligned_text": piece.aligned_text}
        if piece.waveform is not None:
            start, count = piece.keep_from * codec.config.hop_length, len(kept) * codec.config.hop_length
            samples = np.pad(piece.waveform[start : start + count], (0, max(0, start + count - len(piece.waveform))))
            row |= {"speaker": piece.speaker, "style": piece.style, "audio": samples.tobytes()}
        rows.append(row)
    record = ChunkRecord(
        next_row=end.next_row,
        is_last=end.is_last,
        seconds=end.seconds,
        num_rows=len(rows),
        num_units=sum(len(row["units"]) for row in rows),
        num_frames=sum(row["num_frames"] for row in rows),
        skipped=skipped,
    )
    has_audio = any(piece.waveform is not None for piece in end.pieces)
    return pa.Table.from_pylist(rows, schema=VOICE_ROW_SCHEMA if has_audio else UNIT_ROW_SCHEMA), record
