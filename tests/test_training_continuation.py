import numpy as np
import soundfile
import torch
from transformers import EncodecFeatureExtractor, pipeline

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.training import continuation as continuation_module
from slam_hf.training.continuation import PROMPT_UNITS, continue_document, continue_recording


def make_processor(codec=None):
    return SpeechLMProcessor(
        EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000), HubertUnitTokenizer(num_units=50), codec
    )


def test_a_document_is_continued_from_its_beginning(tiny_model, tmp_path):
    document, path = np.arange(100) % 50, tmp_path / "continuation.wav"
    prompt, continuation = continue_document(tiny_model, make_processor(), document, seed=0, path=path)
    np.testing.assert_array_equal(prompt, document[:PROMPT_UNITS])
    assert 0 < len(continuation) <= 150
    assert continuation.min() >= 0 and continuation.max() < 50
    again = continue_document(tiny_model, make_processor(), document, seed=0, path=path)[1]
    np.testing.assert_array_equal(again, continuation)
    assert not path.exists()


def test_the_sampling_is_that_of_the_paper(tiny_model, tmp_path):
    prompt = make_processor().tokenizer.encode_units(np.arange(30), return_tensors="pt")
    torch.manual_seed(0)
    settings = {"temperature": 0.8, "top_k": 25, "repetition_penalty": 1.1, "max_new_tokens": 150}
    expected = tiny_model.generate(**prompt, do_sample=True, **settings)[0, 31:]
    continuation = continue_document(tiny_model, make_processor(), np.arange(30), 0, tmp_path / "a.wav")[1]
    np.testing.assert_array_equal(continuation, make_processor().tokenizer.decode_units(expected))


def test_a_codec_with_a_vocoder_makes_it_audible(tiny_model, tmp_path, tiny_codec):
    path = tmp_path / "continuation.wav"
    prompt, continuation = continue_document(tiny_model, make_processor(tiny_codec), np.arange(30), seed=0, path=path)
    waveform, sampling_rate = soundfile.read(path, dtype="float32")
    units = torch.from_numpy(np.concatenate([prompt, continuation]))[None]
    expected = tiny_codec.decode(units).audio_values[0, 0].detach().numpy()
    assert sampling_rate == 16_000
    np.testing.assert_allclose(waveform, expected, atol=1 / 2**15)


def test_a_recording_is_continued_from_its_beginning(tiny_model, tmp_path, tiny_codec, recordings):
    processor, path = make_processor(tiny_codec), tmp_path / "continuation.wav"
    assert continue_recording(tiny_model, processor, str(recordings[0]), seed=0, path=path) is None
    speak = pipeline("audio-to-audio", model=tiny_model, processor=processor)
    expected = speak(str(recordings[0]), prompt_duration=3.0, min_new_tokens=50, seed=0)
    assert len(expected["units"]) >= 50
    waveform, sampling_rate = soundfile.read(path, dtype="float32")
    assert sampling_rate == 16_000
    np.testing.assert_allclose(waveform, expected["audio"].clip(-1, 1), atol=1 / 2**15)


def test_a_recogniser_transcribes_it(tiny_model, tmp_path, tiny_codec, recordings, monkeypatch):
    def load_recogniser(model, device):
        return lambda inputs, batch_size: [{"text": f" {model} heard {len(audio['raw'])} samples"} for audio in inputs]

    monkeypatch.setattr(continuation_module, "load_recogniser", load_recogniser)
    path = tmp_path / "continuation.wav"
    transcript = continue_recording(tiny_model, make_processor(tiny_codec), str(recordings[0]), 0, path, "whisper")
    assert transcript == f"whisper heard {soundfile.info(path).frames} samples"
