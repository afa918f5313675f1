"""Opens audio files, wherever they are, and decodes them block by block."""

import hashlib
import io
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import soundfile

from .remote_files import BLOCK_BYTES, RangedFile, RemoteFileError, local_path, open_remote, write_copy


MIN_SAMPLING_RATE = 4_000
MAX_SAMPLING_RATE = 384_000
"""Sampling rates outside of this range, in Hz, are those of a damaged header."""

MAX_RESAMPLING_KERNEL = 2**25
"""Maximum number of coefficients of a resampling filter (128 MiB). Only rates that share no factor with the wanted one
need more, such as those in a damaged header: from 44,100 Hz to 16,000 Hz takes 8 * 10^4."""

MAX_RECORDING_SECONDS = 24 * 3600
"""Maximum length of a recording that is read in blocks. A small file can claim, or decompress to, any length."""

LOCAL_BLOCK_BYTES = 2**16
"""What is read at once of a part of a local file."""

PROBE_BLOCK_BYTES = 2**16
"""What is read at once of a remote file for the length in its header."""

BLOCK_SECONDS = 30
MAX_BLOCK_SAMPLES = 2**25
"""Maximum number of samples in a block, all channels together (128 MiB)."""

_UNKNOWN_LENGTH = 2**63 - 1
"""What libsndfile gives as the length of a stream of unknown length, such as FLAC written to a pipe."""

# FFmpeg also follows playlists, which name other files and servers, so it only gets files that begin like these.
_FFMPEG_CONTAINERS = {
    "MP4": (4, (b"ftyp", b"moov", b"mdat", b"wide")),
    "WebM or Matroska": (0, (b"\x1a\x45\xdf\xa3",)),
    "WMA": (0, (b"\x30\x26\xb2\x75",)),
    "AAC": (0, (b"\xff\xf1", b"\xff\xf9", b"ADIF")),
    "AMR": (0, (b"#!AMR",)),
}


class AudioError(ValueError):
    """Audio that cannot be read. The message names it; `reason` and `detail` say what is wrong."""

    def __init__(self, name: str, reason: Literal["unreadable", "corrupt", "empty"], detail: str):
        super().__init__(name, reason, detail)
        self.name = name
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        detail = self.detail.rstrip(".")
        texts = {"corrupt": f"cannot be read as audio ({detail})", "empty": f"the audio is empty ({detail})"}
        return f"{self.name}: {texts.get(self.reason, detail)}."


@dataclass(frozen=True)
class ByteRange:
    """Part of a local or remote file that is an audio file itself, such as a member of a tar archive."""

    path: str
    start: int
    size: int


def check_sampling_rate(rate: int, name: str, target: int | None = None) -> None:
    """Raise [`AudioError`] if a sampling rate, in Hz, is implausible or cannot be converted to the target rate."""
    detail = f"its sampling rate, {rate} Hz, cannot be converted"
    if not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        detail = f"{detail}: audio has {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz"
    elif target is None or rate * target // math.gcd(rate, target) ** 2 <= MAX_RESAMPLING_KERNEL:
        return
    raise AudioError(name, "unreadable", detail)


