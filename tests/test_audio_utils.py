import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets
import numpy as np
import pytest
import soundfile
import torch

from slam_hf import load_audio


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


def test_path_bytes_dict_and_row_are_the_same_waveform(wav):
    expected = PCM.astype(np.float32) / 32768
    content = wav.read_bytes()
    row = datasets.Dataset.from_dict({"audio": [str(wav)]}).cast_column("audio", datasets.Audio(decode=False))[0]
    for source in (
        wav,
        str(wav),
        content,
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(wav)},
        {"array": PCM, "sampling_rate": RATE},
        {"raw": expected, "sampling_rate": RATE},
        {"array": torch.from_numpy(expected), "sampling_rate": RATE},
        row["audio"],
        row,
    ):
        waveform = load_audio(source, RATE)
        assert waveform.dtype == np.float32
        assert np.array_equal(waveform, expected)


def test_url_is_downloaded(wav, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    handler = partial(SimpleHTTPRequestHandler, directory=wav.parent)
    handler.log_message = lambda *args: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert np.array_equal(load_audio(f"{url}/tone.wav", RATE), load_audio(wav, RATE))
        with pytest.raises(Exception, match="404"):
            load_audio(f"{url}/none.wav", RATE)
    finally:
        server.shutdown()


def test_channels_are_averaged():
    stereo = np.stack([WAVEFORM, -WAVEFORM / 2])
    expected = WAVEFORM / 4
    np.testing.assert_allclose(load_audio({"array": stereo, "sampling_rate": RATE}, RATE), expected, atol=1e-7)
    np.testing.assert_allclose(load_audio(wav_bytes(stereo.T, RATE, subtype="FLOAT"), RATE), expected, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_other_rates_are_resampled(rate):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    waveform = load_audio({"array": tone, "sampling_rate": rate}, RATE)
    assert waveform.shape == WAVEFORM.shape
    inner = slice(200, -200)
    np.testing.assert_allclose(waveform[inner], WAVEFORM[inner], atol=2e-3)


def test_torchcodec_decoders_are_read():
    class Samples:
        data, sample_rate = torch.from_numpy(WAVEFORM)[None], RATE

    class AudioDecoder:
        def get_all_samples(self):
            return Samples

    assert np.array_equal(load_audio(AudioDecoder(), RATE), WAVEFORM)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"RIFF not audio", "<bytes>: cannot be read as audio"),
        (wav_bytes(np.zeros(0, np.float32), RATE), "<bytes>: the audio is empty"),
        ({"array": [0.1, float("nan")], "sampling_rate": RATE}, "<dict>: the audio holds NaN"),
        ({"array": [0.1, float("inf")], "sampling_rate": RATE}, "NaN or infinite"),
        ({"array": WAVEFORM}, "an array needs its rate"),
        ({"array": np.zeros((RATE, 2), np.float32), "sampling_rate": RATE}, r"got an array of \(16000, 2\)"),
        ({"array": np.zeros((1, 1, 9), np.float32), "sampling_rate": RATE}, r"\(channels, samples\)"),
        ({"array": ["a"], "sampling_rate": RATE}, "expected float or signed integer samples"),
        ({"array": WAVEFORM, "sampling_rate": 1_999_999_973}, "its sampling rate, 1999999973 Hz, cannot be converted"),
        ({"array": WAVEFORM, "sampling_rate": -1}, "its sampling rate, -1 Hz, cannot be converted"),
        ({"text": "hello"}, r"got \['text'\]"),
        (WAVEFORM, "<ndarray>: expected a path.*A bare array has no sampling rate"),
        (None, "<NoneType>: expected a path"),
    ],
)
def test_bad_audio_is_named(source, message):
    with pytest.raises(ValueError, match=message):
        load_audio(source, RATE)


def test_missing_and_corrupt_files_are_named(tmp_path, wav):
    with pytest.raises(FileNotFoundError, match=r"none\.wav': no such audio file"):
        load_audio(tmp_path / "none.wav", RATE)
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.wav': cannot be read as audio"):
        load_audio(tmp_path / "text.wav", RATE)
