"""Trains the vocoder of one voice: first the generator, on spectral losses, then the duration predictor."""

from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan

from .spectral_loss import SpectralLoss
from .timed_training import train_for
from .voice_sampler import VoiceSampler


BATCHES_PER_STEP = 2


def vocoder_config(num_units: int) -> UnitHifiGanConfig:
    r"""
    3 million parameters. Most layers work at 50 to 200 Hz, where a CPU can afford wide ones: the last step, from 1 to
    16 kHz, is a single transposed convolution, which works like an inverse STFT.
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
            File for the state. Training resumes from it if it exists.
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
