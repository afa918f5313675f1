"""Utterances of one voice, in one file of samples and one of rows: cheap to write once and to read at random."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr


SAMPLING_RATE = 16_000
HOP_LENGTH = 640


@dataclass
class Utterance:
    r"""
    One utterance.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`):
            The waveform, float between -1 and 1.
        sampling_rate (`int`):
            Its sampling rate, in Hz.
        text (`str`):
            What is said; empty where it is not known.
        held_out (`bool`):
            Whether no training may see it.
        speaker (`str`):
            Who speaks: a voice, or one of the people in a collection of recordings.
        phones (`list`, *optional*):
            `(phone, end in seconds)` pairs, where the synthesiser gives them.
    """

    samples: np.ndarray
    sampling_rate: int
    text: str
    held_out: bool
    speaker: str
    phones: list[tuple[str, float]] | None = None


@dataclass
class Row:
    """Where an utterance lies in the bank, and what is known about it."""

    start: int
    num_samples: int
    text: str
    held_out: bool
    speaker: str
    phones: list[tuple[str, float]] | None = None

    @property
    def num_frames(self) -> int:
        """`int`: Whole frames of 40 ms."""
        return self.num_samples // HOP_LENGTH


class SpeechBank:
    r"""
    Utterances at 16 kHz, read from `<folder>/<voice>.npy` (int16, memory-mapped) and `<voice>.json`.

    Args:
        folder (`Path`):
            Where [`write_bank`] put them.
        voice (`str`):
            Name of the bank.
        max_hours (`float`, *optional*):
            Leave out the utterances that end after so many hours.
    """

    def __init__(self, folder: Path, voice: str, max_hours: float = float("inf")):
        self.voice = voice
        self.samples = np.load(folder / f"{voice}.npy", mmap_mode="r")
        rows = [Row(**row) for row in json.loads((folder / f"{voice}.json").read_text())]
        max_samples = max_hours * 3600 * SAMPLING_RATE
        self.rows = [row for row in rows if row.start + row.num_samples <= max_samples]
        self.frame_offsets = np.cumsum([0] + [row.num_frames for row in self.rows])

    def waveform(self, index: int) -> np.ndarray:
        """Samples of an utterance: float32, cut to whole frames."""
        row = self.rows[index]
        samples = self.samples[row.start : row.start + row.num_frames * HOP_LENGTH]
        return samples.astype(np.float32) / 32768

    def frames(self, index: int) -> slice:
        """Position of an utterance's frames among those of the whole bank."""
        return slice(self.frame_offsets[index], self.frame_offsets[index + 1])

    def indices(self, held_out: bool) -> list[int]:
        """Utterances that are, or are not, held out."""
        return [index for index, row in enumerate(self.rows) if row.held_out is held_out]

    def speakers(self) -> np.ndarray:
        """Who speaks in each frame."""
        return np.repeat([row.speaker for row in self.rows], [row.num_frames for row in self.rows])

    def training_frames(self) -> np.ndarray:
        """Whether each frame may be trained on."""
        return np.repeat([not row.held_out for row in self.rows], [row.num_frames for row in self.rows])

    @property
    def hours(self) -> float:
        """`float`: Length of the bank."""
        return sum(row.num_samples for row in self.rows) / SAMPLING_RATE / 3600


def write_bank(folder: Path, voice: str, utterances: Iterable[Utterance], max_hours: float = float("inf")) -> None:
    """Write a bank, up to a number of hours. The file of rows comes last: where it exists, the bank is complete."""
    blocks, rows, position = [], [], 0
    for utterance in utterances:
        samples = utterance.samples
        if utterance.sampling_rate != SAMPLING_RATE:
            samples = soxr.resample(samples, utterance.sampling_rate, SAMPLING_RATE)
        samples = samples * (0.7 / max(1e-4, float(np.abs(samples).max())))
        blocks.append((samples * 32767).astype(np.int16))
        row = Row(position, len(samples), utterance.text, utterance.held_out, utterance.speaker, utterance.phones)
        rows.append(asdict(row))
        position += len(samples)
        if position / SAMPLING_RATE / 3600 >= max_hours:
            break
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{voice}.npy", np.concatenate(blocks))
    temporary = folder / f"{voice}.json.tmp"
    temporary.write_text(json.dumps(rows))
    temporary.rename(folder / f"{voice}.json")
