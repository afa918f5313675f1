"""The discriminators of HiFi-GAN (https://huggingface.co/papers/2010.05646): of periods, and of scales."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


PERIODS = (2, 3, 5, 7, 11)
NUM_SCALES = 3
SLOPE = 0.1

Judgement = tuple[torch.Tensor, list[torch.Tensor]]
"""The scores that a discriminator gives to waveforms, and what its layers have computed on the way."""


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample of a waveform as a row of its own."""

    def __init__(self, period: int, width: int):
        super().__init__()
        self.period = period
        channels = (1, width, 4 * width, 16 * width, 32 * width)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (3, 1), padding=(2, 0)))
            for before, after in pairwise(channels)
        )
        self.convs.append(weight_norm(nn.Conv2d(channels[-1], channels[-1], (5, 1), padding=(2, 0))))
        self.conv_post = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveforms: torch.Tensor) -> Judgement:
        """Judge waveforms of shape `(batch_size, num_samples)`."""
        padded = nn.functional.pad(waveforms[:, None], (0, -waveforms.shape[1] % self.period), "reflect")
        return _judge(padded.unflatten(2, (-1, self.period)), self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Sees a waveform as it is, or smoothed."""

    def __init__(self, width: int, norm=weight_norm):
        super().__init__()
        # Channels before and after, kernel size, stride and groups of each layer.
        layers = (
            (1, 4 * width, 15, 1, 1),
            (4 * width, 4 * width, 41, 2, 4),
            (4 * width, 8 * width, 41, 2, 16),
            (8 * width, 16 * width, 41, 4, 16),
            (16 * width, 32 * width, 41, 4, 16),
            (32 * width, 32 * width, 41, 1, 16),
            (32 * width, 32 * width, 5, 1, 1),
        )
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(before, after, kernel, stride, padding=kernel // 2, groups=groups))
            for before, after, kernel, stride, groups in layers
        )
        self.conv_post = norm(nn.Conv1d(32 * width, 1, 3, padding=1))

    def forward(self, waveforms: torch.Tensor) -> Judgement:
        """Judge waveforms of shape `(batch_size, num_samples)`."""
        return _judge(waveforms[:, None], self.convs, self.conv_post)


class Discriminators(nn.Module):
    r"""
    The five discriminators of periods and the three of scales: the waveform, and its means over 4 samples, once and
    twice.

    Args:
        width (`int`, *optional*, defaults to 32):
            Channels of the first layer of those of periods, a multiple of 4. The others have up to 32 times as many.
            The published ones have 32: 71 million parameters.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, width) for period in PERIODS)
        self.scales = nn.ModuleList(
            ScaleDiscriminator(width, weight_norm if scale else spectral_norm) for scale in range(NUM_SCALES)
        )
        self.smooth = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, waveforms: torch.Tensor) -> list[Judgement]:
        """Judge waveforms of shape `(batch_size, num_samples)`: a judgement by each discriminator."""
        judgements = [discriminator(waveforms) for discriminator in self.periods]
        for scale, discriminator in enumerate(self.scales):
            if scale:
                waveforms = self.smooth(waveforms[:, None])[:, 0]
            judgements.append(discriminator(waveforms))
        return judgements


def _judge(hidden_states: torch.Tensor, convs: nn.ModuleList, conv_post: nn.Module) -> Judgement:
    features = []
    for conv in convs:
        hidden_states = nn.functional.leaky_relu(conv(hidden_states), SLOPE)
        features.append(hidden_states)
    scores = conv_post(hidden_states)
    return scores.flatten(1), [*features, scores]
