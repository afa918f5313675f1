"""Training data of a vocoder: crops of recordings, with the unit of each frame."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from .voice_recordings import VoiceRecordings


MAX_RUNS = 500
"""The most units of a piece that the durations are learned from at once."""


class VoiceCrops(Dataset):
    r"""
    Random crops. The crop of a number depends on the seed and the number alone, so that the order of the training data
    needs no state, and is the same after an interruption and with any number of processes.

    Args:
        recordings ([`VoiceRecordings`]):
            The recordings.
        indices (sequence of `int`):
            Those to take. Shorter ones than a crop are left out, and every crop of the others is equally likely.
        crop_frames (`int`):
            Frames in a crop.
        hop_length (`int`):
            Samples in a frame.
        seed (`int`):
            Seed of the crops.
        speakers, styles (sequence of `str`):
            The names by number; empty for one speaker or one style.

    Raises:
        ValueError: all recordings are shorter than a crop.
    """

    def __init__(
        self,
        recordings: VoiceRecordings,
        indices: Sequence[int],
        crop_frames: int,
        hop_length: int,
        seed: int,
        speakers: Sequence[str],
        styles: Sequence[str],
    ):
        self.recordings, self.crop_frames, self.hop_length, self.seed = recordings, crop_frames, hop_length, seed
        self.speakers, self.styles = speakers, styles
        num_frames = recordings.num_frames[list(indices)]
        long_enough = num_frames >= crop_frames
        if not long_enough.any():
            raise ValueError(
                f"All {len(num_frames):,} recordings for training are shorter than a crop of {crop_frames} frames: "
                f"the longest has {num_frames.max(initial=0)}. Give longer ones, or a shorter `crop_seconds`."
            )
        self.indices = np.asarray(indices)[long_enough]
        self.num_too_short = int((~long_enough).sum())
        self.ends = np.cumsum(num_frames[long_enough] - crop_frames + 1)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, number))
        position = int(rng.integers(self.ends[-1]))
        row = int(np.searchsorted(self.ends, position, side="right"))
        start = position - (int(self.ends[row - 1]) if row else 0)
        voice = self.recordings[self.indices[row]]
        units = torch.from_numpy(rng.choice(voice.units).astype(np.int64))
        waveform = voice.waveform(start * self.hop_length, (start + self.crop_frames) * self.hop_length)
        runs, durations = torch.unique_consecutive(units, return_counts=True)
        return {
            "units": units[start : start + self.crop_frames],
            "waveforms": torch.from_numpy(waveform),
            "speakers": torch.tensor(self.speakers.index(voice.speaker) if self.speakers else 0),
            "styles": torch.tensor(self.styles.index(voice.style) if self.styles else 0),
            "runs": runs[:MAX_RUNS],
            "durations": durations[:MAX_RUNS],
        }


def make_loader(
    crops: VoiceCrops, batch_size: int, first_step: int, process: int, num_processes: int, num_workers: int
) -> DataLoader:
    """The batches of a process from a step on, without end. Together, the processes have consecutive crops in each."""

    def batches() -> Iterator[range]:
        step = first_step
        while True:
            first = (step * num_processes + process) * batch_size
            yield range(first, first + batch_size)
            step += 1

    return DataLoader(
        crops,
        batch_sampler=batches(),
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


def _collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Batches: `runs` and `durations` are padded, and no unit lasts 0 frames but padding."""
    return {
        name: pad_sequence([row[name] for row in rows], batch_first=True)
        if rows[0][name].ndim
        else torch.stack([row[name] for row in rows])
        for name in rows[0]
    }


def hold_out(recordings: VoiceRecordings, share: float, most: int) -> tuple[list[int], list[int]]:
    r"""
    The recordings to train on, and those held out: a share of each voice that has several, at least one, in an order
    that depends on their ids, until there are `most` of them.

    Raises:
        ValueError: no voice has several recordings.
    """
    voices: dict[tuple[str | None, str | None], list[int]] = {}
    for index, voice in enumerate(zip(recordings.speakers, recordings.styles, strict=True)):
        voices.setdefault(voice, []).append(index)
    ranked = []
    for number, indices in enumerate(voices.values()):
        indices = sorted(indices, key=lambda index: hashlib.sha256(recordings.ids[index].encode()).digest())
        count = min(len(indices) - 1, max(1, round(share * len(indices))))
        ranked += [(rank, number, index) for rank, index in enumerate(indices[:count])]
    if not ranked:
        raise ValueError(
            f"One recording has to be held out from training, and there is only one of each voice ({len(recordings)} "
            "in all): give more or longer recordings, or a `validation_source`."
        )
    held_out = sorted(index for _, _, index in sorted(ranked)[:most])
    return sorted(set(range(len(recordings))) - set(held_out)), held_out
