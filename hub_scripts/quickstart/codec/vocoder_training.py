"""Trains the vocoder of one voice: the generator on spectral losses, and then the duration predictor."""

from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slam_hf import HubertUnitCodec
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan

from ..speech_bank import HOP_LENGTH, SpeechBank
from .augmentation import augment
from .encoding import encode
from .spectral_loss import SpectralLoss
from .timed_training import train_for


CROP_FRAMES = 48
BATCH_SIZE = 8
BATCHES_PER_STEP = 2

NUM_AUGMENTED = 2
"""Versions of the speech in other vocal tracts, rooms and noise. From their units too the vocoder learns to say it in
its own voice: other people's recordings have units that clean speech of one voice never has."""

PAUSE_FRAMES = 16
"""Silence before and after each utterance: in noise it has units of its own, and the vocoder must be silent."""


def vocoder_config(num_units: int) -> UnitHifiGanConfig:
    r"""
    3 million parameters. Most layers work at 50 to 200 Hz, where a CPU can afford wide ones: the last step, from 1 to
    16 kHz, is a single transposed convolution, which like an inverse STFT lays out what was worked out before.
    """
    return UnitHifiGanConfig(
        num_units=num_units,
        upsample_initial_channel=512,
        upsample_rates=(2, 2, 2, 5, 16),
        upsample_kernel_sizes=(4, 4, 4, 11, 32),
        resblock_type=2,
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3), (1, 3)),
    )


def make_vocoder(num_units: int) -> UnitHifiGan:
    r"""
    An untrained vocoder. Its convolutions start as PyTorch's do: the small weights that HiFi-GAN starts from suit its
    weight normalisation, without which twenty layers of them would give silence.
    """
    torch.manual_seed(0)
    vocoder = UnitHifiGan(vocoder_config(num_units))
    for module in vocoder.hifi_gan.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
    nn.init.normal_(vocoder.unit_embedding.weight)
    return vocoder


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


def train_generator(
    vocoder: UnitHifiGan, sampler: VoiceSampler, minutes: float, checkpoint: Path, peak_rate: float, final_rate: float
) -> dict[str, float]:
    r"""
    Train the generator and the unit embeddings for a given CPU time.

    Args:
        vocoder ([`UnitHifiGan`]):
            The vocoder, trained in place.
        sampler ([`VoiceSampler`]):
            The training data.
        minutes (`float`):
            CPU minutes to train.
        checkpoint (`Path`):
            File for the state; training goes on from it where it exists.
        peak_rate, final_rate (`float`):
            The learning rate falls from one to the other linearly in time, after 100 steps of warm-up.

    Returns:
        `dict`: steps, CPU minutes and the last loss.
    """
    spectral_loss = SpectralLoss()
    weights = [*vocoder.hifi_gan.parameters(), vocoder.unit_embedding.weight]
    optimizer = torch.optim.AdamW(weights, betas=(0.8, 0.99), weight_decay=0.0)

    def compute_loss() -> torch.Tensor:
        units, waveforms = sampler.batch()
        with torch.autocast("cpu", torch.bfloat16):
            predicted = vocoder.hifi_gan(vocoder.unit_embedding(units).transpose(1, 2))
        return spectral_loss(predicted.float(), waveforms)

    def learning_rate(share: float, step: int) -> float:
        return (final_rate + (peak_rate - final_rate) * max(0.0, 1 - share)) * min(1.0, (step + 1) / 100)

    return train_for(minutes, vocoder, optimizer, compute_loss, learning_rate, 5.0, checkpoint, BATCHES_PER_STEP)


def train_durations(vocoder: UnitHifiGan, sequences: list[np.ndarray], steps: int = 600) -> float:
    r"""
    Train the duration predictor on the embeddings as they are, by squared error of log(1 + frames).

    Args:
        vocoder ([`UnitHifiGan`]):
            The vocoder, whose duration predictor is trained in place.
        sequences (`list[np.ndarray]`):
            The unit of each frame, for each utterance.
        steps (`int`, *optional*, defaults to 600):
            Steps of 16 utterances.

    Returns:
        `float`: mean loss of the last 200 steps.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    runs = [[(int(unit), len(list(frames))) for unit, frames in groupby(sequence)] for sequence in sequences]
    predictor = vocoder.duration_predictor.train()
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        batch = [torch.tensor(runs[index]) for index in rng.integers(0, len(runs), 16)]
        padded = nn.utils.rnn.pad_sequence(batch, batch_first=True)
        known = padded[..., 1] > 0
        embeds = vocoder.unit_embedding(padded[..., 0]).detach()
        predicted = predictor(embeds, padding_mask=known)
        loss = nn.functional.mse_loss(predicted[known], padded[..., 1][known].float().log1p())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    predictor.eval()
    return float(np.mean(losses[-200:]))
