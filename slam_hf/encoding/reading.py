"""Reads recordings into the pieces that the codec encodes, and says what is wrong with those that it leaves out."""

import io
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from datasets.utils.file_utils import is_local_path, xopen

from ..audio_utils import can_resample
from .recordings import Recording, Skipped, SkipReason
from .segmentation import Segment, Segmentation, cut_segments
from .unit_rows import piece_id


BLOCK_SECONDS = 30

UNKNOWN_LENGTH = 2**63 - 1
"""What libsndfile gives as the length of a stream that does not say it, such as FLAC written to a pipe."""


@dataclass(frozen=True)
class PieceRules:
    r"""
    Which pieces the recordings give.

    Args:
        segmentation ([`Segmentation`], *optional*):
            How long recordings are cut.
        min_seconds (`float`, *optional*, defaults to 0.1):
            Shorter pieces are left out, and those shorter than a frame of the codec.
        min_peak_dbfs (`float`, *optional*, defaults to -60.0):
            Pieces whose largest sample stays below this level, in dB relative to full scale, count as silent and are
            left out.
    """

    segmentation: Segmentation = field(default_factory=Segmentation)
    min_seconds: float = 0.1
    min_peak_dbfs: float = -60.0


@dataclass(frozen=True)
class Piece:
    """What becomes one row of the corpus.

    `waveform` has shape `(samples,)`, float32, at the codec's sampling rate, and is dropped once it is in a batch. The
    row keeps the units of the frames `keep_from` to `keep_to`, counted from the start of the waveform.
    """

    id: str
    waveform: np.ndarray | None
    keep_from: int
    keep_to: int | None
    text: str | None
    aligned_text: list[dict[str, Any]] | None


class BadAudioError(Exception):
    """What is wrong with a recording that cannot be in the corpus."""

    def __init__(self, reason: SkipReason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_pieces(
    recording: Recording, rules: PieceRules, sampling_rate: int, frame_rate: float
) -> Iterator[Piece | Skipped]:
    r"""
    Read a recording piece by piece.

    Args:
        recording ([`Recording`]):
            What to read.
        rules ([`PieceRules`]):
            Which pieces it gives.
        sampling_rate (`int`):
            Sampling rate of the codec, in Hz.
        frame_rate (`float`):
            Frames per second of the codec.

    Yields:
        [`Piece`] and [`Skipped`], in order. Where a file turns out to be damaged on the way, the pieces before are
        good and the last item says from where on it could not be read.
    """
    frames_read = 0
    try:
        with open_audio(recording.audio) as file:
            _check_header(file, sampling_rate)
            blocks = _read_blocks(file, recording)
            for segment in cut_segments(blocks, file.samplerate, frame_rate, rules.segmentation):
                id = _piece_id(recording, segment, frame_rate)
                try:
                    _check_level(segment.waveform, rules.min_peak_dbfs)
                    waveform = _resample(segment.waveform, file.samplerate, sampling_rate)
                    _check_length(waveform, sampling_rate, max(rules.min_seconds, 1 / frame_rate))
                except BadAudioError as error:
                    yield Skipped(id, error.reason, error.detail)
                else:
                    yield _make_piece(id, recording, segment, waveform, frame_rate)
                frames_read = segment.keep_to or 0
    except BadAudioError as error:
        where = f"from {recording.offset + frames_read / frame_rate:.2f} s on: " if frames_read else ""
        yield Skipped(recording.id, error.reason, where + error.detail)


def open_audio(audio: str | dict[str, Any]) -> soundfile.SoundFile:
    """Open a path, a URL or `{"bytes", "path"}` for reading; [`BadAudioError`] where that cannot be."""
    path, content = (audio, None) if isinstance(audio, str) else (audio.get("path"), audio.get("bytes"))
    if content is None and path is None:
        raise BadAudioError(SkipReason.UNREADABLE, "there is neither a path nor content")
    if content is None:
        content = _check_file(path) if is_local_path(path) else _download(path)
    if content is not None and len(content) == 0:
        raise BadAudioError(SkipReason.EMPTY, "the file has no content")
    try:
        return soundfile.SoundFile(path if content is None else io.BytesIO(content))
    except soundfile.SoundFileError as error:
        raise BadAudioError(SkipReason.CORRUPT, _describe(error)) from error


def _describe(error: soundfile.SoundFileError) -> str:
    return error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)


