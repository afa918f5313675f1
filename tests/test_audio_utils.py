import datasets
import numpy as np
import pytest
import soundfile
import torch
from test_audio_files import PCM, RATE, WAVEFORM, wav_bytes

from slam_hf import load_audio


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, PCM, RATE)
    return path


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
    "samples",
    [
        PCM,
        torch.from_numpy(PCM),
        PCM.astype(np.int32) << 16,
        PCM / 32768,
        (PCM / 32768).tolist(),
        torch.from_numpy(PCM / 32768).requires_grad_(),
    ],
)
def test_samples_are_scaled_by_their_type(samples):
    waveform = load_audio({"array": samples, "sampling_rate": RATE}, RATE)

    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, PCM.astype(np.float32) / 32768)


def test_samples_of_half_precision_are_read():
    samples = torch.tensor([0.5, -0.25, 0.125])
    for dtype in (torch.bfloat16, torch.float16):
        waveform = load_audio({"array": samples.to(dtype), "sampling_rate": RATE}, RATE)
        assert waveform.tolist() == [0.5, -0.25, 0.125]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (PCM.tolist(), "expected float, int16 or int32 samples, got an array of int64. Convert 16-bit samples with"),
        (torch.from_numpy(PCM).long(), "got an array of int64"),
        (PCM.astype(np.uint16), "got an array of uint16"),
        ((PCM >> 8).astype(np.int8), "got an array of int8"),
        ((PCM >> 8).astype(np.uint8), "got an array of uint8"),
        (PCM > 0, "got an array of bool"),
        (PCM + 1j, "got an array of complex128"),
        ([None, 0.1], "got an array of object"),
        (PCM.astype(np.int32), "the samples reach 16384, where full scale is 2.14748e\\+09 for int32. Convert 16-bit"),
        (PCM.astype(np.int32) << 8, r"the samples reach 4.1943e\+06, where full scale is"),
        (PCM.astype(np.float32), "the samples reach 16384, where full scale is 1 for float32. Convert 16-bit samples"),
        ([[0.1, 0.2], [0.1]], "the channels differ in length"),
        ([], "the audio is empty"),
    ],
)
def test_samples_of_another_type_are_refused(samples, message):
    with pytest.raises(ValueError, match=f"<dict>: .*{message}"):
        load_audio({"array": samples, "sampling_rate": RATE}, RATE)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), "fast", 16000.5, [16000]])
def test_a_rate_that_is_not_a_whole_number_is_refused(rate):
    with pytest.raises(ValueError, match=r"<dict>: its sampling rate is .*, which is not a whole number of Hz"):
        load_audio({"array": WAVEFORM, "sampling_rate": rate}, RATE)


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
        ({"array": ["a"], "sampling_rate": RATE}, "expected float, int16 or int32 samples, got an array of <U1"),
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
