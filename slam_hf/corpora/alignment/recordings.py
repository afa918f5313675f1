"""Aligns recordings with their words, chunk by chunk, in a job that can be killed at any moment."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from ...encoding.ledger import ChunkRecord, Ledger
from ...encoding.reading import PieceRules, read_pieces
from ...encoding.recordings import Recording, Skipped, SkipReason, is_utf8
from ...encoding.segmentation import Segmentation
from ...encoding.sources import Source, in_chunks, load_seconds
from ...encoding.unit_rows import UNIT_ROW_SCHEMA, parse_piece_id
from .aligners import CtcAligner, TimedPiece, TimedText, WhisperAligner
from .word_times import UnalignableError


RULES = PieceRules(Segmentation(max_seconds=30.0, cut="silence"))
"""Longer recordings are cut at silences: Whisper hears 30 seconds, and the memory of CTC models grows with the square
of the length."""

FRAME_RATE = 25.0
"""Recordings are cut at multiples of 40 ms."""

_NO_SPEECH = (SkipReason.SILENT, SkipReason.TOO_SHORT)

ALIGNED_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "path": pa.string(),
        "offset": pa.float64(),
        "duration": pa.float64(),
        "text": pa.string(),
        "aligned_text": UNIT_ROW_SCHEMA.field("aligned_text").type,
    }
)
"""A recording, with its words where they could be aligned. `path` is null where it is not a file of its own."""


@dataclass(frozen=True)
class Aligners:
    """The CTC model, which aligns recordings with a text, and Whisper, which transcribes those without one. One may be
    missing: without a CTC model, Whisper transcribes recordings with a text too, and replaces their text."""

    ctc: CtcAligner | None
    whisper: WhisperAligner | None

    def align(self, recording: Recording) -> TimedText:
        """The words of a recording. [`UnalignableError`] says why it has none."""
        if self.ctc is not None and recording.text is not None:
            return self.ctc.align(read_timed_pieces(recording, self.ctc.sampling_rate), recording.text)
        if self.whisper is None:
            raise UnalignableError(SkipReason.NO_TEXT, "no transcript")
        return self.whisper.transcribe(read_timed_pieces(recording, self.whisper.sampling_rate))


def read_timed_pieces(recording: Recording, sampling_rate: int) -> Iterator[TimedPiece]:
    """Read a recording in pieces of at most 30 seconds, cut at silences. Silent pieces are left out.
    [`UnalignableError`] says that the recording cannot be read, or that all of it is silent."""
    left_out = Skipped(recording.id, SkipReason.EMPTY, "no samples")
    found = False
    for piece in read_pieces(recording, RULES, sampling_rate, FRAME_RATE):
        if isinstance(piece, Skipped):
            left_out = piece
            if piece.reason not in _NO_SPEECH:
                raise UnalignableError(piece.reason, piece.detail)
            continue
        found = True
        start = 0.0 if piece.id == recording.id else parse_piece_id(piece.id)[1] - recording.offset
        yield TimedPiece(start, piece.waveform)
    if not found:
        raise UnalignableError(left_out.reason, left_out.detail)


def align_parts(source: Source, aligners: Aligners, ledger: Ledger, rank: int = 0, world_size: int = 1) -> None:
    r"""
    Align what the ledger lacks of one task's share of a source.

    The shares of all tasks are the whole source. The tasks do not communicate. Once all have ended, the chunks of
    `ledger.finished(source.parts)` have a row for each recording. A recording that could not be aligned has no words,
    and the `skipped` of its chunk has the reason.
    """
    for key, next_row in ledger.begin(source.parts, rank, world_size):
        rows, align = source.parts[key.part].read(next_row), lambda row: _align(*row, aligners)
        for chunk, is_last in in_chunks(rows, source.chunk_seconds, lambda item: load_seconds(item.seconds), align):
            next_row += len(chunk)
            ledger.add(key, *_make_rows(chunk, next_row, is_last))
            key = key._replace(chunk=key.chunk + 1)


def _make_rows(chunk: list["_Aligned"], next_row: int, is_last: bool) -> tuple[pa.Table, ChunkRecord]:
    """The rows of a chunk, and its record."""
    table = pa.Table.from_pylist([item.row for item in chunk if item.row is not None], schema=ALIGNED_SCHEMA)
    skipped = [item.skipped for item in chunk if item.skipped is not None]
    return table, ChunkRecord(next_row, is_last, sum(item.seconds for item in chunk), len(table), 0, 0, skipped)


class _Aligned(NamedTuple):
    """A recording that was aligned, or could not be."""

    row: dict[str, Any] | None
    skipped: Skipped | None
    seconds: float


def _align(recording: Recording | Skipped, aligners: Aligners) -> _Aligned:
    if isinstance(recording, Skipped):
        return _Aligned(None, recording, 0.0)
    path = recording.audio if isinstance(recording.audio, str) and is_utf8(recording.audio) else None
    row = {"id": recording.id, "path": path, "offset": recording.offset, "duration": recording.duration}
    row |= {"text": recording.text, "aligned_text": None}
    try:
        timed = aligners.align(recording)
    except UnalignableError as error:
        return _Aligned(row, Skipped(recording.id, error.reason, error.detail), 0.0)
    return _Aligned({**row, "text": timed.text, "aligned_text": timed.words}, None, timed.seconds)
