"""Reads audio in any form that a user has it, as the waveform that the codec takes."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from .audio_files import AudioError, check_sampling_rate, describe, open_audio


MAX_WAVEFORM_SAMPLES = 2**27
"""Maximum length of a waveform that [`load_audio`] returns: 512 MiB, or 2.3 hours at 16 kHz."""

_FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


def load_audio(source: Any, sampling_rate: int) -> np.ndarray:
    """Read `source` as a mono waveform at `sampling_rate`.

    Args:
        source:
            What [`open_audio`] takes; `{"array", "sampling_rate"}` or `{"raw", "sampling_rate"}` with a waveform of
            shape `(samples,)` or `(channels, samples)`; what `datasets.Audio()` decodes to (a torchcodec
            `AudioDecoder`); or a row of a dataset with one of these as `"audio"`.
            The samples of a waveform are floating-point numbers from -1 to 1, int16 with a full scale of 2^15, or
            int32 with a full scale of 2^31.
        sampling_rate (`int`):
            Sampling rate of the result, in Hz.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32: the mean of the channels, not normalised.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the audio cannot be read, is empty or too long, has NaN or infinite samples, or has a sampling rate
            that is missing or cannot be converted.
        AudioDownloadError: a server could not be reached, or refused the file, in several tries.
    """
    if isinstance(source, Mapping) and "audio" in source:
        source = source["audio"]
    name = describe(source)
    samples = _find_samples(source, name)
    if samples is not None:
        waveform, source_rate = _as_mono(samples[0], name), _as_rate(samples[1], name)
        check_sampling_rate(source_rate, name, sampling_rate)
    else:
        try:
            with open_audio(source) as file:
                source_rate = file.sampling_rate
                check_sampling_rate(source_rate, name, sampling_rate)
                max_samples = MAX_WAVEFORM_SAMPLES * min(sampling_rate, source_rate) // sampling_rate
                waveform = np.concatenate(list(file.blocks(max_samples=max_samples)))
        except AudioError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(f"{name}: no such audio file.") from None
            raise
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name}: the audio holds NaN or infinite samples.")
    return resample(waveform, source_rate, sampling_rate)


def resample(waveform: np.ndarray, source_rate: int, sampling_rate: int) -> np.ndarray:
    """Convert a waveform of shape `(samples,)` to another sampling rate, in Hz."""
    if source_rate == sampling_rate:
        return waveform
    import torchaudio.functional

    return torchaudio.functional.resample(torch.from_numpy(waveform), source_rate, sampling_rate).numpy()


def _find_samples(source: Any, name: str) -> tuple[Any, Any] | None:
    """Samples and their rate, where the source is a waveform and not a file."""
    if hasattr(source, "get_all_samples"):  # torchcodec.decoders.AudioDecoder
        samples = source.get_all_samples()
        return samples.data, samples.sample_rate
    if not isinstance(source, Mapping):
        return None
    samples = source.get("array", source.get("raw"))
    if samples is not None:
        if not source.get("sampling_rate"):
            raise ValueError(f"{name}: an array needs its rate: pass {{'array': ..., 'sampling_rate': ...}}.")
        return samples, source["sampling_rate"]
    if source.get("bytes") is None and not source.get("path"):
        raise ValueError(
            f"{name}: expected the keys 'array' and 'sampling_rate', or 'bytes' or 'path'; got {sorted(source)}."
        )
    return None


def _as_rate(rate: Any, name: str) -> int:
    with suppress(TypeError, ValueError, OverflowError):
        if int(rate) == rate:
            return int(rate)
    raise ValueError(f"{name}: its sampling rate is {rate!r}, which is not a whole number of Hz.")


def _as_mono(samples: Any, name: str) -> np.ndarray:
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        samples = samples.float().numpy() if samples.is_floating_point() else samples.numpy()  # NumPy lacks bfloat16
    try:
        waveform = np.asarray(samples)
    except ValueError:  # lists of different lengths
        raise ValueError(f"{name}: the channels differ in length.") from None
    if waveform.ndim == 0 or waveform.ndim > 2 or (waveform.ndim == 2 and waveform.shape[0] > waveform.shape[1] > 0):
        raise ValueError(f"{name}: expected (samples,) or (channels, samples), got an array of {waveform.shape}.")
    if waveform.size == 0:
        raise ValueError(f"{name}: the audio is empty.")
    full_scale = 1.0 if waveform.dtype.kind == "f" else _FULL_SCALE.get(waveform.dtype)
    advice = "Convert 16-bit samples with `np.asarray(samples, dtype=np.int16)`."
    if full_scale is None:
        raise ValueError(f"{name}: expected float, int16 or int32 samples, got an array of {waveform.dtype}. {advice}")
    peak = max(abs(float(waveform.max())), abs(float(waveform.min())))
    # Samples of 16 or 24 bits in a wider type would be silence, or far beyond full scale.
    if (full_scale == 2.0**31 and 0 < peak <= 2.0**23) or (full_scale == 1.0 and 1e3 <= peak < math.inf):
        raise ValueError(
            f"{name}: the samples reach {peak:g}, where full scale is {full_scale:g} for {waveform.dtype}. {advice}"
        )
    waveform = waveform.astype(np.float32) / np.float32(full_scale)
    return waveform.mean(axis=0) if waveform.ndim == 2 else waveform