def _check_header(file: soundfile.SoundFile, sampling_rate: int) -> None:
    if file.frames == UNKNOWN_LENGTH:  # libsndfile cannot seek in it, which soundfile does
        raise BadAudioError(SkipReason.UNREADABLE, "its header does not give its length")
    if not can_resample(file.samplerate, sampling_rate):
        raise BadAudioError(SkipReason.UNREADABLE, f"its sampling rate, {file.samplerate} Hz, cannot be converted")


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
            raise BadAudioError(SkipReason.UNREADABLE, "not a regular file")
        if status.st_size == 0:
            raise BadAudioError(SkipReason.EMPTY, "the file has no content")
        open(path, "rb").close()  # libsndfile does not tell a file it may not read from one it cannot decode
    except OSError as error:
        raise BadAudioError(SkipReason.UNREADABLE, error.strerror or str(error)) from error


def _download(url: str) -> bytes:
    # Other errors than a missing file are the network's: they stop the job, which continues when it is started again.
    try:
        with xopen(url, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BadAudioError(SkipReason.UNREADABLE, "no such file") from error


def _read_blocks(file: soundfile.SoundFile, recording: Recording) -> Iterator[np.ndarray]:
    rate = file.samplerate
    first = round(recording.offset * rate)
    expected = file.frames - first if recording.duration is None else round(recording.duration * rate)
    read = 0
    try:
        if first > 0:
            file.seek(min(first, file.frames))
        length = BLOCK_SECONDS * rate
        # A short block is the last: what may follow it comes after a hole, in a damaged file.
        while read < expected and read % length == 0:
            block = file.read(min(expected - read, length), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            read += len(block)
            yield block.mean(axis=1)
    except soundfile.SoundFileError as error:
        raise BadAudioError(SkipReason.CORRUPT, _describe(error)) from error
    if read == 0:
        raise BadAudioError(
            SkipReason.EMPTY, f"no samples from {recording.offset:.2f} s on" if first else "no samples"
        )
    if expected - read > _tolerated_shortage(file, expected):
        raise BadAudioError(SkipReason.CORRUPT, f"ends after {read / rate:.2f} of {expected / rate:.2f} s")


def _tolerated_shortage(file: soundfile.SoundFile, expected: int) -> float:
    # Manifests round durations, and the header of an MP3 file only estimates its length.
    return max(0.1 * file.samplerate, 0.05 * expected if file.format == "MP3" else 0.0)


def _resample(waveform: np.ndarray, source_rate: int, sampling_rate: int) -> np.ndarray:
    return torchaudio.functional.resample(torch.from_numpy(waveform), source_rate, sampling_rate).numpy()


def _check_length(waveform: np.ndarray, sampling_rate: int, min_seconds: float) -> None:
    seconds = len(waveform) / sampling_rate
    if seconds < min_seconds:
        raise BadAudioError(SkipReason.TOO_SHORT, f"{seconds:.3f} s")


def _check_level(waveform: np.ndarray, min_peak_dbfs: float) -> None:
    if not np.isfinite(waveform).all():
        raise BadAudioError(SkipReason.NOT_FINITE, "NaN or infinite samples")
    peak = float(np.abs(waveform).max())
    if peak < 10 ** (min_peak_dbfs / 20):
        raise BadAudioError(SkipReason.SILENT, f"peak {20 * math.log10(peak):.0f} dBFS" if peak else "all zeros")


def _piece_id(recording: Recording, segment: Segment, frame_rate: float) -> str:
    start = recording.offset + segment.keep_from / frame_rate if segment.keep_from else None
    end = None if segment.keep_to is None else recording.offset + segment.keep_to / frame_rate
    if start is None and end is None:
        return recording.id
    if end is None and recording.duration is not None:
        end = recording.offset + recording.duration
    return piece_id(recording.id, recording.offset if start is None else start, end)


def _make_piece(id: str, recording: Recording, segment: Segment, waveform: np.ndarray, frame_rate: float) -> Piece:
    keep_from = segment.keep_from - segment.first_frame
    keep_to = None if segment.keep_to is None else segment.keep_to - segment.first_frame
    if segment.keep_from == 0 and segment.keep_to is None:
        return Piece(id, waveform, keep_from, keep_to, recording.text, recording.aligned_text)
    words = recording.aligned_text and _words_between(
        recording.aligned_text,
        segment.keep_from / frame_rate,
        math.inf if segment.keep_to is None else segment.keep_to / frame_rate,
    )
    return Piece(id, waveform, keep_from, keep_to, None, words)


def _words_between(words: list[dict[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    """The words whose middle is between two times, timed from the first of them; not those without a time."""
    timed = (word for word in words if None not in (word["start_time"], word["end_time"]))
    return [
        {"word": word["word"], "start_time": word["start_time"] - start, "end_time": word["end_time"] - start}
        for word in timed
        if start <= (word["start_time"] + word["end_time"]) / 2 < end
    ]
