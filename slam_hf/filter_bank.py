"""The log mel features that a wav2vec2-BERT takes, for padded batches: each clip has the features it has alone."""

import numpy as np
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank, window_function

from .configuration_hubert_unit_codec import FILTER_BANK
from .padding_utils import is_inside


_WINDOW, _HOP = FILTER_BANK
_FFT = 512
_PREEMPHASIS = 0.97
_SCALE = 2**15
"""The features are those of 16-bit samples."""
_FLOOR = 1.192092955078125e-07


def filter_bank_features(
    waveforms: torch.Tensor, num_samples: torch.LongTensor, num_features: int, stride: int, sampling_rate: int
) -> tuple[torch.FloatTensor, torch.LongTensor]:
    r"""
    Compute what `SeamlessM4TFeatureExtractor` makes of each clip. A last window that does not fill a frame is left
    out.

    Args:
        waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`):
            Clips, padded on the right with anything finite.
        num_samples (`torch.LongTensor` of shape `(batch_size,)`):
            Samples of each clip.
        num_features (`int`):
            Features of a frame.
        stride (`int`):
            Windows that make a frame.
        sampling_rate (`int`):
            Sampling rate, in Hz.

    Returns:
        `tuple`: the features, of shape `(batch_size, num_frames, num_features)`, and the frames of each clip, of shape
        `(batch_size,)`.
    """
    device = waveforms.device
    # In float64: the logarithm of a window that is nearly silent would show the rounding.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    filters = mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=num_features // stride,
        min_frequency=20,
        max_frequency=sampling_rate // 2,
        sampling_rate=sampling_rate,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    window = window_function(_WINDOW, "povey", periodic=False)
    filters, window = (torch.from_numpy(np.asarray(array)).to(device, dtype) for array in (filters, window))

    windows = _SCALE * waveforms.to(dtype).unfold(1, _WINDOW, _HOP)
    windows = windows - windows.mean(dim=2, keepdim=True)
    before = torch.cat([windows[..., :1], windows[..., :-1]], dim=2)
    spectrum = torch.fft.rfft((windows - _PREEMPHASIS * before) * window, _FFT).abs().square()
    features = (spectrum @ filters).clamp(min=_FLOOR).log()

    count = (num_samples - _WINDOW) // _HOP + 1
    valid = is_inside(count, features.shape[1])[..., None]
    count = count[:, None, None]
    centred = (features - features.where(valid, 0).sum(dim=1, keepdim=True) / count).where(valid, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / (count - 1)
    features = (centred / (variance + 1e-7).sqrt()).float()

    num_frames = features.shape[1] // stride
    features = features[:, : num_frames * stride].unflatten(1, (num_frames, stride)).flatten(2)
    return features, count.flatten() // stride


def normalise(clip: torch.Tensor) -> torch.Tensor:
    """A clip with mean 0 and variance 1, as `Wav2Vec2FeatureExtractor(do_normalize=True)` makes it."""
    return nn.functional.layer_norm(clip.float(), clip.shape, eps=1e-7)
