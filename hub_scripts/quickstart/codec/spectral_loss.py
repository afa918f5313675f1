"""Distance between waveforms in log-magnitude spectrograms of several resolutions, and in mel bands."""

import torch
from torch import nn
from torchaudio.functional import melscale_fbanks


FFT_SIZES = (128, 512, 1024)


class SpectralLoss(nn.Module):
    r"""
    Multi-resolution STFT loss (https://huggingface.co/papers/1910.11480): spectral convergence and L1 distance of log
    magnitudes for each FFT size, at a quarter of it as hop, and the L1 distance of 80 log mel bands (weight 2).
    """

    def __init__(self):
        super().__init__()
        for size in FFT_SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
        bands = melscale_fbanks(FFT_SIZES[-1] // 2 + 1, 0.0, 8_000.0, 80, 16_000)
        self.register_buffer("bands", bands, persistent=False)

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of waveforms of shape `(batch_size, num_samples)`."""
        loss = predicted.new_zeros(())
        for size in FFT_SIZES:
            ours, theirs = self._magnitude(predicted, size), self._magnitude(target, size)
            convergence = (theirs - ours).norm() / theirs.norm().clamp(min=1e-5)
            loss = loss + convergence + nn.functional.l1_loss(ours.log(), theirs.log())
        ours, theirs = (self.bands.T @ magnitude for magnitude in (ours, theirs))
        return loss + 2 * nn.functional.l1_loss(ours.clamp(min=1e-4).log(), theirs.clamp(min=1e-4).log())

    def _magnitude(self, waveforms: torch.Tensor, size: int) -> torch.Tensor:
        window = getattr(self, f"window_{size}")
        spectrum = torch.stft(waveforms, size, size // 4, window=window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-7).sqrt()
