"""Audio in any form a user has it, read to the mono float32 waveform that the codec takes."""

import io
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


MAX_RESAMPLING_KERNEL = 2**25
"""Most coefficients of a resampling filter (128 MiB). Only rates that share no factor with the wanted one need more,
such as those in a damaged header: 44,100 Hz to 16,000 Hz takes 8 * 10^4."""


def load_audio(source: Any, sampling_rate: int) -> np.ndarray:
    """Read `source` as a mono waveform at `sampling_rate`.

    Args:
        source (`str`, `os.PathLike`, `bytes`, `dict`, or a torchcodec `AudioDecoder`):
            A path or an http(s) URL; the bytes of an audio file; `{"array", "sampling_rate"}` or
            `{"raw", "sampling_rate"}` with a waveform of shape `(samples,)` or `(channels, samples)`;
            `{"bytes", "path"}`, as `datasets.Audio(decode=False)` gives it; what `datasets.Audio()` decodes to; or a
            row of a dataset with one of these as `"audio"`.
            Files may be in any format of libsndfile (WAV, FLAC, MP3, OGG, ...).
        sampling_rate (`int`):
            Sampling rate of the result, in Hz.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32: the mean of the channels, not normalised.

    Raises:
        FileNotFoundError: there is no file at the path.
        ValueError: the audio cannot be read, is empty, holds NaN or infinite samples, or names no sampling rate or one
            that cannot be converted.
    """
    if isinstance(source, Mapping) and "audio" in source:
        source = source["audio"]
    name = describe(source)
    waveform, source_rate = _read(source, name)
    if waveform.ndim == 0 or waveform.ndim > 2 or (waveform.ndim == 2 and waveform.shape[0] > waveform.shape[1] > 0):
        raise ValueError(f"{name}: expected (samples,) or (channels, samples), got an array of {waveform.shape}.")
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=0)
    if waveform.size == 0:
        raise ValueError(f"{name}: the audio is empty.")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name}: the audio holds NaN or infinite samples.")
    if source_rate != sampling_rate:
        if not can_resample(source_rate, sampling_rate):
            raise ValueError(
                f"{name}: its sampling rate, {source_rate} Hz, cannot be converted to {sampling_rate} Hz."
            )
        import torchaudio.functional

        resampled = torchaudio.functional.resample(torch.from_numpy(waveform), source_rate, sampling_rate)
        waveform = resampled.numpy()
    return waveform


def can_resample(source_rate: int, sampling_rate: int) -> bool:
    """Whether there is memory for the filter that converts one sampling rate, in Hz, into another."""
    if source_rate <= 0:
        return False
    common = math.gcd(source_rate, sampling_rate)
    return (source_rate // common) * (sampling_rate // common) <= MAX_RESAMPLING_KERNEL


def describe(source: Any) -> str:
    """A short name of `source` for error messages: its path where it has one, its kind otherwise."""
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    if isinstance(source, Mapping) and source.get("path"):
        return repr(source["path"])
    return f"<{type(source).__name__}>"


def _read(source: Any, name: str) -> tuple[np.ndarray, int]:
    if isinstance(source, Mapping):
        samples = source.get("array", source.get("raw"))
        if samples is not None:
            if not source.get("sampling_rate"):
                raise ValueError(f"{name}: an array needs its rate: pass {{'array': ..., 'sampling_rate': ...}}.")
            return _as_float32(samples, name), int(source["sampling_rate"])
        if source.get("bytes") is not None:
            return _decode(io.BytesIO(source["bytes"]), name)
        if source.get("path"):
            return _read(source["path"], name)
        raise ValueError(
            f"{name}: expected the keys 'array' and 'sampling_rate', or 'bytes' or 'path'; got {sorted(source)}."
        )
    if isinstance(source, bytes | bytearray):
        return _decode(io.BytesIO(source), name)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _decode(io.BytesIO(_download(source)), name)
    if isinstance(source, str | os.PathLike):
        if not os.path.isfile(source):
            raise FileNotFoundError(f"{name}: no such audio file.")
        return _decode(source, name)
    if hasattr(source, "get_all_samples"):  # torchcodec.decoders.AudioDecoder
        samples = source.get_all_samples()
        return _as_float32(samples.data, name), int(samples.sample_rate)
    raise ValueError(
        f"{name}: expected a path, URL, bytes, or a dict with the audio. "
        "A bare array has no sampling rate: pass {'array': ..., 'sampling_rate': ...}."
    )


def _decode(file: Any, name: str) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}: cannot be read as audio ({error}).") from error
    return samples.T, rate


def _download(url: str) -> bytes:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    response = get_session().get(url, follow_redirects=True)
    hf_raise_for_status(response)
    return response.content


def _as_float32(samples: Any, name: str) -> np.ndarray:
    samples = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else np.asarray(samples)
    if np.issubdtype(samples.dtype, np.signedinteger):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)  # int16 PCM: full scale is 32768
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"{name}: expected float or signed integer samples, got an array of {samples.dtype}.")
    return samples.astype(np.float32)
