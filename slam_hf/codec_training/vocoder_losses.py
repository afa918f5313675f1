"""The losses of a vocoder: distances between spectrograms, and those of the game with its discriminators."""

import math

import torch
from torch import nn
from torchaudio.functional import melscale_fbanks

from .discriminators import Judgement


MEL_BANDS = 80
FFT_SIZES = (128, 512, 1024)


class LogMel(nn.Module):
    r"""
    Log mel spectrogram in 80 bands, as HiFi-GAN computes it: windows of about 64 ms, of a power of two samples, at a
    quarter of it as hop. Its mean absolute difference is the mel loss.

    Args:
        sampling_rate (`int`):
            Sampling rate of the waveforms, in Hz.
    """

    def __init__(self, sampling_rate: int):
        super().__init__()
        self.size = 2 ** round(math.log2(0.064 * sampling_rate))
        bands = melscale_fbanks(
            self.size // 2 + 1, 0.0, sampling_rate / 2, MEL_BANDS, sampling_rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("bands", bands.T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Spectrograms of shape `(batch_size, 80, num_windows)` of waveforms of shape `(batch_size, num_samples)`."""
        return (self.bands @ _magnitudes(waveforms, self.window)).clamp(min=1e-5).log()


class StftLoss(nn.Module):
    """Multi-resolution STFT loss (https://huggingface.co/papers/1910.11480): the sum over three window sizes of the
    spectral convergence and the mean absolute difference of log magnitudes."""

    def __init__(self):
        super().__init__()
        for size in FFT_SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Loss of waveforms of shape `(batch_size, num_samples)`."""
        loss = made.new_zeros(())
        for size in FFT_SIZES:
            ours, theirs = (_magnitudes(waveforms, getattr(self, f"window_{size}")) for waveforms in (made, real))
            loss = loss + (theirs - ours).norm() / theirs.norm().clamp(min=1e-5)
            loss = loss + nn.functional.l1_loss(ours.log(), theirs.log())
        return loss


def discriminator_loss(judgements: list[Judgement]) -> torch.Tensor:
    """Least squares: real waveforms, the first half of the batch, should score 1, and those of the vocoder 0."""
    halves = [scores.float().chunk(2) for scores, _ in judgements]
    return sum((1 - real).square().mean() + made.square().mean() for real, made in halves)


def adversarial_losses(judgements: list[Judgement]) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the vocoder: its waveforms, the second half of the batch, should score 1, and the layers of the
    discriminators should compute the same of them as of the real ones (feature matching)."""
    adversarial = sum((1 - scores.float().chunk(2)[1]).square().mean() for scores, _ in judgements)
    pairs = [layer.float().chunk(2) for _, features in judgements for layer in features]
    return adversarial, sum(nn.functional.l1_loss(made, real.detach()) for real, made in pairs)


def _magnitudes(waveforms: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    size = len(window)
    padded = nn.functional.pad(waveforms[:, None], (3 * size // 8, 3 * size // 8), "reflect")[:, 0]
    spectrum = torch.stft(padded, size, size // 4, window=window, center=False, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-9).sqrt()
