"""Codecs on encoders other than HuBERT: what holds for HuBERT holds for each of them."""

import itertools

import numpy as np
import pytest
import torch
from test_modeling_hubert_unit_codec import encode_alone, encode_together, make_clips
from tiny_encoders import ENCODERS, WAVEFORM, make_encoder
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    PreTrainedModel,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    SEWModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from slam_hf import HubertUnitCodec, HubertUnitCodecConfig, modeling_hubert_unit_codec
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.modeling_unit_hifigan import UnitHifiGan


LENGTHS = (16_000, 7_000, 1_500, 12_345, 900, 7_001)


def expected_inputs(encoder: PreTrainedModel, clip: torch.Tensor, do_normalize: bool = False) -> torch.Tensor:
    """What the encoder's own feature extractor makes of a padded clip."""
    if encoder.config.model_type == "wav2vec2-bert":
        extractor = SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20)
        padded = torch.nn.functional.pad(clip, (120, 120)).numpy()
        return extractor([padded], sampling_rate=16_000, pad_to_multiple_of=None, return_tensors="pt").input_features
    if do_normalize:
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
        clip = torch.from_numpy(extractor(clip.numpy(), sampling_rate=16_000).input_values[0])
    return torch.nn.functional.pad(clip[None], (40, 40))


@torch.no_grad()
def expected_states(encoder: PreTrainedModel, clip: torch.Tensor, layer: int, do_normalize: bool = False):
    inputs = expected_inputs(encoder, clip, do_normalize)
    return encoder(inputs, output_hidden_states=True).hidden_states[layer][0]


