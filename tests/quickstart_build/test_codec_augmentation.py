import numpy as np
import pytest
from quickstart.codec import augmentation


def test_speed_changes_length():
    waveform = np.arange(100, dtype=np.float32)
    np.testing.assert_allclose(augmentation.change_speed(waveform, 2.0), np.arange(0, 99, 2))
    assert augmentation.change_speed(waveform, 1.0) is waveform


def test_augmentation_is_reproducible_and_keeps_length():
    waveform = np.sin(np.arange(16_000) / 10).astype(np.float32)
    first, second = (augmentation.augment(waveform, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == waveform.shape and np.isfinite(first).all()


def test_formants_move_and_the_pitch_stays():
    # A pulse train at 100 Hz through a resonance at 2 kHz.
    pulses = np.zeros(16_000, np.float32)
    pulses[::160] = 1.0
    time = np.arange(400) / 16_000
    resonance = np.exp(-800 * time) * np.sin(2 * np.pi * 2_000 * time)
    waveform = np.convolve(pulses, resonance)[:16_000].astype(np.float32)

    moved = augmentation._reshape_spectrum(waveform, 1.15, np.zeros(7))

    power = np.square(np.abs(np.fft.rfft(np.stack([waveform, moved]))))
    harmonics = power[:, 100:8_000:100]
    assert (100 * (1 + harmonics.argmax(axis=1))).tolist() == [2_000, 2_300]
    assert (harmonics.sum(axis=1) > 0.95 * power[:, 50:].sum(axis=1)).all()


def test_gains_along_frequency_are_in_decibels():
    waveform = np.sin(2 * np.pi * 4_000 * np.arange(16_000) / 16_000).astype(np.float32)
    louder = augmentation._reshape_spectrum(waveform, 1.0, np.array([0, 0, 0, 6, 0, 0, 0]))
    assert louder[2_000:-2_000].std() / waveform[2_000:-2_000].std() == pytest.approx(10 ** (6 / 20), rel=0.02)
