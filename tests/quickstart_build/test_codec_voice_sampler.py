import numpy as np
import torch
from quickstart import speech_bank
from quickstart.codec import voice_sampler


def test_the_vocoder_hears_a_voice_augmented_and_between_pauses_and_learns_it_as_it_is(tiny_codec, tmp_path):
    rng = np.random.default_rng(0)
    utterances = [
        speech_bank.Utterance(0.1 * rng.standard_normal(640 * length), 16_000, "", length == 40, "a")
        for length in (50, 40, 60)
    ]
    speech_bank.write_bank(tmp_path, "a", utterances)
    bank = speech_bank.SpeechBank(tmp_path, "a")
    units = voice_sampler.encode_versions(tiny_codec, bank)
    assert units.shape == (1 + voice_sampler.NUM_AUGMENTED, 50 + 40 + 60 + 6 * voice_sampler.PAUSE_FRAMES)
    padded = np.pad(bank.waveform(1), voice_sampler.PAUSE_FRAMES * 640)
    start = 50 + 2 * voice_sampler.PAUSE_FRAMES
    clean = tiny_codec.encode(torch.from_numpy(padded)[None]).audio_codes[0, 0].numpy()
    np.testing.assert_array_equal(units[0, start : start + len(clean)], clean)

    numbers = np.stack([np.arange(units.shape[1]), -np.arange(units.shape[1])])
    sampler = voice_sampler.VoiceSampler(bank, numbers, seed=0)
    assert [sequence.tolist() for sequence in sampler.sequences()[:2]] == [
        [*range(voice_sampler.PAUSE_FRAMES, voice_sampler.PAUSE_FRAMES + 50)],
        [*range(-voice_sampler.PAUSE_FRAMES, -voice_sampler.PAUSE_FRAMES - 50, -1)],
    ]
    waveforms = [np.pad(bank.waveform(i), voice_sampler.PAUSE_FRAMES * 640) for i in range(3)]
    whole = np.concatenate(waveforms).reshape(-1, 640)
    frames, waveforms = sampler.batch()
    for positions, waveform in zip(frames.abs(), waveforms, strict=True):
        np.testing.assert_array_equal(waveform.reshape(-1, 640), whole[positions])
