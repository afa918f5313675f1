import math

import pytest
import torch

from slam_hf.codec_training.discriminators import Discriminators, PeriodDiscriminator
from slam_hf.codec_training.vocoder_losses import LogMel, StftLoss, adversarial_losses, discriminator_loss


def test_log_mel_is_that_of_hifi_gan():
    log_mel = LogMel(16_000)
    waveforms = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)[None] * torch.tensor([[0.5], [0.25]])
    mel = log_mel(waveforms)
    assert mel.shape == (2, 80, 16_000 // 256)
    # Half the amplitude is log 2 less in each band of the tone.
    torch.testing.assert_close(mel[0].max(dim=0).values - mel[1].max(dim=0).values, torch.full((62,), math.log(2)))
    centers = (log_mel.bands * torch.linspace(0, 8000, 513)).sum(dim=1) / log_mel.bands.sum(dim=1)
    assert abs(centers[mel[0, :, 30].argmax()] - 1000) < 40
    torch.testing.assert_close(log_mel(torch.zeros(1, 2048)), torch.full((1, 80, 8), math.log(1e-5)), atol=1.0, rtol=0)
    assert (LogMel(24_000).size, LogMel(22_050).size) == (2048, 1024)


def test_stft_loss_of_the_same_is_zero_and_of_silence_is_not():
    torch.manual_seed(0)
    waveforms = torch.randn(2, 4096)
    loss = StftLoss()
    assert loss(waveforms, waveforms) == 0
    assert loss(waveforms / 2, waveforms).item() == pytest.approx(3 * (0.5 + math.log(2)), rel=1e-3)


def test_losses_of_the_game():
    real, made = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 0.5]])
    features = [torch.tensor([[2.0], [5.0]]), torch.tensor([[1.0], [1.0]])]
    judgements = [(torch.cat([real, made]), features), (torch.cat([real, made]), [])]
    assert discriminator_loss(judgements).item() == pytest.approx(2 * (0.25 / 2 + 0.25 / 2))
    adversarial, matching = adversarial_losses(judgements)
    assert adversarial.item() == pytest.approx(2 * (1 + 0.25) / 2)
    assert matching.item() == pytest.approx(3.0)


def test_features_of_real_waveforms_are_no_way_to_learn():
    real, made = torch.ones(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    features = torch.cat([real, made])
    adversarial_losses([(features, [features])])[1].backward()
    assert made.grad.any() and not real.grad.any()


def test_the_published_discriminators_have_71_million_parameters():
    discriminators = Discriminators()
    weights = {name: weight for name, weight in discriminators.named_parameters()}
    gains = sum(weight.numel() for name, weight in weights.items() if name.endswith("weight.original0"))
    assert (sum(weight.numel() for weight in weights.values()) - gains) // 10**5 == 707
    assert len(discriminators.state_dict()) > len(weights)  # the spectral norm of the first scale has a state


def test_a_discriminator_of_periods_sees_rows_of_its_period():
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(3, 4)
    waveforms = torch.randn(1, 60)
    changed = waveforms.clone()
    changed[0, ::3] += 1  # the first of its three columns
    scores, features = discriminator(waveforms)
    other, _ = discriminator(changed)
    assert scores.shape == (1, 3 * math.ceil(20 / 81))
    difference = (scores - other).unflatten(1, (-1, 3)).abs().amax(dim=1)[0]
    assert difference[0] > 0 and not difference[1:].any()
    assert len(features) == 6


def test_every_discriminator_judges():
    judgements = Discriminators(4)(torch.randn(2, 1920))
    assert len(judgements) == 8
    assert all(scores.shape[0] == 2 and scores.isfinite().all() for scores, _ in judgements)
