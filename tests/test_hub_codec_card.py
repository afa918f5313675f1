from pathlib import Path

import pytest

from slam_hf import HubertUnitCodec
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.remote_code import export_remote_code


def save(codec: HubertUnitCodec, folder: Path) -> Path:
    codec.save_pretrained(folder)
    return folder


def test_the_figures_are_those_of_the_codec(tmp_path, tiny_codec):
    folder = save(tiny_codec, tmp_path)
    card = render_codec_card(folder, "user/my-codec", license="mit")
    encoder = sum(weight.numel() for weight in tiny_codec.encoder.state_dict().values())
    vocoder = sum(weight.numel() for weight in tiny_codec.vocoder.state_dict().values())
    for row in (
        "| units | 50 |",
        "| frames per second | 25, of 640 samples |",
        "| sampling rate | 16,000 Hz, mono |",
        f"| encoder | HuBERT, output of layer 3, {encoder:,} parameters |",
        f"| codebook | 50 centroids of {tiny_codec.config.encoder_config.hidden_size} values |",
        f"| vocoder | unit HiFi-GAN, {vocoder:,} parameters, one voice, predicts durations |",
    ):
        assert row in card.text
    assert card.text.startswith("\n# my-codec\n")
    assert "speech = codec.decode(units[None])" in card.text
    assert (card.data.license, card.data.library_name) == ("mit", "transformers")
    assert str(tmp_path) not in str(card)


def test_a_codec_without_vocoder_only_encodes(tmp_path, tiny_codec):
    config = type(tiny_codec.config).from_dict({**tiny_codec.config.to_dict(), "vocoder_config": None})
    card = render_codec_card(save(HubertUnitCodec(config), tmp_path), "user/my-codec")
    assert "This codec has no vocoder: it can encode, but not decode." in card.text
    assert "| vocoder |" not in card.text
    assert "codec.decode(" not in card.text
    assert "No license was given" in card.text


def test_the_voices_are_named(tmp_path, voices_codec):
    text = render_codec_card(save(voices_codec, tmp_path), "user/my-codec").text
    assert ", 2 voices, 2 styles, predicts durations |" in text
    assert "- `speaker_id` (a number or a name; the first is the default): `anna`, `ben`.\n" in text
    assert "- `style_id` (a number or a name; the first is the default): `calm`, `loud`.\n" in text
    assert "`codec.decode(units[None], speaker_id='ben')` chooses one" in text


def test_voices_without_names_have_numbers(tmp_path, tiny_codec, voices_codec):
    config = type(voices_codec.config).from_dict(voices_codec.config.to_dict())
    config.vocoder_config.speaker_names, config.vocoder_config.num_styles = None, 0
    config.vocoder_config.style_names = None
    text = render_codec_card(save(HubertUnitCodec(config), tmp_path), "user/my-codec").text
    assert "the first is the default): `0` to `1`.\n" in text
    assert "`codec.decode(units[None], speaker_id=1)`" in text
    assert "## Voices" not in render_codec_card(save(tiny_codec, tmp_path / "one"), "user/my-codec").text


def test_remote_code_is_shown_where_it_is_there(tmp_path, tiny_codec):
    folder = save(tiny_codec, tmp_path)
    export_remote_code(folder)
    assert "trust_remote_code=True)" in render_codec_card(folder, "user/my-codec").text


def test_a_folder_without_weights_has_no_card(tmp_path, tiny_codec):
    tiny_codec.config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no safetensors file"):
        render_codec_card(tmp_path, "user/my-codec")
