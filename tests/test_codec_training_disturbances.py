import pytest
import torch

from slam_hf.codec_training.disturbances import disturb


def tone(seconds: float = 1.0, sampling_rate: int = 16_000) -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(int(seconds * sampling_rate)) * 0.3)


def test_versions_depend_on_the_id_and_the_waveform_alone():
    first, second, other = disturb("a", tone(), 16_000), disturb("a", tone(), 16_000), disturb("b", tone(), 16_000)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["noise"], other["noise"])
    assert torch.equal(first["speed"], other["speed"])


def test_noise_lies_10_db_below_the_speech():
    noise = disturb("a", tone(), 16_000)["noise"] - tone()
    assert 10 * torch.log10(tone().square().mean() / noise.square().mean()) == pytest.approx(10.0, abs=1e-3)


def test_an_echo_follows_a_click_and_fades():
    click = torch.zeros(16_000)
    click[1_000] = 1.0
    echo = disturb("a", click, 16_000)["reverberation"]
    assert echo[:1_000].abs().max() < 1e-6
    early, late = (echo[1_001 + start : 1_001 + start + 800].square().sum() for start in (0, 3_200))
    # 60 dB in 0.4 s: 30 dB in the 0.2 s between the two.
    assert 10 * torch.log10(early / late) == pytest.approx(30, abs=2)
    assert echo.norm() == pytest.approx(1.0, abs=1e-4)


def test_speed_shortens_the_recording():
    assert len(disturb("a", tone(1.1), 16_000)["speed"]) == pytest.approx(16_000, abs=2)


def test_silence_stays_finite():
    assert all(version.isfinite().all() for version in disturb("a", tone() * 0 + 1e-12, 16_000).values())
