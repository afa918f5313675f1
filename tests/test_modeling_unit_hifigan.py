import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import ResidualBlock2, UnitHifiGan


def make_vocoder(**settings) -> UnitHifiGan:
    torch.manual_seed(0)
    small = {
        "num_units": 12,
        "unit_embed_dim": 6,
        "duration_hidden_dim": 10,
        "upsample_initial_channel": 8,
        "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 3]],
        "initializer_range": 0.3,
    }
    return UnitHifiGan(UnitHifiGanConfig(**{**small, **settings})).eval()


@pytest.mark.parametrize("resblock_type", [1, 2])
def test_forward_upsamples_repeated_embeddings(resblock_type):
    vocoder = make_vocoder(resblock_type=resblock_type)
    units, durations = torch.tensor([[3, 1, 4], [1, 5, 9]]), torch.tensor([[2, 1, 3], [1, 4, 1]])
    waveforms = vocoder(units, durations)
    assert waveforms.shape == (2, 6 * vocoder.config.hop_length)
    frames = torch.tensor([[3, 3, 1, 4, 4, 4], [1, 5, 5, 5, 5, 9]])
    assert torch.equal(waveforms, vocoder(frames, torch.ones_like(frames)))
    assert torch.equal(waveforms, vocoder.hifi_gan(vocoder.unit_embedding(frames).transpose(1, 2)))


def test_forward_is_differentiable():
    vocoder = make_vocoder(num_speakers=2)
    waveform = vocoder(torch.tensor([[3, 1]]), torch.tensor([[2, 1]]), speaker_id=1)
    waveform.square().sum().backward()
    assert vocoder.unit_embedding.weight.grad[[3, 1]].abs().sum(dim=1).min() > 0
    assert not vocoder.unit_embedding.weight.grad[0].any()
    assert vocoder.speaker_embedding.weight.grad[1].any()
    assert vocoder.hifi_gan.conv_pre.weight.grad[:, :, 3].abs().min() > 0  # the taps that see no padding


def test_residual_block_2_adds_one_convolution_per_dilation():
    torch.manual_seed(0)
    block = ResidualBlock2(channels=2, kernel_size=3, dilations=[1, 3], leaky_relu_slope=0.1)
    expected = inputs = torch.randn(1, 2, 20)
    for conv, dilation in zip(block.convs, (1, 3), strict=True):
        activated = functional.leaky_relu(expected, 0.1)
        expected = expected + functional.conv1d(activated, conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(block(inputs), expected)


def test_speaker_and_style_follow_the_unit_in_the_input():
    vocoder = make_vocoder(num_speakers=3, num_styles=2)
    units = torch.tensor([[3, 1], [3, 1]])
    waveforms = vocoder(units, torch.ones_like(units), speaker_id=torch.tensor([2, 1]), style_id=1)
    for waveform, speaker in zip(waveforms, (2, 1), strict=True):
        inputs = torch.cat(
            [
                vocoder.unit_embedding.weight[[3, 1]],
                vocoder.speaker_embedding.weight[[speaker, speaker]],
                vocoder.style_embedding.weight[[1, 1]],
            ],
            dim=1,
        )
        torch.testing.assert_close(waveform, vocoder.hifi_gan(inputs.T[None])[0])
    first = vocoder(units, torch.ones_like(units))
    assert torch.equal(first, vocoder(units, torch.ones_like(units), speaker_id=0, style_id=0))


def test_voices_have_numbers_and_names():
    vocoder = make_vocoder(num_speakers=3, speaker_names=["anna", "ben", "10"], num_styles=2)
    for speaker, style, expected in (
        (None, None, ([0, 0], [0, 0])),
        ("ben", 1, ([1, 1], [1, 1])),
        (["10", "anna"], [1, 0], ([2, 0], [1, 0])),
        ([2, None], torch.tensor(1), ([2, 0], [1, 1])),
        (torch.tensor([1, 2]), np.int64(1), ([1, 2], [1, 1])),
        ([np.int64(1), torch.tensor(2)], np.array([1, 0]), ([1, 2], [1, 0])),
    ):
        assert vocoder.find_voices(speaker, style, 2) == expected
    assert make_vocoder().find_voices(None, [None, None], 2) == ([None, None], [None, None])
    for speaker, message in (
        ("carla", "from 0 to 2, or one of 'anna', 'ben', '10'; got 'carla'"),
        (10, "got 10"),
        (True, "got True"),
        (np.True_, "got True"),
        ([[0], [1]], r"got \[0\]"),
        (["anna", "ben", "10"], "or one for each of 2 sequences; got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            vocoder.find_voices(speaker, None, 2)


@pytest.mark.parametrize("names", [["anna"], ["anna", "anna"]])
def test_each_speaker_has_a_name_of_its_own(names):
    with pytest.raises(Exception, match="`speaker_names` must hold 2 different names"):
        UnitHifiGanConfig(num_speakers=2, speaker_names=names)


def test_rows_must_last_equally_long():
    with pytest.raises(ValueError, match=r"equally many frames, got \[3, 4\]"):
        make_vocoder()(torch.tensor([[3, 1], [3, 1]]), torch.tensor([[1, 2], [2, 2]]))


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"num_speakers": 3}, {"speaker_id": 3}, "`speaker_id` must be from 0 to 2"),
        ({"num_styles": 3}, {"style_id": -1}, "`style_id` must be from 0 to 2"),
        ({}, {"speaker_id": 0}, "made without `speaker_id`"),
        ({"num_speakers": 3}, {"style_id": 0}, "made without `style_id`"),
    ],
)
def test_unknown_speakers_and_styles_are_refused(settings, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_vocoder(**settings)(torch.tensor([[3, 1]]), torch.tensor([[1, 2]]), **arguments)


def test_durations_are_rounded_to_whole_frames_and_at_least_one():
    vocoder = make_vocoder()
    torch.nn.init.zeros_(vocoder.duration_predictor.proj.weight)
    for frames, expected in ((0.0, 1), (0.4, 1), (1.6, 2), (2.5, 2), (6.7, 7)):
        torch.nn.init.constant_(vocoder.duration_predictor.proj.bias, math.log(frames + 1))
        assert vocoder.predict_durations(torch.tensor([[3, 1, 4]])).tolist() == [[expected] * 3]


def test_vocoder_without_a_duration_predictor_asks_for_durations():
    with pytest.raises(ValueError, match="pass `durations`"):
        make_vocoder(duration_hidden_dim=0).predict_durations(torch.tensor([[3, 1]]))


def test_saved_vocoder_is_the_same(tmp_path):
    vocoder = make_vocoder(num_speakers=3, num_styles=2, resblock_type=2, speaker_names=["a", "b", "c"])
    vocoder.save_pretrained(tmp_path)
    loaded = UnitHifiGan.from_pretrained(tmp_path)
    assert loaded.find_voices("c", None, 1) == ([2], [0])
    units = torch.tensor([[3, 1, 7]])
    durations = vocoder.predict_durations(units)
    assert torch.equal(durations, loaded.predict_durations(units))
    assert torch.equal(vocoder(units, durations, 2, 1), loaded(units, durations, 2, 1))
