"""Training data of the vocoder: crops of one clean voice, with the units of the clean or an augmented version."""

import numpy as np
import torch

from slam_hf import HubertUnitCodec

from ..speech_bank import HOP_LENGTH, SpeechBank
from .augmentation import augment
from .encoding import encode


CROP_FRAMES = 48
BATCH_SIZE = 8

NUM_AUGMENTED = 2
"""Augmented versions of the speech. The vocoder learns to speak their units too in its own voice: recordings of other
people have units that clean speech of one voice never has."""

PAUSE_FRAMES = 16
"""Silence before and after each utterance: noisy silence has units of its own, at which the vocoder must be silent."""


def encode_versions(codec: HubertUnitCodec, bank: SpeechBank) -> np.ndarray:
    r"""
    Encode a voice as it is and augmented, each utterance between pauses.

    Args:
        codec ([`HubertUnitCodec`]):
            The codec.
        bank ([`SpeechBank`]):
            Speech of the voice.

    Returns:
        `np.ndarray` of shape `(1 + NUM_AUGMENTED, num_frames)`: one utterance after the other.
    """
    rng = np.random.default_rng(0)
    versions = []
    for index in range(len(bank.rows)):
        waveform = _with_pauses(bank.waveform(index))
        heard = [waveform, *(augment(waveform, rng) for _ in range(NUM_AUGMENTED))]
        versions.append([encode(codec, version) for version in heard])
    return np.concatenate(versions, axis=1)


def _with_pauses(waveform: np.ndarray) -> np.ndarray:
    return np.pad(waveform, PAUSE_FRAMES * HOP_LENGTH)


class VoiceSampler:
    r"""
    Random crops of a voice with the unit of each frame, from any version of it.

    Args:
        bank ([`SpeechBank`]):
            Speech of the voice.
        units (`np.ndarray` of shape `(num_versions, num_frames)`):
            What [`encode_versions`] made of the bank.
        seed (`int`):
            Seed of the draws.
    """

    def __init__(self, bank: SpeechBank, units: np.ndarray, seed: int):
        ends = np.cumsum([row.num_frames + 2 * PAUSE_FRAMES for row in bank.rows])
        self.bank, self.units = bank, np.split(units, ends[:-1], axis=1)
        self.rng = np.random.default_rng(seed)
        self.utterances = bank.indices(held_out=False)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Units of shape `(8, 48)` and waveforms of shape `(8, 30720)`."""
        crops = [self._crop(index) for index in self.rng.choice(self.utterances, BATCH_SIZE)]
        return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*crops, strict=True))

    def sequences(self) -> list[np.ndarray]:
        """The units of each version of each utterance, without its pauses."""
        return [units[PAUSE_FRAMES:-PAUSE_FRAMES] for index in self.utterances for units in self.units[index]]

    def _crop(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        units = self.rng.choice(self.units[index])
        start = int(self.rng.integers(0, len(units) - CROP_FRAMES + 1))
        waveform = _with_pauses(self.bank.waveform(index))[start * HOP_LENGTH : (start + CROP_FRAMES) * HOP_LENGTH]
        return units[start : start + CROP_FRAMES].astype(np.int64), waveform
