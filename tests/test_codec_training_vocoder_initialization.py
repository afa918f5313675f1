from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from slam_hf import HubertUnitCodec
from slam_hf.codec_training.vocoder_initialization import adapt_vocoder, load_vocoder, new_vocoder, with_vocoder
from slam_hf.codec_training.voice_recordings import Voice
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan


FIXTURES = Path(__file__).parent / "fixtures" / "unit-hifigan"
UNITS = torch.tensor([[3, 7, 28, 28]])
FRAMES = torch.ones_like(UNITS)


@pytest.fixture
def earlier(tiny_codec):
    """A vocoder of the settings given, over the units of `tiny_codec`."""

    def make(**settings) -> UnitHifiGan:
        torch.manual_seed(0)
        values = tiny_codec.config.vocoder_config.to_dict() | {"initializer_range": 0.1} | settings
        return UnitHifiGan(UnitHifiGanConfig(**values)).eval()

    return make


def test_a_new_vocoder_fits_the_codec_and_is_not_silent(tiny_codec):
    vocoder = new_vocoder(tiny_codec, {"upsample_initial_channel": 32}, ["ann", "ben"], ["calm"], seed=1)
    config = vocoder.config
    assert (config.num_units, config.sampling_rate, config.hop_length) == (50, 16_000, 640)
    assert (config.speaker_names, config.style_names, config.num_styles) == (["ann", "ben"], ["calm"], 1)
    waveform = vocoder(UNITS, FRAMES)
    assert waveform.std() > 1e-4
    again, other = (
        new_vocoder(tiny_codec, {"upsample_initial_channel": 32}, ["ann", "ben"], ["calm"], seed) for seed in (1, 2)
    )
    assert torch.equal(again(UNITS, FRAMES), waveform)
    assert not torch.equal(other(UNITS, FRAMES), waveform)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4]},
            "makes 8 samples .* take rates whose product is 640",
        ),
        ({"upsample_rates": [4, 2], "upsample_kernel_sizes": [8]}, "`vocoder_config` is not a configuration"),
        ({"sampling_rate": 22_050}, "makes 640 samples at 22,050 Hz"),
    ],
)
def test_a_vocoder_for_other_frames_is_refused(tiny_codec, values, message):
    with pytest.raises(ValueError, match=message):
        new_vocoder(tiny_codec, values, [], [], 0)


def test_a_vocoder_is_loaded_from_every_form(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    tiny_codec.vocoder.save_pretrained(tmp_path / "vocoder")
    expected = tiny_codec.vocoder(UNITS, FRAMES)
    for name, config in (
        (tmp_path / "codec", None),
        (tmp_path / "vocoder", None),
        (FIXTURES / "g_00500000", str(FIXTURES / "config.json")),
    ):
        vocoder, of_codec = load_vocoder(str(name), config, tiny_codec)
        assert torch.equal(vocoder(UNITS, FRAMES), expected)
        assert of_codec is None  # the same units


def test_a_vocoder_that_cannot_be_continued_is_refused(tiny_codec, tiny_model, earlier, tmp_path):
    with pytest.raises(ValueError, match="name the JSON file that comes with it, `init_config`"):
        load_vocoder(str(FIXTURES / "g_00500000"), None, tiny_codec)
    earlier(num_units=51).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="speaks 51 units, and the codec has 50"):
        load_vocoder(str(tmp_path / "other"), None, tiny_codec)
    tiny_model.save_pretrained(tmp_path / "model")
    with pytest.raises(
        ValueError, match="a model of type 'speech_language_model': expected a codec or a unit HiFi-GAN"
    ):
        load_vocoder(str(tmp_path / "model"), None, tiny_codec)
    config = type(tiny_codec.config).from_dict({**tiny_codec.config.to_dict(), "vocoder_config": None})
    HubertUnitCodec(config).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="is a codec without a vocoder"):
        load_vocoder(str(tmp_path / "encoder"), None, tiny_codec)


