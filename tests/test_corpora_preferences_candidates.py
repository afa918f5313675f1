import numpy as np
import pytest
import torch
from test_pipeline_audio_to_audio import text_model
from tiny_judges import save_recogniser
from transformers import EncodecFeatureExtractor, pipeline

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.corpora.preferences.candidates import CandidateMaker
from slam_hf.corpora.preferences.prompts import Prompt
from slam_hf.judging.judge import Judge, Judgement
from slam_hf.judging.transcription import load_recogniser
from slam_hf.unit_vocabulary import unit_string


class Length(Judge):
    """Finds the longest text best, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def _judge(self, exchanges):
        self.asked += exchanges
        return [Judgement(float(len(exchange.continuation))) for exchange in exchanges]


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser") / "recogniser"
    save_recogniser(folder)
    return load_recogniser(str(folder), torch.device("cpu"))


@pytest.fixture(params=["units", "text and units"])
def maker(request, tiny_model, tiny_codec, recogniser):
    model, tokenizer = tiny_model, HubertUnitTokenizer(num_units=50)
    if request.param == "text and units":
        model, tokenizer = text_model(num_units=50)
    processor = SpeechLMProcessor(EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000), tokenizer)
    speak = pipeline("audio-to-audio", model=model, processor=processor, codec=tiny_codec, device="cpu")
    return CandidateMaker(speak, recogniser, Length(), {"max_new_tokens": 12}, 1.0, 2, seed=0, batch_size=4)


def test_prompts_of_units_and_their_texts_are_what_was_given(maker):
    prompts = [Prompt("a", 0.2, units=[3, 4, 5], text="the text"), Prompt("b", 0.4, units=[7, 8, 9, 10, 11, 12])]
    rows = maker.continue_prompts(prompts, ["0", "1"])
    assert [row["prompt"] for row in rows] == [unit_string(prompt.units) for prompt in prompts]
    assert rows[0]["prompt_text"] == "the text" and rows[1]["prompt_text"] != ""
    asked = [
        (row["prompt_text"], item["text"]) for row in rows for item in row["continuations"] if item["text"].strip()
    ]
    assert maker.judge.asked == asked
    for row in rows:
        last = row["prompt"].rpartition("<")[2]
        assert len(row["continuations"]) == 2
        assert not any(item["units"].startswith(f"<{last}") for item in row["continuations"])
        assert all(item["units"].count("<Un") <= 12 for item in row["continuations"])


def test_a_prompt_is_continued_as_it_is_alone(maker):
    generator = np.random.default_rng(0)
    waveforms = [0.1 * generator.standard_normal(length).astype(np.float32) for length in (8_000, 16_000)]
    prompts = [
        Prompt(name, len(waveform) / 16_000, waveform=waveform) for name, waveform in zip("ab", waveforms, strict=True)
    ]
    together = maker.continue_prompts(prompts, ["0", "1"])
    alone = [maker.continue_prompts([prompt], ["0"])[0] for prompt in prompts]
    units = [[item["units"] for row in rows for item in row["continuations"]] for rows in (together, alone)]
    assert units[0] == units[1] and len(set(units[0])) == 4
