"""What holds for trained units and not for random ones: on the package's codec and recordings of people."""

import numpy as np
import pytest
import torch

from slam_hf import load_audio
from slam_hf.processing_speech_lm import load_codec


@pytest.fixture(scope="module")
def codec():
    return load_codec("quickstart:codec")


@pytest.fixture(scope="module")
def waveforms(recordings) -> list[torch.Tensor]:
    return [torch.from_numpy(load_audio(path, 16_000)[:96_000]) for path in recordings]


def units_of(codec, waveform: torch.Tensor) -> torch.Tensor:
    return codec.encode(waveform[None]).audio_codes[0, 0]


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first == second).float().mean().item()


def energies(waveform: torch.Tensor, num_frames: int) -> np.ndarray:
    """Log energy of each frame of 40 ms."""
    return waveform[: num_frames * 640].reshape(num_frames, 640).square().mean(1).add(1e-6).log().numpy()


def test_units_of_speech_do_not_depend_on_the_batch(codec, waveforms):
    clips = [waveforms[0], waveforms[1][:40_000]]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.tensor([[1] * 96_000, [1] * 40_000 + [0] * 56_000])
    encoded = codec.encode(padded, mask)
    for clip, codes, length in zip(clips, encoded.audio_codes[:, 0], encoded.lengths, strict=True):
        assert torch.equal(codes[:length], units_of(codec, clip))


def test_units_stay_when_speech_is_quieter_or_later(codec, waveforms):
    for waveform in waveforms:
        units = units_of(codec, waveform)
        assert agreement(units_of(codec, waveform / 2), units) > 0.95
        later = torch.cat([torch.zeros(640), waveform])
        assert agreement(units_of(codec, later)[1:], units) > 0.95


def test_speech_has_many_units_and_silence_few(codec, waveforms):
    used = [set(units_of(codec, waveform).tolist()) for waveform in waveforms]
    silence = set(units_of(codec, torch.zeros(32_000)).tolist())
    assert all(len(units) > 60 for units in used)
    assert len(silence) < 10


def test_resynthesised_speech_pauses_where_the_original_does(codec, waveforms):
    for waveform in waveforms:
        frames = units_of(codec, waveform)
        units, durations = codec.deduplicate(frames)
        with torch.no_grad():
            resynthesised = codec.decode(units[None], durations[None]).audio_values[0, 0]
        assert len(resynthesised) == 640 * len(frames)
        both = np.corrcoef(energies(waveform, len(frames)), energies(resynthesised, len(frames)))
        assert both[0, 1] > 0.7


def test_predicted_durations_are_those_of_speech(codec, waveforms):
    for waveform in waveforms:
        units, _ = codec.deduplicate(units_of(codec, waveform))
        assert 0.6 < codec.decode(units[None]).audio_values.shape[-1] / len(waveform) < 1.4