class AudioFile:
    """An open audio file, as [`open_audio`] gives it, with its `sampling_rate` in Hz. `num_samples` is its length by
    the file's header, and `None` where the header does not say it."""

    def __init__(self, decoder: "soundfile.SoundFile | _FFmpegFile", name: str):
        self.decoder = decoder
        self.name = name
        self._has_times = isinstance(decoder, _FFmpegFile)
        self.sampling_rate = decoder.samplerate
        self.num_samples = None if decoder.frames == _UNKNOWN_LENGTH else decoder.frames
        check_sampling_rate(self.sampling_rate, name)

    def blocks(
        self, offset: float = 0.0, duration: float | None = None, max_samples: int | None = None
    ) -> Iterator[np.ndarray]:
        """Read the file in order, or an excerpt of it, given in seconds. The blocks have the mean of the channels, in
        float32 and of shape `(samples,)`. [`AudioError`] is raised for audio that is empty, damaged, shorter than its
        header or `duration` says, or longer than `max_samples` (by default, 24 hours)."""
        rate = self.sampling_rate
        max_samples = MAX_RECORDING_SECONDS * rate if max_samples is None else max_samples
        first = round(offset * rate)
        expected = None if self.num_samples is None else self.num_samples - first
        expected = expected if duration is None else round(duration * rate)
        if expected is not None and expected > max_samples:
            raise self._too_long(max_samples)
        read = 0
        try:
            for block in self._read(first, math.inf if expected is None else expected):
                read += len(block)
                if read > max_samples:
                    raise self._too_long(max_samples)
                yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(self.name, "corrupt", _describe_error(error)) from error
        if read == 0:
            raise AudioError(self.name, "empty", f"no samples from {offset:.2f} s on" if first else "no samples")
        if expected is not None:
            # Manifests round durations, and some headers only estimate the length.
            is_estimate = self._has_times or self.decoder.format == "MP3"
            if expected - read > max(0.1 * rate, 0.05 * expected if is_estimate else 0.0):
                detail = f"ends after {read / rate:.2f} of {expected / rate:.2f} s"
                raise AudioError(self.name, "corrupt", detail)

    def _read(self, first: int, expected: float) -> Iterator[np.ndarray]:
        """Blocks of shape `(samples, channels)`."""
        length = min(round(BLOCK_SECONDS * self.sampling_rate), MAX_BLOCK_SAMPLES // self.decoder.channels)
        if self.num_samples is None and not self._has_times:  # libsndfile cannot seek in it
            while first > 0:
                first -= len(self.decoder.read(min(first, length), dtype="float32", always_2d=True)) or first
        elif first > 0:
            self.decoder.seek(first if self.num_samples is None else min(first, self.num_samples))
        # A short block is the last: what may follow it comes after a hole, in a damaged file.
        read = 0
        while read < expected and (read % length == 0 or self._has_times):
            block = self.decoder.read(min(expected - read, length), dtype="float32", always_2d=True)
            if len(block) == 0:
                return
            read += len(block)
            yield block

    def _too_long(self, max_samples: int) -> AudioError:
        hours = max_samples / self.sampling_rate / 3600
        return AudioError(self.name, "unreadable", f"longer than {hours:.1f} hours: read it in excerpts")


@contextmanager
def open_audio(source: Any, block_bytes: int = BLOCK_BYTES) -> Iterator[AudioFile]:
    r"""
    Open an audio file.

    Args:
        source (`str`, `os.PathLike`, `bytes`, `dict`, [`ByteRange`], or a binary file object):
            A path; a URL (`http://`, `https://`, `hf://`, `s3://` and others of `fsspec`); the content of a file;
            `{"bytes", "path"}`, as `datasets.Audio(decode=False)` gives it; a part of a file; or an open file, which
            is read from its current position. libsndfile decodes WAV, FLAC, MP3, OGG and others; torchcodec, if it is
            installed, decodes MP4, WebM, WMA, AAC and AMR.
        block_bytes (`int`, *optional*, defaults to 256 KiB):
            What is first read of a remote file, whose server gives ranges of it.

    Raises:
        AudioError: the file is missing, not a regular file, empty, or not audio.
        AudioDownloadError: a server could not be reached, or refused the file, in several tries.
    """
    name = describe(source)
    with ExitStack() as stack, open_file(source, block_bytes) as file:
        yield AudioFile(_open_decoder(file, name, stack), name)


class AudioProbe(NamedTuple):
    """What is known of an audio file without decoding it: its size in bytes, its length in seconds, which is 0 where
    the header does not say it, and a hash of its first 4,096 bytes."""

    num_bytes: int | None = None
    seconds: float = 0.0
    head: str | None = None


def probe_audio(source: Any) -> AudioProbe:
    """Read the head of what [`open_audio`] takes. [`AudioError`] says that it cannot be read at all."""
    name = describe(source)
    with ExitStack() as stack, open_file(source, PROBE_BLOCK_BYTES) as file:
        num_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        head, seconds = hashlib.sha256(file.read(4096)).hexdigest()[:16], 0.0
        file.seek(0)
        with suppress(AudioError):  # reported when its turn comes
            audio = AudioFile(_open_decoder(file, name, stack), name)
            seconds = (audio.num_samples or 0) / audio.sampling_rate
        return AudioProbe(num_bytes, seconds, head)


@contextmanager
def open_file(source: Any, block_bytes: int = BLOCK_BYTES) -> Iterator[BinaryIO | RangedFile]:
    """Open what [`open_audio`] takes as a binary file. A failed download is raised, at the latest at the end of the
    `with` block: what has been decoded meanwhile seemed to end early."""
    with ExitStack() as stack:
        file = _open_file(source, describe(source), stack, block_bytes)
        try:
            yield file
        finally:
            if isinstance(file, RangedFile) and isinstance(file.error, FileNotFoundError | RemoteFileError):
                raise AudioError(describe(source), "unreadable", "it was removed while it was read") from file.error
            if isinstance(file, RangedFile) and file.error is not None:
                raise file.error


def describe(source: Any) -> str:
    """A short name of `source` for error messages: its path if it has one, otherwise its type."""
    if isinstance(source, ByteRange):
        return f"{describe(source.path)}, bytes {source.start} to {source.start + source.size}"
    if isinstance(source, Mapping):
        if source.get("audio") is not None:  # a row of a dataset
            return describe(source["audio"])
        source = source.get("path") or source
    elif isinstance(getattr(source, "name", None), str):  # a file object
        source = source.name
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else f"<{type(source).__name__}>"


def _describe_error(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error).partition("\n")[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", text)  # where in torchcodec's source it was raised


def _open_file(source: Any, name: str, stack: ExitStack, block_bytes: int) -> BinaryIO | RangedFile:
    """The content of a source as a binary file, which the stack closes."""
    if isinstance(source, ByteRange):
        file = _open_file(source.path, name, stack, block_bytes)
        if not isinstance(file, RangedFile):
            file = RangedFile(partial(_read_range, file), file.seek(0, io.SEEK_END), LOCAL_BLOCK_BYTES)
        return file.window(source.start, source.size)
    if isinstance(source, Mapping):
        content = source.get("bytes")
        source = source.get("path") if content is None else content
        if source is None:
            raise AudioError(name, "unreadable", "there is neither a path nor content")
    if isinstance(source, bytes | bytearray | memoryview):
        return _Content(source)
    is_path = isinstance(source, str | os.PathLike)
    if is_path and (path := local_path(source)) is not None:
        return _open_local(path, name, stack)
    if not is_path and not hasattr(source, "read"):
        expected = "expected a path, URL, bytes, an open file, or a dict with the audio"
        bare = "A bare array has no sampling rate: pass {'array': ..., 'sampling_rate': ...}"
        raise AudioError(name, "unreadable", f"{expected}. {bare}")
    try:
        if is_path:
            return open_remote(os.fsdecode(source), name, stack, block_bytes)
        return write_copy(iter(lambda: source.read(2**20), b""), stack)
    except RemoteFileError as error:
        raise AudioError(name, "unreadable", str(error)) from error.__cause__
    except TypeError as error:
        raise AudioError(name, "unreadable", "the file is open as text: open it with mode 'rb'") from error


def _open_local(path: str, name: str, stack: ExitStack) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait forever
            raise OSError("not a regular file")
        file = stack.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise AudioError(name, "unreadable", getattr(error, "strerror", None) or str(error)) from error
    # A file that is mostly holes, such as a download that stopped, would be read as silence.
    status, has_hole = os.fstat(file.fileno()), False
    if hasattr(os, "SEEK_HOLE") and 2 * 512 * status.st_blocks < status.st_size:
        with suppress(OSError):  # the file system does not know
            has_hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE) < status.st_size
        file.seek(0)
    if has_hole:
        detail = f"only {512 * status.st_blocks} of its {status.st_size} bytes were ever written"
        raise AudioError(name, "corrupt", detail)
    return file


def _read_range(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


class _Content(io.BytesIO):
    """The content of a file. libsndfile may seek to before its start, where a damaged header sends it."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:  # raised in a callback, it would be printed
            return self.tell()


class _SoundFile(soundfile.SoundFile):
    """Reads in order. soundfile seeks at each read, which some files that can be read in order do not allow."""

    def seekable(self) -> bool:
        return False


class _FFmpegFile:
    """As much of `soundfile.SoundFile` as [`AudioFile`] uses, on torchcodec. It reads by time: a block may lack some
    samples where a file rounds its times."""

    def __init__(self, decoder: Any):  # a torchcodec.decoders.AudioDecoder
        self._decoder = decoder
        metadata = decoder.metadata
        self._seconds = math.inf if metadata.duration_seconds is None else metadata.duration_seconds
        self._position = 0
        self.samplerate = metadata.sample_rate or 0
        self.channels = metadata.num_channels or 1
        self.frames = _UNKNOWN_LENGTH if self._seconds == math.inf else round(self._seconds * self.samplerate)

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        start = self._position / self.samplerate
        self._position += frames
        try:
            if start < self._seconds:
                samples = self._decoder.get_samples_played_in_range(start, self._position / self.samplerate)
                return samples.data.numpy().T
        except RuntimeError as error:
            if "No audio frames were decoded" not in str(error):  # the end of a stream of unknown length
                raise
        return np.zeros((0, self.channels), dtype=np.float32)


def _open_decoder(file: BinaryIO | RangedFile, name: str, stack: ExitStack) -> soundfile.SoundFile | _FFmpegFile:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise AudioError(name, "empty", "the file has no content")
    try:
        # Opened without its name, by which libsndfile would guess what a file without a header holds.
        content = file if isinstance(file, io.BytesIO | RangedFile) else file.fileno()
        return stack.enter_context(_SoundFile(content, closefd=False))
    except soundfile.SoundFileError as error:
        container = next((key for key, (at, marks) in _FFMPEG_CONTAINERS.items() if head[at:].startswith(marks)), None)
        if container is None:
            detail = _describe_error(error)
            if name.lower().rstrip("'\"").endswith(".raw"):
                detail += " A .raw file does not say its sampling rate and encoding: convert it to WAV or FLAC"
            raise AudioError(name, "corrupt", detail) from error
    file.seek(0)
    try:
        from torchcodec.decoders import AudioDecoder

        return _FFmpegFile(AudioDecoder(file))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        # Without FFmpeg, some versions cannot be imported, others open no file: either names its own library.
        if isinstance(error, ImportError | OSError) or "libtorchcodec" in str(error):
            remedy = "install FFmpeg and torchcodec (`pip install 'slam-hf[audio]'`)"
            raise AudioError(name, "unreadable", f"libsndfile does not decode {container}: {remedy}") from error
        raise AudioError(name, "corrupt", _describe_error(error)) from error
