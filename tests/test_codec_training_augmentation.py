import numpy as np
import pytest

from slam_hf.codec_training import augmentation
from slam_hf.codec_training.augmentation import Augmentation


def test_a_version_depends_on_its_number_and_the_recording_and_keeps_length_and_power():
    waveform = np.sin(np.arange(16_000) / 10).astype(np.float32)
    versions = [Augmentation(number)("anna/000", waveform) for number in range(8)]
    for number, version in enumerate(versions):
        np.testing.assert_array_equal(Augmentation(number)("anna/000", waveform), version)
        assert version.shape == waveform.shape and version.dtype == np.float32
        assert version.std() == pytest.approx(waveform.std(), rel=1e-3)
    assert sum(np.allclose(version, waveform, atol=0.05) for version in versions) < 3
    assert not np.array_equal(Augmentation(0)("anna/001", waveform), versions[0])


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


@pytest.mark.parametrize("samples", [400, 513, 640])
def test_short_and_silent_recordings_stay_finite(samples):
    waveform = 0.1 * np.sin(np.arange(samples) / 10).astype(np.float32)
    for number in range(20):
        assert np.isfinite(Augmentation(number)("a", waveform)).all()
        assert np.isfinite(Augmentation(number)("a", np.zeros(samples, np.float32))).all()
