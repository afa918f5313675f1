import numpy as np
import pytest
import soundfile
import torch
from transformers import EncodecFeatureExtractor, pipeline

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.training import continuation as continuation_module
from slam_hf.training.continuation import PROMPT_UNITS, continue_document, continue_recording


@pytest.fixture
def checkpoint(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path)
    return tmp_path


def save_processor(folder, codec=None):
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50), audio_tokenizer=codec).save_pretrained(
        folder
    )


def test_a_document_is_continued_from_its_beginning(checkpoint):
    save_processor(checkpoint)
    document = np.arange(100) % 50
    prompt, continuation = continue_document(checkpoint, document, seed=0)
    np.testing.assert_array_equal(prompt, document[:PROMPT_UNITS])
    assert 0 < len(continuation) <= 150
    assert continuation.min() >= 0 and continuation.max() < 50
    np.testing.assert_array_equal(continue_document(checkpoint, document, seed=0)[1], continuation)
    assert not (checkpoint / "continuation.wav").exists()


def test_a_codec_with_a_vocoder_makes_it_audible(checkpoint, tmp_path, tiny_codec):
    tiny_codec.save_pretrained(tmp_path / "codec")
    codec = type(tiny_codec).from_pretrained(tmp_path / "codec")
    save_processor(checkpoint, codec)
    prompt, continuation = continue_document(checkpoint, np.arange(30), seed=0)
    waveform, sampling_rate = soundfile.read(checkpoint / "continuation.wav", dtype="float32")
    units = torch.from_numpy(np.concatenate([prompt, continuation]))[None]
    expected = codec.decode(units).audio_values[0, 0].detach().numpy()
    assert sampling_rate == 16_000
    np.testing.assert_allclose(waveform, expected, atol=1 / 2**15)


def test_a_recording_is_continued_from_its_beginning(checkpoint, tmp_path, tiny_codec, recordings):
    tiny_codec.save_pretrained(tmp_path / "codec")
    save_processor(checkpoint, type(tiny_codec).from_pretrained(tmp_path / "codec"))
    path, transcript = continue_recording(checkpoint, str(recordings[0]), seed=0)
    speak = pipeline("audio-to-audio", model=str(checkpoint))
    expected = speak(str(recordings[0]), prompt_duration=3.0, min_new_tokens=50, seed=0)
    assert len(expected["units"]) >= 50
    waveform, sampling_rate = soundfile.read(path, dtype="float32")
    assert (path, sampling_rate, transcript) == (checkpoint / "continuation.wav", 16_000, None)
    np.testing.assert_allclose(waveform, expected["audio"].clip(-1, 1), atol=1 / 2**15)


def test_a_recogniser_transcribes_it(checkpoint, tmp_path, tiny_codec, recordings, monkeypatch):
    tiny_codec.save_pretrained(tmp_path / "codec")
    save_processor(checkpoint, type(tiny_codec).from_pretrained(tmp_path / "codec"))

    def load_recogniser(model, device):
        return lambda inputs, batch_size: [{"text": f" {model} heard {len(audio['raw'])} samples"} for audio in inputs]

    monkeypatch.setattr(continuation_module, "load_recogniser", load_recogniser)
    path, transcript = continue_recording(checkpoint, str(recordings[0]), seed=0, asr_model="whisper")
    assert transcript == f"whisper heard {soundfile.info(path).frames} samples"
