"""Reads recordings as pieces for the codec, and reports what is wrong with those that are left out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from ..audio_files import AudioError, check_sampling_rate, open_audio
from ..audio_utils import resample
from .recordings import Recording, Skipped, SkipReason
from .segmentation import Segment, Segmentation, cut_segments
from .unit_rows import piece_id


@dataclass(frozen=True)
class PieceRules:
    r"""
    Rules for the pieces of recordings.

    Args:
        segmentation ([`Segmentation`], *optional*):
            How long recordings are cut into pieces.
        min_seconds (`float`, *optional*, defaults to 0.1):
            Shorter pieces are left out, and so are pieces shorter than a frame of the codec.
        min_peak_dbfs (`float`, *optional*, defaults to -60.0):
            Pieces whose largest sample stays below this level, in dB relative to full scale, count as silent and are
            left out.
    """

    segmentation: Segmentation = field(default_factory=Segmentation)
    min_seconds: float = 0.1
    min_peak_dbfs: float = -60.0


@dataclass(frozen=True)
class Piece:
    """A piece of a recording, which becomes one row of the corpus.

    `waveform` has shape `(samples,)`, float32, at the codec's sampling rate, and is dropped once it is in a batch. The
    row keeps the units of the frames `keep_from` to `keep_to`, counted from the start of the waveform.
    """

    id: str
    waveform: np.ndarray | None
    keep_from: int
    keep_to: int | None
    text: str | None
    aligned_text: list[dict[str, Any]] | None
    speaker: str | None = None
    style: str | None = None


@dataclass(frozen=True)
class _LeftOut:
    """A piece that cannot be in the corpus: the frames of the recording that it covers, and why."""

    keep_from: int
    keep_to: int | None
    reason: SkipReason
    detail: str
    peak: float = 0.0


def read_pieces(
    recording: Recording, rules: PieceRules, sampling_rate: int, frame_rate: float
) -> Iterator[Piece | Skipped]:
    """Read a recording piece by piece, at the sampling rate (in Hz) and with the frame rate of the codec.

    Yields [`Piece`] and [`Skipped`], in order; one [`Skipped`] for consecutive pieces that are left out for the same
    reason. If a file turns out to be damaged, the pieces before the damage are good, and the last item says where the
    damage begins. [`AudioDownloadError`] is raised if a server could not be reached, or refused the file.
    """
    items = _read_items(recording, rules, sampling_rate, frame_rate)
    for reason, group in groupby(items, key=lambda item: item.reason if isinstance(item, _LeftOut) else None):
        if reason is None:
            yield from group
            continue
        left_out = list(group)
        loudest = max(left_out, key=lambda piece: piece.peak)
        id = _piece_id(recording, left_out[0].keep_from, left_out[-1].keep_to, frame_rate)
        yield Skipped(id, reason, loudest.detail)


def _read_items(
    recording: Recording, rules: PieceRules, sampling_rate: int, frame_rate: float
) -> Iterator[Piece | _LeftOut | Skipped]:
    min_peak, min_seconds = 10 ** (rules.min_peak_dbfs / 20), max(rules.min_seconds, 1 / frame_rate)
    frames_read = 0
    try:
        with open_audio(recording.audio) as file:
            check_sampling_rate(file.sampling_rate, file.name, sampling_rate)
            blocks = file.blocks(recording.offset, recording.duration)
            for segment in cut_segments(blocks, file.sampling_rate, frame_rate, rules.segmentation):
                bounds, peak = (segment.keep_from, segment.keep_to), float(np.abs(segment.waveform).max())
                if not math.isfinite(peak):
                    yield _LeftOut(*bounds, SkipReason.NOT_FINITE, "NaN or infinite samples")
                elif peak < min_peak:
                    detail = f"peak {20 * math.log10(peak):.0f} dBFS" if peak else "all zeros"
                    yield _LeftOut(*bounds, SkipReason.SILENT, detail, peak)
                else:
                    waveform = resample(segment.waveform, file.sampling_rate, sampling_rate)
                    seconds = len(waveform) / sampling_rate
                    if seconds < min_seconds:
                        yield _LeftOut(*bounds, SkipReason.TOO_SHORT, f"{seconds:.3f} s")
                    else:
                        yield _make_piece(recording, segment, waveform, frame_rate)
                frames_read = segment.keep_to or 0
    except AudioError as error:
        where = f"from {recording.offset + frames_read / frame_rate:.2f} s on: " if frames_read else ""
        yield Skipped(recording.id, SkipReason(error.reason), where + error.detail)


def _make_piece(recording: Recording, segment: Segment, waveform: np.ndarray, frame_rate: float) -> Piece:
    keep_from, keep_to, text, words = segment.keep_from, segment.keep_to, recording.text, recording.aligned_text
    id = _piece_id(recording, keep_from, keep_to, frame_rate)
    if keep_from or keep_to is not None:  # not the whole recording, whose text cannot be cut without the words' times
        end = math.inf if keep_to is None else keep_to / frame_rate
        text, words = None, words and words_between(words, keep_from / frame_rate, end)
    first = segment.first_frame
    keep_to = None if keep_to is None else keep_to - first
    return Piece(id, waveform, keep_from - first, keep_to, text, words, recording.speaker, recording.style)


def _piece_id(recording: Recording, keep_from: int, keep_to: int | None, frame_rate: float) -> str:
    if keep_from == 0 and keep_to is None:
        return recording.id
    seconds = recording.duration if keep_to is None else keep_to / frame_rate
    end = None if seconds is None else recording.offset + seconds
    return piece_id(recording.id, recording.offset + keep_from / frame_rate, end)


def words_between(words: list[dict[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    """The words whose middle lies between two times, timed from `start`. Words without a time are left out."""
    timed = (word for word in words if None not in (word["start_time"], word["end_time"]))
    return [
        {"word": word["word"], "start_time": word["start_time"] - start, "end_time": word["end_time"] - start}
        for word in timed
        if start <= (word["start_time"] + word["end_time"]) / 2 < end
    ]
