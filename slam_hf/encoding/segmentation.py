"""Cuts long recordings into pieces while they are read, so that memory holds one piece at a time."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np


PAUSE_SECONDS = 0.3
"""Length of a pause between phrases. The closure of a stop consonant is less than half as long."""


@dataclass(frozen=True)
class Segmentation:
    r"""
    How long recordings are cut into pieces. Cuts fall on frames of the codec (multiples of 1 / frame rate), so the
    pieces of a recording have as many units as the recording.

    Args:
        max_seconds (`float`, *optional*, defaults to 40.0):
            Maximum length of a piece. Recordings up to this length stay whole; with the default, every utterance of
            LibriSpeech does.
        cut (`str`, *optional*, defaults to `"silence"`):
            `"silence"`: at the middle of the quietest 0.3 seconds in the second half of the longest possible piece.
            An energy threshold would depend on the recording's level and noise, and leaves a recording without
            silence uncut; the quietest place always exists. (`torchaudio.functional.vad` finds only where speech
            first begins.)
            `"fixed"`: every `max_seconds`.
        overlap_seconds (`float`, *optional*, defaults to 0.0):
            Overlap of neighbouring `"fixed"` pieces, in seconds.
        overlap (`str`, *optional*, defaults to `"repeat"`):
            What happens to the units of the overlap. `"repeat"`: they are in both pieces. `"context"`: each piece
            keeps its half of them, and the other half only serves the encoder as context; together, the pieces have
            the units of the recording, each once.
    """

    max_seconds: float = 40.0
    cut: Literal["silence", "fixed"] = "silence"
    overlap_seconds: float = 0.0
    overlap: Literal["repeat", "context"] = "repeat"

    def __post_init__(self):
        if self.cut not in ("silence", "fixed"):
            raise ValueError(f"`cut` must be 'silence' or 'fixed', got {self.cut!r}.")
        if self.overlap not in ("repeat", "context"):
            raise ValueError(f"`overlap` must be 'repeat' or 'context', got {self.overlap!r}.")
        if not 1.0 <= self.max_seconds < math.inf:
            raise ValueError(f"`max_seconds` must be at least 1 and finite, got {self.max_seconds}.")
        if not 0.0 <= self.overlap_seconds <= self.max_seconds / 2:
            raise ValueError(f"`overlap_seconds` must be from 0 to half of `max_seconds`, got {self.overlap_seconds}.")
        if self.overlap_seconds > 0.0 and self.cut != "fixed":
            raise ValueError("Pieces that end at silences do not overlap: pass `cut='fixed'`, or no overlap.")


@dataclass(frozen=True)
class Segment:
    """A piece of a recording at its own sampling rate. Positions are in frames of the codec.

    `first_frame` is where the waveform begins, and `keep_from` and `keep_to` bound the frames whose units the piece
    keeps: all of them, unless the rest is context. `keep_to` is `None` where the recording ends.
    """

    waveform: np.ndarray
    first_frame: int
    keep_from: int
    keep_to: int | None


def cut_segments(
    blocks: Iterable[np.ndarray], sampling_rate: int, frame_rate: float, rule: Segmentation
) -> Iterator[Segment]:
    """Cut a mono waveform, given as consecutive blocks of shape `(samples,)`, into segments of at most
    `rule.max_seconds`. Where they do not overlap, their waveforms put together are the input."""

    def sample(frame: int) -> int:
        return round(frame * sampling_rate / frame_rate)

    longest = int(rule.max_seconds * frame_rate)
    overlap = round(rule.overlap_seconds * frame_rate)
    # Frames of the overlap that the later piece leaves to the earlier one, and the earlier one to the later one.
    left = overlap // 2 if rule.overlap == "context" else 0
    right = overlap - left if rule.overlap == "context" else 0
    read, samples = [np.zeros(0, dtype=np.float32)], 0
    first, keep_from = 0, 0
    for block in blocks:
        read.append(block)
        samples += len(block)
        if samples <= rule.max_seconds * sampling_rate:
            continue
        buffer = np.concatenate(read)
        while len(buffer) > rule.max_seconds * sampling_rate:
            edges = np.array([sample(first + frame) - sample(first) for frame in range(longest + 1)])
            length = longest if rule.cut == "fixed" else _middle_of_quietest_pause(buffer, edges, frame_rate)
            yield Segment(buffer[: edges[length]], first, keep_from, first + length - right)
            buffer = buffer[edges[length - overlap] :]
            first += length - overlap
            keep_from = first + left
        read, samples = [buffer], len(buffer)
    yield Segment(np.concatenate(read), first, keep_from, None)


def _middle_of_quietest_pause(waveform: np.ndarray, edges: np.ndarray, frame_rate: float) -> int:
    """The frame edge in the middle of the quietest pause in the second half of the frames that `edges` bound."""
    pause = max(2, round(PAUSE_SECONDS * frame_rate))
    half = (len(edges) - 1) // 2
    squares = np.square(waveform[edges[half] : edges[-1]], dtype=np.float64)
    energies = np.add.reduceat(squares, edges[half:-1] - edges[half])
    return half + int(np.convolve(energies, np.ones(pause), "valid").argmin()) + pause // 2
