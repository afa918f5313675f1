"""The same speech in other conditions, under which good units stay the same."""

import hashlib

import torch
from torchaudio.functional import add_noise, fftconvolve, speed


SNR_DB = 10.0
REVERBERATION_SECONDS = 0.4
"""Time in which the echo falls by 60 dB."""
SPEED = 1.1


def disturb(id: str, waveform: torch.FloatTensor, sampling_rate: int) -> dict[str, torch.FloatTensor]:
    r"""
    Versions of a recording: with white noise 10 dB below the speech, in a room whose echo takes 0.4 s to fall by
    60 dB, and played 1.1 times as fast. They depend on the id and the waveform alone.

    Args:
        id (`str`):
            Name of the recording.
        waveform (`torch.FloatTensor` of shape `(num_samples,)`):
            The recording.
        sampling_rate (`int`):
            Its sampling rate, in Hz.

    Returns:
        `dict`: the versions, `noise`, `reverberation` and `speed`. The first two have the length of the recording.
    """
    seed = int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogateescape")).digest()[:7], "little")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(waveform), generator=generator)
    times = torch.arange(int(REVERBERATION_SECONDS * sampling_rate)) / sampling_rate
    echo = torch.randn(len(times), generator=generator) * 10 ** (-3 * times / REVERBERATION_SECONDS)
    echo = 0.5 * echo / echo.norm()  # a quarter of the power of the direct sound
    echo[0] = 1.0
    reverberant = fftconvolve(waveform, echo)[: len(waveform)]
    return {
        "noise": add_noise(waveform, noise, torch.tensor(SNR_DB)),
        "reverberation": reverberant * waveform.norm() / reverberant.norm().clamp(min=1e-9),
        "speed": speed(waveform, sampling_rate, SPEED)[0],
    }