def make_codec(encoder: PreTrainedModel, layer: int = 2, **settings) -> HubertUnitCodec:
    """A codec whose centroids are states of the encoder, so that it uses all of its units."""
    states = expected_states(encoder, make_clips(30_000)[0], layer, settings.get("do_normalize", False))
    return HubertUnitCodec.from_parts(encoder, states[:: len(states) // 20][:20], layer=layer, **settings)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(modeling_hubert_unit_codec, "_BATCH_SECONDS", 2)


@pytest.mark.parametrize("name", ENCODERS)
def test_units_are_the_centroids_nearest_to_the_states_of_the_layer(name):
    encoder = make_encoder(name)
    codec = make_codec(encoder)
    # The feature extractor of a wav2vec2-BERT computes the logarithm of a spectrum in float32.
    tolerance = {"rtol": 0, "atol": 5e-4 if codec.config.takes_filter_bank else 1e-5}
    assert codec.config.layer == len(codec.encoder.encoder.layers) == 2
    for clip in make_clips(*LENGTHS):
        states = expected_states(encoder, clip, 2)
        assert len(states) == len(clip) // codec.config.hop_length
        units = encode_alone(codec, clip)
        assert units == torch.cdist(states.double(), codec.codebook.double()).argmin(dim=1).tolist()
        (own,) = codec.hidden_states(clip[None], layers=[1, 2])
        torch.testing.assert_close(own[1], states, **tolerance)
        torch.testing.assert_close(own[0], expected_states(encoder, clip, 1), **tolerance)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("do_normalize", [False, True])
def test_units_and_states_do_not_depend_on_the_batch(name, do_normalize, small_batches):
    codec = make_codec(make_encoder(name), do_normalize=do_normalize)
    clips = make_clips(*LENGTHS)
    alone = [encode_alone(codec, clip) for clip in clips]
    assert len(set(itertools.chain(*alone))) > 8
    for batched in (False, True):
        assert encode_together(codec, clips, batched=batched) == alone
        assert encode_together(codec, clips[::-1], padding_value=0.5, batched=batched) == alone[::-1]
        assert encode_together(codec, clips[1:4], padding_value=float("nan"), batched=batched) == alone[1:4]
    longest = max(LENGTHS)
    batch = torch.stack([torch.nn.functional.pad(clip, (0, longest - len(clip)), value=3.0) for clip in clips])
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    for clip, states in zip(clips, codec.hidden_states(batch, mask, layers=[1, 2], batched=True), strict=True):
        (expected,) = codec.hidden_states(clip[None], layers=[1, 2])
        torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_saved_codec_is_the_same(name, tmp_path):
    codec = make_codec(make_encoder(name))
    codec.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is HubertUnitCodec and type(loaded.encoder) is type(codec.encoder)
    (clip,) = make_clips(9_000)
    assert encode_alone(loaded, clip) == encode_alone(codec, clip)
    assert describe_codec(loaded).weights == describe_codec(codec).weights


def test_clips_are_normalised_as_the_encoder_is_used_to():
    encoder = make_encoder("wav2vec2, stable")
    codec = make_codec(encoder, do_normalize=True)
    (clip,) = make_clips(9_000)
    (states,) = codec.hidden_states(clip[None] * 0.01 + 0.1)
    expected = expected_states(encoder, clip * 0.01 + 0.1, 2, do_normalize=True)
    torch.testing.assert_close(states[0], expected, rtol=0, atol=1e-4)
    assert encode_alone(codec, clip) == encode_alone(codec, 3 * clip + 0.5)
    plain = HubertUnitCodec.from_parts(encoder, codec.codebook, layer=2)
    assert encode_alone(plain, clip) != encode_alone(plain, 3 * clip + 0.5)
    assert describe_codec(plain).weights != describe_codec(codec).weights


@pytest.mark.parametrize(
    ("name", "extractor", "normalises"),
    [
        ("wav2vec2", Wav2Vec2FeatureExtractor(do_normalize=True), True),
        ("wavlm", Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=24_000), False),
        ("hubert", Wav2Vec2FeatureExtractor(do_normalize=True), False),
        ("wav2vec2-bert, rotary", SeamlessM4TFeatureExtractor(feature_size=40, num_mel_bins=40, stride=1), False),
    ],
)
def test_the_settings_of_an_encoder_come_from_its_feature_extractor(name, extractor, normalises, tmp_path):
    make_encoder(name).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    codec = HubertUnitCodec.from_parts(tmp_path, np.ones((5, 32)), layer=1)
    assert (codec.config.do_normalize, codec.sampling_rate) == (normalises, extractor.sampling_rate)
    if name.startswith("wav2vec2-bert"):
        assert (codec.frame_rate, codec.config.feature_stride, codec.config.pad) == (100, 1, 120)
        assert len(encode_alone(codec, torch.ones(1_759))) == 10


@pytest.mark.parametrize(
    ("name", "frame_rate", "hop_length", "receptive_field", "pad"),
    [
        ("wav2vec2", 50, 320, 400, 40),
        ("wav2vec2 at 25 Hz", 25, 640, 720, 40),
        ("wav2vec2-bert, rotary", 50, 320, 560, 120),
    ],
)
def test_frames_follow_from_the_configuration(name, frame_rate, hop_length, receptive_field, pad):
    config = HubertUnitCodecConfig(encoder_config=make_encoder(name).config)
    assert (config.frame_rate, config.hop_length, config.pad) == (frame_rate, hop_length, pad)
    assert config.receptive_field == receptive_field
    codec = HubertUnitCodec(config).eval()
    for num_samples in (hop_length, 2 * hop_length - 1, 2 * hop_length, 7 * hop_length + 13):
        assert len(encode_alone(codec, torch.randn(num_samples))) == num_samples // hop_length
    with pytest.raises(ValueError, match=f"Clip 0 has {hop_length - 1} samples; a single frame takes {hop_length}"):
        codec.encode(torch.zeros(1, hop_length - 1))


def test_a_filter_bank_in_a_batch_is_that_of_a_silent_clip_alone():
    codec = make_codec(make_encoder("wav2vec2-bert, rotary"))
    clips = [torch.zeros(4_000), 1e-6 * torch.randn(3_000), 0.1 + torch.zeros(2_000)]
    assert encode_together(codec, clips, 0.5, batched=True) == [encode_alone(codec, clip) for clip in clips]


@pytest.mark.parametrize("name", ["wav2vec2-conformer, rotary", "wav2vec2-bert, rotary"])
def test_cached_positions_do_not_outlive_a_change_of_type(name):
    codec = make_codec(make_encoder(name))
    (clip,) = make_clips(9_000)
    units = encode_alone(codec, clip)
    codec.encoder.to(torch.float64)
    codec.double().codebook.data = codec.codebook.float()
    assert encode_alone(codec, clip) == units


class StrangeConfig(Wav2Vec2Config):
    model_type = "strange-encoder"


class StrangeModel(Wav2Vec2Model):
    config_class = StrangeConfig


class BackwardsModel(Wav2Vec2Model):
    """An encoder whose lower layers depend on how many there are."""

    config_class = StrangeConfig

    def forward(self, input_values, **kwargs):
        return super().forward(input_values**self.config.num_hidden_layers, **kwargs)


@pytest.fixture
def register(monkeypatch):
    AutoConfig.register(StrangeConfig.model_type, StrangeConfig, exist_ok=True)
    return lambda model: AutoModel.register(StrangeConfig, model, exist_ok=True)


def test_an_unknown_encoder_takes_clips_one_by_one_and_says_so(register, caplog, monkeypatch):
    register(StrangeModel)
    monkeypatch.setattr(modeling_hubert_unit_codec.logger, "warning_once", modeling_hubert_unit_codec.logger.warning)
    torch.manual_seed(0)
    codec = make_codec(StrangeModel(StrangeConfig(**WAVEFORM)).eval())
    clips = make_clips(*LENGTHS)
    alone = [encode_alone(codec, clip) for clip in clips]
    monkeypatch.setattr(modeling_hubert_unit_codec.logger, "propagate", True)
    assert encode_together(codec, clips, batched=True) == alone
    assert "states of a 'strange-encoder' is not known: clips go through the encoder one by one" in caplog.text
    assert codec.batch_shape(12_345, batched=True) == (1, 12_345)


def test_an_unknown_encoder_that_cannot_be_cut_is_refused(register):
    register(BackwardsModel)
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="without the layers above 2 has other states in this layer"):
        make_codec(BackwardsModel(StrangeConfig(**WAVEFORM)).eval())


