"""Utterances of one voice: one file of samples, and a manifest of the excerpts, which every script of the package
takes too (`--layout manifest`)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from slam_hf.atomic_write import atomic_write


SAMPLING_RATE = 16_000
HOP_LENGTH = 640

PAUSE_SECONDS = 0.64
"""Silence before and after each utterance in the file."""


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


class SpeechBank:
    r"""
    Utterances at 16 kHz, read from `<folder>/<voice>.wav` and `<voice>.jsonl`.

    Args:
        folder (`Path`):
            Where [`write_bank`] put them.
        voice (`str`):
            Name of the bank.
        max_hours (`float`, *optional*):
            Leave out the utterances that end after so many hours of speech.
    """

    def __init__(self, folder: Path, voice: str, max_hours: float = float("inf")):
        self.folder, self.voice = folder, voice
        rows = [json.loads(line) for line in (folder / f"{voice}.jsonl").read_text().splitlines()]
        ends = np.cumsum([row["duration"] for row in rows])
        self.rows = [row for row, end in zip(rows, ends, strict=True) if end <= max_hours * 3600]
        num_frames = [round(row["duration"] * SAMPLING_RATE) // HOP_LENGTH for row in self.rows]
        self.frame_offsets = np.cumsum([0, *num_frames])

    def num_frames(self, index: int) -> int:
        """Whole frames of 40 ms of an utterance."""
        return int(self.frame_offsets[index + 1] - self.frame_offsets[index])

    def waveform(self, index: int) -> np.ndarray:
        """Samples of an utterance: float32, cut to whole frames."""
        row = self.rows[index]
        with soundfile.SoundFile(self.folder / row["path"]) as file:
            file.seek(round(row["offset"] * SAMPLING_RATE))
            return file.read(self.num_frames(index) * HOP_LENGTH, dtype="float32")

    def frames(self, index: int) -> slice:
        """Position of an utterance's frames among those of the whole bank."""
        return slice(self.frame_offsets[index], self.frame_offsets[index + 1])

    def indices(self, held_out: bool) -> list[int]:
        """Utterances that are, or are not, held out."""
        return [index for index, row in enumerate(self.rows) if row["held_out"] is held_out]

    def speakers(self) -> np.ndarray:
        """Who speaks in each frame."""
        return np.repeat([row["speaker"] for row in self.rows], np.diff(self.frame_offsets))

    def training_frames(self) -> np.ndarray:
        """Whether each frame may be trained on."""
        return np.repeat([not row["held_out"] for row in self.rows], np.diff(self.frame_offsets))

    @property
    def hours(self) -> float:
        """`float`: Length of the bank."""
        return sum(row["duration"] for row in self.rows) / 3600


def write_bank(folder: Path, voice: str, utterances: Iterable[Utterance], max_hours: float = float("inf")) -> None:
    """Write a bank, up to a number of hours. The manifest comes last: where it exists, the bank is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLING_RATE), np.float32)
    rows, seconds = [], 0.0
    with soundfile.SoundFile(folder / f"{voice}.wav", "w", SAMPLING_RATE, channels=1, subtype="PCM_16") as file:
        file.write(pause)
        for utterance in utterances:
            samples = utterance.samples
            if utterance.sampling_rate != SAMPLING_RATE:
                samples = soxr.resample(samples, utterance.sampling_rate, SAMPLING_RATE)
            row = {"path": f"{voice}.wav", "id": f"{voice}/{len(rows):06d}", "offset": file.tell() / SAMPLING_RATE}
            row |= {"duration": len(samples) / SAMPLING_RATE, "text": utterance.text, "speaker": utterance.speaker}
            row |= {"aligned_text": _with_starts(utterance.phones), "held_out": utterance.held_out}
            rows.append(row)
            file.write(samples * (0.7 / max(1e-4, float(np.abs(samples).max()))))
            file.write(pause)
            seconds += row["duration"]
            if seconds >= 3600 * max_hours:
                break
    write_rows(folder / f"{voice}.jsonl", rows)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows of banks as a manifest in the banks' folder."""
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def with_pauses(row: dict[str, Any]) -> dict[str, Any]:
    """The row of an utterance with the silence before and after it."""
    bounds = {"offset": row["offset"] - PAUSE_SECONDS, "duration": row["duration"] + 2 * PAUSE_SECONDS}
    return row | bounds | {"aligned_text": None}


def _with_starts(phones: list[tuple[str, float]] | None) -> list[dict[str, Any]] | None:
    """Phones as the words of a manifest: each begins where the one before it ends."""
    if phones is None:
        return None
    starts = [0.0, *(end for _, end in phones)]
    return [
        {"word": phone, "start_time": start, "end_time": end}
        for start, (phone, end) in zip(starts, phones, strict=False)
    ]