def test_a_vocoder_of_one_voice_begins_with_this_voice_for_each_speaker(tiny_codec, earlier):
    before = earlier()
    vocoder = adapt_vocoder(before, tiny_codec, None, None, ["ann", "ben"], ["calm"])
    assert vocoder.config.speaker_names == ["ann", "ben"]
    for speaker in ("ann", "ben"):
        torch.testing.assert_close(vocoder(UNITS, FRAMES, speaker), before(UNITS, FRAMES), atol=1e-6, rtol=1e-5)
    # Its speakers can become different: the new inputs learn from the first step on.
    vocoder(UNITS, FRAMES, "ben").square().sum().backward()
    assert vocoder.hifi_gan.conv_pre.weight.grad[:, vocoder.config.unit_embed_dim :].any()


@pytest.mark.parametrize("styles", [[], ["calm", "loud"]])
def test_known_speakers_keep_their_voice(tiny_codec, earlier, styles):
    before = earlier(num_speakers=3, speaker_names=["ann", "ben", "cleo"])
    vocoder = adapt_vocoder(before, tiny_codec, None, None, ["dora", "cleo"], styles)
    torch.testing.assert_close(vocoder(UNITS, FRAMES, "cleo"), before(UNITS, FRAMES, "cleo"), atol=1e-6, rtol=1e-5)
    mean = before.speaker_embedding.weight.mean(dim=0)
    torch.testing.assert_close(vocoder.speaker_embedding.weight[0], mean)


def test_styles_stay_where_speakers_come(tiny_codec, earlier):
    before = earlier(num_styles=2, style_names=["calm", "loud"])
    vocoder = adapt_vocoder(before, tiny_codec, None, None, ["ann", "ben"], ["loud", "calm"])
    for style in ("calm", "loud"):
        expected = before(UNITS, FRAMES, style_id=style)
        torch.testing.assert_close(vocoder(UNITS, FRAMES, "ben", style), expected, atol=1e-6, rtol=1e-5)


def test_speakers_without_names_keep_their_numbers_or_become_one(tiny_codec, earlier):
    before = earlier(num_speakers=2)
    vocoder = adapt_vocoder(before, tiny_codec, None, None, ["ann", "ben"], [])
    assert torch.equal(vocoder(UNITS, FRAMES, "ben"), before(UNITS, FRAMES, 1))
    one = adapt_vocoder(before, tiny_codec, None, None, [], [])
    assert one.config.num_speakers == 1
    torch.testing.assert_close(one.speaker_embedding.weight[0], before.speaker_embedding.weight.mean(dim=0))


def test_other_units_begin_with_the_mean_embedding_of_the_same_frames(tiny_codec, earlier, recordings):
    from slam_hf import load_audio

    waveform = load_audio(recordings[0], 16_000)[: 640 * 100]
    theirs = tiny_codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0]
    ours = torch.arange(100) % 4  # units of another codec
    samples = (waveform * 2**15).round().astype(np.int16)
    voice = Voice("a", None, None, None, ours[None].numpy().astype(np.uint16), samples)
    before = earlier()
    vocoder = adapt_vocoder(before, tiny_codec, tiny_codec, [voice], [], [])
    theirs = tiny_codec.encode(torch.from_numpy(voice.waveform())[None]).audio_codes[0, 0]
    embeddings = before.unit_embedding.weight[theirs]
    for unit in range(4):
        torch.testing.assert_close(vocoder.unit_embedding.weight[unit], embeddings[ours == unit].mean(dim=0))
    torch.testing.assert_close(vocoder.unit_embedding.weight[40], embeddings.mean(dim=0))


def test_a_codec_gets_a_vocoder_without_a_copy_of_its_encoder(tiny_codec, earlier, tmp_path):
    before = tiny_codec.vocoder
    vocoder = earlier(num_speakers=2, speaker_names=["ann", "ben"])
    codec = with_vocoder(tiny_codec, vocoder)
    assert codec.encoder is tiny_codec.encoder
    assert (tiny_codec.vocoder, tiny_codec.config.vocoder_config.num_speakers) == (before, 0)
    codec.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    expected = vocoder(UNITS[:, :3], vocoder.predict_durations(UNITS[:, :3]), "ben")
    assert torch.equal(loaded.decode(UNITS[:, :3], speaker_id="ben").audio_values[:, 0], expected)