def test_an_encoder_that_joins_frames_is_refused():
    config = SEWConfig(
        **{**WAVEFORM, "squeeze_factor": 2, "conv_kernel": [10, *[3] * 4, 2, 2]}, conv_stride=[5, *[2] * 6]
    )
    with pytest.raises(
        ValueError, match=r"'sew' makes states of shape \(25, 32\) of a second, and a codec needs \(50"
    ):
        HubertUnitCodec.from_parts(SEWModel(config).eval(), np.ones((5, 32)), layer=2)


@pytest.mark.parametrize(
    "encoder",
    [
        WhisperEncoder(WhisperConfig(d_model=16, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2)),
        BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)),
    ],
    ids=["whisper", "bert"],
)
def test_models_without_a_state_for_each_frame_are_refused(encoder):
    model_type = encoder.config.model_type
    with pytest.raises(ValueError, match=f"on a model of type '{model_type}': it has no hidden state for each frame"):
        HubertUnitCodec.from_parts(encoder, np.ones((5, 16)), layer=1)
    with pytest.raises(ValueError, match=f"on a model of type '{model_type}'"):
        HubertUnitCodecConfig(encoder_config=encoder.config)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"layer": 4}, "`layer` must be from 1 to 3, wavlm's last; got 4"),
        ({"kmeans": np.ones((5, 33))}, r"shape \(5, 33\) and wavlm's states 32"),
        ({"sampling_rate": 24_000}, "320 samples at 16000 Hz of a frame, and the encoder a frame of 320 at 24000"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    vocoder = UnitHifiGan(
        UnitHifiGanConfig(num_units=5, unit_embed_dim=8, upsample_initial_channel=32, upsample_rates=[5, 4, 4, 2, 2])
    )
    with pytest.raises(ValueError, match=message):
        HubertUnitCodec.from_parts(
            **{"hubert": make_encoder("wavlm"), "kmeans": np.ones((5, 32)), "layer": 2, "vocoder": vocoder, **parts}
        )


def test_a_feature_stride_that_does_not_divide_the_features_is_refused():
    with pytest.raises(ValueError, match="must divide the encoder's 40 features; got 3"):
        HubertUnitCodecConfig(encoder_config=make_encoder("wav2vec2-bert, rotary").config, feature_stride=3)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_attention_can_be_chosen_where_the_encoder_has_the_choice(name, tmp_path):
    make_codec(make_encoder(name)).save_pretrained(tmp_path)
    codec = HubertUnitCodec.from_pretrained(tmp_path)
    if name.startswith("wavlm"):
        with pytest.raises(ValueError, match="WavLMModel does not support an attention implementation through torch"):
            HubertUnitCodec.from_pretrained(tmp_path, attn_implementation="sdpa")
    clips, implementations = make_clips(*LENGTHS[:3]), ("eager",) if name.startswith("wavlm") else ("eager", "sdpa")
    for implementation in implementations:
        chosen = HubertUnitCodec.from_pretrained(tmp_path, attn_implementation=implementation)
        assert chosen.encoder.config._attn_implementation == implementation
        for batched in (False, True):
            expected = encode_together(codec, clips, batched=batched)
            assert encode_together(chosen, clips, batched=batched) == expected


def test_the_vocoder_takes_the_attention_of_the_encoder(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path)
    codec = HubertUnitCodec.from_pretrained(tmp_path, attn_implementation="eager")
    codec.set_attn_implementation("sdpa")
    assert codec.encoder.config._attn_implementation == "sdpa"
