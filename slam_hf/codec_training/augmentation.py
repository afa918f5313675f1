"""Versions of a recording as another person in another place might have said it."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


WINDOW = 512
HOP = 128
NUM_CEPSTRA = 24
"""Quefrencies of a spectral envelope at 16 kHz: those below the shortest pitch period."""


@dataclass(frozen=True)
class Augmentation:
    r"""
    Simulates another vocal tract, microphone, room and background: each effect in a share of the recordings. The
    length and the power stay. The result depends on the number, and on the id and the waveform of the recording.

    Args:
        number (`int`):
            Number of the version.
    """

    number: int

    def __call__(self, id: str, waveform: np.ndarray) -> np.ndarray:
        """The version of a waveform at 16 kHz, of shape `(samples,)`."""
        seed = hashlib.sha256(f"{self.number} {id}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        power = waveform.std() + 1e-5
        augmented = waveform
        if rng.random() < 0.6:
            augmented = _reshape_spectrum(augmented, rng.uniform(0.85, 1.18), rng.uniform(-6, 6, 7))
        if rng.random() < 0.25:
            decay = np.exp(-np.arange(3_200) / rng.uniform(80, 800))
            augmented = _filter(augmented, np.concatenate([[1.0], 0.3 * rng.standard_normal(3_200) * decay]))
        if rng.random() < 0.15:
            augmented = _low_pass(augmented, rng.uniform(3_200, 7_000))
        augmented = augmented / (augmented.std() + 1e-5)
        if rng.random() < 0.6:
            noise = rng.standard_normal(len(augmented))
            if rng.random() < 0.5:
                noise = _filter(noise, 0.97 ** np.arange(200))
            augmented = augmented + noise / noise.std() * 10 ** (-rng.uniform(12, 40) / 20)
        return (power * augmented / (augmented.std() + 1e-5)).astype(np.float32)


def _reshape_spectrum(waveform: np.ndarray, stretch: float, gains: np.ndarray) -> np.ndarray:
    """Move the formants to `stretch` times their frequency, at the same pitch; add gains (dB) along frequency."""
    if len(waveform) <= WINDOW:
        return waveform
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(torch.from_numpy(waveform), WINDOW, HOP, window=window, return_complex=True)
    cepstrum = torch.fft.irfft((spectrum.abs() + 1e-5).log(), dim=0)
    cepstrum[NUM_CEPSTRA + 1 : -NUM_CEPSTRA] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real
    bins = len(envelope)
    sources = torch.arange(bins) / stretch
    below = sources.long().clamp(max=bins - 2)
    share = (sources - below).clamp(max=1)[:, None]
    moved = envelope[below] * (1 - share) + envelope[below + 1] * share
    equalizer = np.interp(np.arange(bins), np.linspace(0, bins - 1, len(gains)), gains) * np.log(10) / 20
    spectrum *= (moved - envelope + torch.from_numpy(equalizer).float()[:, None]).exp()
    return torch.istft(spectrum, WINDOW, HOP, window=window, length=len(waveform)).numpy()


def _filter(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = 2 ** int(np.ceil(np.log2(len(waveform) + len(response))))
    return np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]


def _low_pass(waveform: np.ndarray, cutoff: float) -> np.ndarray:
    spectrum = np.fft.rfft(waveform)
    spectrum[int(cutoff / 8_000 * len(spectrum)) :] = 0
    return np.fft.irfft(spectrum, len(waveform))
