import io
import os
import socket
import struct
import sys
import threading
import types
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from loopback_server import QuietHandler, serve

from slam_hf import audio_files, audio_utils, load_audio, remote_files
from slam_hf.audio_files import AudioError, open_audio
from slam_hf.remote_files import AudioDownloadError


RATE = 16_000
WAVEFORM = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
PCM = np.round(WAVEFORM * 32768).astype(np.int16)


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, PCM, RATE)
    return path


def wav_bytes(samples: np.ndarray, rate: int, **kwargs) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **kwargs)
    return file.getvalue()


@pytest.fixture
def server(wav, monkeypatch):
    """A server on the loopback that answers with the statuses in `statuses`, one a request, and then with the file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(remote_files, "DOWNLOAD_WAITS", (0.0, 0.0))

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            content = wav.read_bytes()
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            self.server.requests.append(status)
            if self.path == "/tone.wav":
                self.server.tokens.append(self.headers["Authorization"])
            if status == "slow":
                self.server.stopped.wait(10)
                self.close_connection = True
                return
            self.send_response(200 if status == "cut" else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:100] if status == "cut" else content)
            self.close_connection = status == "cut"

        do_HEAD = do_GET

    with serve(Handler, statuses=[], requests=[], tokens=[], stopped=threading.Event()) as server:
        server.url += "/tone.wav"
        yield server
        server.stopped.set()


def test_the_token_is_sent_to_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load_audio(server.url, RATE)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url.removesuffix("/tone.wav"))
    load_audio(server.url, RATE)

    assert server.tokens == [None, "Bearer hf_secret"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_file_on_a_server_is_asked_for_once(server, status):
    server.statuses = [status]

    with pytest.raises(AudioError, match=rf"tone\.wav': no such file: the server answers {status}"):
        load_audio(server.url, RATE)
    assert server.requests == [status]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, "cut", "slow"])
def test_what_a_server_may_give_later_is_asked_for_again(wav, server, monkeypatch, status):
    monkeypatch.setattr(remote_files, "DOWNLOAD_TIMEOUT", 0.2)
    server.statuses = [status, status]

    assert np.array_equal(load_audio(server.url, RATE), load_audio(wav, RATE))
    assert server.requests == [status, status, 200]

    server.statuses = [status] * 4
    with pytest.raises(AudioDownloadError, match=r"tone\.wav': could not be downloaded in 3 tries \(.*Start again"):
        load_audio(server.url, RATE)
    assert len(server.statuses) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/tone.wav", "zip://a.wav::http://127.0.0.1:{}/clips.zip"])
def test_a_server_that_cannot_be_reached_is_not_a_missing_file(server, url):
    with socket.socket() as listening:  # bound but not listening: connections are refused
        listening.bind(("127.0.0.1", 0))
        with pytest.raises(AudioDownloadError, match="could not be downloaded in 3 tries"):
            load_audio(url.format(listening.getsockname()[1]), RATE)


def test_archives_are_read(wav, tmp_path):
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(wav, "a.wav")

    assert np.array_equal(load_audio(f"zip://a.wav::{tmp_path}/clips.zip", RATE), load_audio(wav, RATE))
    with pytest.raises(FileNotFoundError, match=r"b\.wav::.*': no such audio file"):
        load_audio(f"zip://b.wav::{tmp_path}/clips.zip", RATE)


def test_a_download_does_not_grow_without_end(server, monkeypatch):
    monkeypatch.setattr(remote_files, "MAX_DOWNLOAD_BYTES", 1000)

    with pytest.raises(AudioError, match="longer than 1000 bytes"):
        load_audio(server.url, RATE)


def test_open_files_are_read(wav):
    content = wav.read_bytes()
    expected = load_audio(wav, RATE)

    with open(wav, "rb") as file:
        assert np.array_equal(load_audio(file, RATE), expected)
    assert np.array_equal(load_audio(io.BytesIO(content), RATE), expected)
    assert np.array_equal(load_audio(bytearray(content), RATE), expected)
    with (
        open(wav, encoding="latin-1") as file,
        pytest.raises(ValueError, match=r"tone\.wav': the file is open as text"),
    ):
        load_audio(file, RATE)


def unknown_length(flac: bytes) -> bytes:
    """The file as it is written to a pipe: the number of samples, 36 bits of STREAMINFO (RFC 9639, 8.2), is zero."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def long_flac(flac: bytes) -> bytes:
    return flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff" * 4 + flac[26:]


