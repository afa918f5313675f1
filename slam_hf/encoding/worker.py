"""Encodes recordings into the ledger, chunk by chunk: a job that can be killed at any moment."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ..corpora.preference_pairs import pair_rows
from ..corpora.schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES
from ..processes import get_process_state
from .ledger import ChunkRecord, Ledger
from .piece_batches import Batch, ChunkEnd, ChunkKey, PendingPart, PieceBatches, make_loader
from .progress import JobProgress
from .reading import Piece, PieceRules
from .recordings import Skipped, SkipReason
from .sources import Part, Source


if TYPE_CHECKING:
    from slam_hf.modeling_hubert_unit_codec import HubertUnitCodec


def share_parts(pending: Sequence[PendingPart], parts: Sequence[Part], num_processes: int) -> list[list[PendingPart]]:
    r"""
    Divide parts among processes so that each has about as much audio.

    Args:
        pending (sequence of [`PendingPart`]):
            What to divide.
        parts (sequence of [`Part`]):
            All parts. Where the length of one is not known, their numbers of rows count; else each as much as another.
        num_processes (`int`):
            Among how many.

    Returns:
        `list`: what each process does, in order.
    """
    loads = [part.seconds for part in parts]
    if None in loads:
        loads = [part.num_rows for part in parts]
    if None in loads:
        loads = [1.0] * len(parts)
    shares: list[list[PendingPart]] = [[] for _ in range(num_processes)]
    totals = [0.0] * num_processes
    # The largest part goes to the process with the least so far (Graham, 1969): no share exceeds 4/3 of the best.
    for item in sorted(pending, key=lambda item: -loads[item.next_chunk.part]):
        process = totals.index(min(totals))
        shares[process].append(item)
        totals[process] += loads[item.next_chunk.part]
    return [sorted(share, key=lambda item: item.next_chunk) for share in shares]


def encode_share(
    source: Source,
    share: Sequence[PendingPart],
    codec: "HubertUnitCodec",
    rules: PieceRules,
    ledger: Ledger,
    batch_seconds: float,
    num_workers: int,
) -> None:
    """Encode a process's share of a source into the ledger, with a progress bar, and wait for the other processes."""
    state = get_process_state()
    batches = PieceBatches(
        source.parts, share, rules, codec.sampling_rate, codec.frame_rate, source.chunk_seconds, batch_seconds
    )
    progress = JobProgress(source.parts, ledger, disable=not state.is_main_process)
    encode_chunks(make_loader(batches, num_workers), codec, ledger, source.has_pairs, progress)
    state.wait_for_everyone()
    progress.close()


def encode_chunks(
    items: Iterable[Batch | ChunkEnd],
    codec: "HubertUnitCodec",
    ledger: Ledger,
    has_pairs: bool,
    progress: JobProgress,
) -> None:
    """Encode batches as they come, and write each chunk when its end comes."""
    frames: defaultdict[ChunkKey, dict[int, np.ndarray]] = defaultdict(dict)
    for item in items:
        if isinstance(item, Batch):
            frames[item.chunk] |= zip(item.positions, encode_batch(codec, item), strict=True)
            progress.add_batch(item.chunk, item.lengths.sum() / codec.sampling_rate)
        else:
            rows, record = make_rows(item, frames.pop(item.chunk, {}), codec, has_pairs)
            ledger.add(item.chunk, rows, record)
            progress.end_chunk(item.chunk)


@torch.inference_mode()
def encode_batch(codec: "HubertUnitCodec", batch: Batch) -> list[np.ndarray]:
    """The unit of each frame of the batch's pieces, each of shape `(num_frames,)`."""
    waveforms = torch.from_numpy(batch.waveforms).to(codec.device)
    lengths = torch.from_numpy(batch.lengths).to(codec.device)
    padding_mask = torch.arange(waveforms.shape[1], device=codec.device) < lengths[:, None]
    encoded = codec.encode(waveforms, padding_mask)
    codes = encoded.audio_codes[:, 0].cpu().numpy()
    return [units[:length] for units, length in zip(codes, encoded.lengths.tolist(), strict=True)]


def make_rows(
    end: ChunkEnd, frames: dict[int, np.ndarray], codec: "HubertUnitCodec", has_pairs: bool
) -> tuple[pa.Table, ChunkRecord]:
    """The rows of a chunk whose pieces are encoded, and its record."""
    rows, skipped = [], list(end.skipped)
    for position, piece in enumerate(end.pieces):
        units = frames[position][piece.keep_from : piece.keep_to]
        if len(units) == 0:
            skipped.append(Skipped(piece.id, SkipReason.TOO_SHORT, "not one frame of the codec"))
        else:
            rows.append(unit_row(piece, units, codec))
    num_units = sum(len(row["units"]) for row in rows)
    num_frames = sum(row["num_frames"] for row in rows)
    features = UNIT_CORPUS_FEATURES
    if has_pairs:
        features = PREFERENCE_FEATURES
        rows, incomplete = pair_rows(rows, skipped)
        skipped += incomplete
    record = ChunkRecord(end.next_row, end.is_last, end.seconds, len(rows), num_units, num_frames, skipped)
    return pa.Table.from_pylist(rows, schema=features.arrow_schema), record


def unit_row(piece: Piece, frames: np.ndarray, codec: "HubertUnitCodec") -> dict[str, Any]:
    """A row of a tokenised corpus: a piece with the unit of each of its frames, deduplicated."""
    units, durations = codec.deduplicate(torch.from_numpy(frames))
    return {
        "id": piece.id,
        "units": units.tolist(),
        "durations": durations.tolist(),
        "num_frames": len(frames),
        "text": piece.text,
        "aligned_text": piece.aligned_text,
    }
