import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from slam_hf.codec_training import vocoder_samples
from slam_hf.codec_training.vocoder_losses import LogMel
from slam_hf.codec_training.vocoder_samples import measure_resynthesis, resynthesize, word_error_rates
from slam_hf.codec_training.voice_recordings import Voice


def make_voice(text=None, speaker=None, frames=20, seed=0) -> Voice:
    rng = np.random.default_rng(seed)
    samples = rng.integers(-3000, 3000, 640 * frames).astype(np.int16)
    units = np.repeat(rng.integers(0, 50, (1, frames // 2)), 2, axis=1).astype(np.uint16)
    return Voice("a", text, speaker, None, units, samples)


def test_the_voice_of_the_recording_speaks(voices_codec):
    voice = make_voice(speaker="ben")
    units = torch.from_numpy(voice.units.astype(np.int64))
    expected = voices_codec.vocoder(units, torch.ones_like(units), "ben")[0].detach()
    assert np.array_equal(resynthesize(voices_codec, voice), expected.numpy())
    runs = voices_codec.deduplicate(units[0])[0]
    expected = voices_codec.decode(runs[None], speaker_id="ben").audio_values[0, 0].detach()
    assert np.array_equal(resynthesize(voices_codec, voice, predict_durations=True), expected.numpy())
    assert len(resynthesize(voices_codec, make_voice(frames=300))) == 10 * 16_000


def test_measures_are_means_over_the_recordings(tiny_codec):
    voices = [make_voice(seed=seed) for seed in range(3)]
    log_mel = LogMel(16_000)
    figures = measure_resynthesis(tiny_codec, voices, [0, 2], log_mel, Accelerator(cpu=True))
    AcceleratorState._reset_state(reset_partial_state=True)
    losses, errors, runs = [], 0, 0
    for voice in (voices[0], voices[2]):
        made, real = torch.from_numpy(resynthesize(tiny_codec, voice)), torch.from_numpy(voice.waveform())
        losses.append((log_mel(made[None]) - log_mel(real[None])).abs().mean().item())
        units, durations = tiny_codec.deduplicate(torch.from_numpy(voice.units[0].astype(np.int64)))
        errors += (tiny_codec.vocoder.predict_durations(units[None])[0] - durations).abs().sum().item()
        runs += len(units)
    assert figures == {
        "eval_mel_loss": pytest.approx(np.mean(losses), rel=1e-5),
        "eval_duration_error": pytest.approx(errors / runs),
    }


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Go home, Ann!", "the red dog"], {"recordings": 1 / 6, "resynthesis": 3 / 6, "predicted durations": 1.0}),
        ([None, None], {"resynthesis": 3 / 6, "predicted durations": 1.0}),
    ],
)
def test_word_error_rates(tiny_codec, monkeypatch, texts, expected):
    heard = iter([["go home ann", "the red cat"], ["go home", "a red"], ["", "the read dogs cat"]])
    if texts[0] is None:
        heard = iter([["Go home, Ann.", "the red dog"], ["go home", "a red"], ["", "the read dogs cat"]])
    monkeypatch.setattr(vocoder_samples, "transcribe_waveforms", lambda waveforms, *args: next(heard))
    voices = [make_voice(text) for text in texts]
    assert word_error_rates(tiny_codec, voices, [0, 1], None) == pytest.approx(expected)


def test_no_words_have_no_error_rate(tiny_codec, monkeypatch):
    monkeypatch.setattr(vocoder_samples, "transcribe_waveforms", lambda waveforms, *args: [" "] * len(waveforms))
    assert word_error_rates(tiny_codec, [make_voice()], [0], None) == {}
