"""Augmentation of waveforms at 16 kHz, on NumPy arrays."""

import numpy as np


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play a waveform `speed` times as fast: its tempo, pitch and formants change together."""
    if speed == 1.0:
        return waveform
    positions = np.arange(0, len(waveform) - 1, speed)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)


def augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another microphone, room and background: each effect in a share of the waveforms; the result has unit power."""
    if rng.random() < 0.5:
        waveform = _filter(waveform, np.array([1.0, *rng.uniform(-0.45, 0.45, 2)]))
    if rng.random() < 0.25:
        decay = np.exp(-np.arange(3_200) / rng.uniform(80, 800))
        waveform = _filter(waveform, np.concatenate([[1.0], 0.3 * rng.standard_normal(3_200) * decay]))
    if rng.random() < 0.15:
        waveform = _low_pass(waveform, rng.uniform(3_200, 7_000))
    waveform = waveform / (waveform.std() + 1e-5)
    if rng.random() < 0.6:
        noise = rng.standard_normal(len(waveform))
        if rng.random() < 0.5:
            noise = _filter(noise, 0.97 ** np.arange(200))
        waveform = waveform + noise / noise.std() * 10 ** (-rng.uniform(12, 40) / 20)
    return waveform.astype(np.float32)


def _filter(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = 2 ** int(np.ceil(np.log2(len(waveform) + len(response))))
    return np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]


def _low_pass(waveform: np.ndarray, cutoff: float) -> np.ndarray:
    spectrum = np.fft.rfft(waveform)
    spectrum[int(cutoff / 8_000 * len(spectrum)) :] = 0
    return np.fft.irfft(spectrum, len(waveform))