def mat5(rate: float) -> bytes:
    """A MATLAB file with a matrix of one second of noise, and its sampling rate."""

    def matrix(name: bytes, values: np.ndarray) -> bytes:
        content = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 1, values.size)
        content += struct.pack("<II", 1, len(name)) + name + bytes(-len(name) % 8)
        content += struct.pack("<II", 9, 8 * values.size) + values.astype("<f8").tobytes()
        return struct.pack("<II", 14, len(content)) + content

    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    return header + matrix(b"samplerate", np.array([rate])) + matrix(b"wavedata", WAVEFORM)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            (wav_bytes(PCM, rate), f"its sampling rate, {rate} Hz, cannot be converted: audio has")
            for rate in range(1, 24)
        ),
        (wav_bytes(PCM, 3_999), "its sampling rate, 3999 Hz, cannot be converted: audio has 4000 to 384000 Hz"),
        (wav_bytes(PCM, 384_001), "its sampling rate, 384001 Hz, cannot be converted: audio has 4000 to 384000 Hz"),
        (mat5(float("nan")), "<bytes>: "),
        (mat5(1e300), "<bytes>: "),
        (mat5(0.5), "<bytes>: "),
        (mat5(-16000.0), "<bytes>: "),
    ],
)
def test_implausible_sampling_rates_are_refused(content, message):
    with pytest.raises(AudioError, match=message):
        load_audio(content, RATE)


