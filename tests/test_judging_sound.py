import sys

import numpy as np
import pytest
import torch
from tiny_judges import WAV2VEC2
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForXVector

from slam_hf.judging import sound


def test_quality_is_predicted_at_the_rate_of_the_model(dnsmos):
    clip = np.full(16_000, 2.0, dtype=np.float32)
    assert sound.rate_quality(clip, 16_000) == {"overall": 1.0, "signal": 1.0, "background": 3.0, "p808": 4.0}
    assert sound.rate_quality(clip, 8_000)["overall"] == 2.0
    assert sound.describe_quality_model() == {"name": "DNSMOS", "package": "speechmos", "version": "speechmos 1"}


def test_an_empty_clip_has_no_quality(dnsmos):
    assert set(sound.rate_quality(np.zeros(0, dtype=np.float32), 16_000).values()) == {None}


def test_quality_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos", None)
    with pytest.raises(ImportError, match=r'Speech quality needs speechmos: pip install "slam-hf\[quality\]"'):
        sound.describe_quality_model()


def test_real_quality_of_speech_and_noise(recordings):
    pytest.importorskip("speechmos")
    pytest.importorskip("librosa")
    pytest.importorskip("onnxruntime")
    import soundfile

    speech, rate = soundfile.read(recordings[0], dtype="float32")
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    assert sound.rate_quality(speech[: 2 * rate], rate)["overall"] == pytest.approx(3.31, abs=0.02)
    assert sound.rate_quality(noise, rate)["overall"] == pytest.approx(1.08, abs=0.05)


@pytest.fixture(scope="module")
def speaker_model(tmp_path_factory):
    """A tiny wav2vec 2.0 of speaker verification with random weights."""
    folder = tmp_path_factory.mktemp("speaker")
    torch.manual_seed(0)
    config = Wav2Vec2Config(**WAV2VEC2, tdnn_dim=[8] * 5, xvector_output_dim=8)
    Wav2Vec2ForXVector(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16_000, return_attention_mask=False).save_pretrained(folder)
    return folder


def test_similarity_is_that_of_the_embeddings(speaker_model, recordings):
    import soundfile

    first, second = (soundfile.read(path, dtype="float32")[0][:16_000] for path in recordings)
    encoder = sound.SpeakerEncoder(str(speaker_model), torch.device("cpu"))
    assert encoder.similarity([first, first], 16_000) == pytest.approx(1.0)
    inputs = [encoder.feature_extractor(clip, sampling_rate=16_000, return_tensors="pt") for clip in (first, second)]
    with torch.no_grad():
        one, other = (encoder.model(**clip).embeddings[0] for clip in inputs)
    expected = (one @ other / one.norm() / other.norm()).item()
    assert encoder.similarity([first, second], 16_000) == pytest.approx(expected, abs=1e-6)
    assert encoder.similarity([first, second[:7_999]], 16_000) is None