@pytest.mark.parametrize("rate", [4_000, 384_000])
def test_the_ends_of_the_range_of_sampling_rates_are_read(rate):
    assert load_audio(wav_bytes(np.zeros(rate // 10, np.float32), rate), RATE).shape == (1_600,)


def test_a_header_that_lies_about_the_length_takes_no_memory(recordings):
    with pytest.raises(AudioError, match=r"<bytes>: longer than 2\.3 hours: read it in excerpts"):
        load_audio(long_flac(recordings[0].read_bytes()), RATE)

    with open_audio(long_flac(recordings[0].read_bytes())) as file:
        blocks = file.blocks(duration=3600.0)
        assert len(next(blocks)) == 225_360
        with pytest.raises(AudioError, match=r"ends after 14\.09 of 3600\.00 s"):
            next(blocks)


def test_audio_of_unknown_length_has_an_end(recordings, monkeypatch):
    monkeypatch.setattr(audio_utils, "MAX_WAVEFORM_SAMPLES", 225_359)

    with pytest.raises(AudioError, match="<bytes>: longer than"):
        load_audio(unknown_length(recordings[0].read_bytes()), RATE)


def test_blocks_are_small_whatever_the_number_of_channels(monkeypatch):
    monkeypatch.setattr(audio_files, "MAX_BLOCK_SAMPLES", 64_000)
    content = wav_bytes(np.stack([PCM] * 16, axis=1), RATE)

    with open_audio(content) as file:
        blocks = list(file.blocks())

    assert [len(block) for block in blocks] == [4_000] * 4
    np.testing.assert_array_equal(np.concatenate(blocks), PCM / np.float32(32768))


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.wav"))
    (tmp_path / "file.wav").write_bytes(b"")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name, message in {
        "pipe.wav": "not a regular file",
        "socket.wav": "not a regular file",
        ".": "not a regular file",
        "file.wav": r"the audio is empty \(the file has no content\)",
        "file.wav/below.wav": "Not a directory",
        "loop.wav": "Too many levels of symbolic links",
        "nul\0.wav": "embedded null byte",
        "n" * 300: "File name too long",
    }.items():
        with pytest.raises(AudioError, match=message):
            load_audio(tmp_path / name, RATE)


def test_a_file_that_was_never_written_is_refused(tmp_path, wav):
    content = bytearray(wav.read_bytes())
    content[40:44] = struct.pack("<I", 2**32 - 100)
    (tmp_path / "sparse.wav").write_bytes(content)
    os.truncate(tmp_path / "sparse.wav", 2**33)

    with pytest.raises(AudioError, match=r"only \d+ of its 8589934592 bytes were ever written"):
        load_audio(tmp_path / "sparse.wav", RATE)


def test_names_that_are_not_utf8_are_read(wav):
    path = os.fsdecode(os.fsencode(wav.parent) + b"/caf\xe9.wav")
    os.rename(wav, path)

    assert load_audio(path, RATE).shape == (RATE,)


def test_content_that_sends_the_decoder_before_its_start_prints_nothing(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    aiff = io.BytesIO()
    soundfile.write(aiff, PCM, RATE, format="AIFF")
    content = aiff.getvalue()[:38] + np.random.default_rng(0).bytes(999)  # without the chunk of the samples

    with pytest.raises(AudioError, match="<bytes>: cannot be read as audio"):
        load_audio(content, RATE)
    assert printed == []


def test_a_file_without_a_header_is_refused(tmp_path):
    (tmp_path / "clip.raw").write_bytes(PCM.tobytes())

    with pytest.raises(AudioError, match=r"clip\.raw': .*A \.raw file does not say its sampling rate and encoding"):
        load_audio(tmp_path / "clip.raw", RATE)


class StubDecoder:
    """As much of torchcodec's AudioDecoder as is used, with two channels."""

    seconds = None

    def __init__(self, source):
        assert source.read(12)[4:] == b"ftypM4A "
        self.metadata = types.SimpleNamespace(sample_rate=RATE, num_channels=2, duration_seconds=self.seconds)

    def get_samples_played_in_range(self, start_seconds=0.0, stop_seconds=None):
        # The first sample has a time after zero, as in Matroska, where a block is then shorter than it should be.
        part = WAVEFORM[max(0, round(start_seconds * RATE) - 16) : round(stop_seconds * RATE) - 16]
        if len(part) == 0:
            raise RuntimeError("No audio frames were decoded. This is probably because start_seconds is too high")
        return types.SimpleNamespace(data=torch.from_numpy(np.stack([part + 0.25, part - 0.25])), sample_rate=RATE)


M4A = b"\0\0\0\x20ftypM4A " + bytes(100)


def test_what_libsndfile_cannot_decode_is_decoded_with_torchcodec(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", types.SimpleNamespace(AudioDecoder=StubDecoder))

    monkeypatch.setattr(audio_files, "BLOCK_SECONDS", 0.25)

    for seconds in (1.001, None):
        monkeypatch.setattr(StubDecoder, "seconds", seconds)
        np.testing.assert_allclose(load_audio(M4A, RATE), WAVEFORM, atol=1e-7)
        with open_audio(M4A) as file:
            excerpt = np.concatenate(list(file.blocks(offset=0.251, duration=0.5)))
        np.testing.assert_allclose(excerpt, WAVEFORM[4_000:12_000], atol=1e-7)

    monkeypatch.setattr(StubDecoder, "seconds", 2.0)
    with pytest.raises(AudioError, match=r"ends after 1\.00 of 2\.00 s"):
        load_audio(M4A, RATE)


@pytest.mark.parametrize("name", ["clip.m4a", "clip.mka"])
def test_formats_of_ffmpeg_are_read_where_it_is_installed(recordings, tmp_path, name):
    encoders = pytest.importorskip("torchcodec.encoders")
    waveform = np.tile(load_audio(recordings[0], RATE), 5)  # 70 s: three blocks
    try:
        encoders.AudioEncoder(torch.from_numpy(waveform)[None], sample_rate=RATE).to_file(tmp_path / name)
    except RuntimeError:
        pytest.skip("FFmpeg is not installed")

    decoded = load_audio(tmp_path / name, RATE)

    assert abs(len(decoded) - len(waveform)) <= 1024
    length = min(len(decoded), len(waveform))
    assert np.corrcoef(decoded[:length], waveform[:length])[0, 1] > 0.9


@pytest.mark.parametrize("content", [M4A, b"\x1a\x45\xdf\xa3" + bytes(99), b"\x30\x26\xb2\x75" + bytes(99)])
def test_without_torchcodec_the_error_says_what_to_install(monkeypatch, content):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)

    with pytest.raises(AudioError, match=r"<bytes>: libsndfile does not decode .*: install FFmpeg and torchcodec"):
        load_audio(content, RATE)


def test_a_playlist_is_not_given_to_ffmpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)

    with pytest.raises(AudioError, match=r"cannot be read as audio \(Format not recognised"):
        load_audio(b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1/secret\n", RATE)
