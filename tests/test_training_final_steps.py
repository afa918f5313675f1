import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from training_utils import make_trainer, tiny_speech_lm
from transformers import AutoModelForCausalLM, EncodecFeatureExtractor, pipeline
from trl import ModelConfig

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.fingerprints import hash_model
from slam_hf.training import final_steps
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.final_steps import (
    PROMPT_UNITS,
    check_final_steps,
    continue_document,
    continue_recording,
    save_final_model,
    trained_model,
)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_model_in_memory_is_the_one_that_was_saved(tmp_path, bf16):
    trainer = make_trainer(tmp_path, max_steps=2, bf16=bf16)
    trainer.train()
    trainer.save_model()
    model = trained_model(trainer, ModelConfig(dtype="float32"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert model is trainer.model and not model.training
    assert hash_model(model) == hash_model(loaded)
    ids = torch.arange(20)[None] % 50 + 2
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, loaded(ids).logits, rtol=0, atol=0)


def kill(*args):
    raise KeyboardInterrupt


def test_a_run_that_is_killed_while_it_saves_leaves_no_folder_that_looks_complete(tmp_path, monkeypatch):
    first, second = (make_trainer(tmp_path, max_steps=1) for _ in range(2))
    save_final_model(first)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer_config.json", "training_args.bin"} <= files.keys()
    with torch.no_grad():
        second.model.get_input_embeddings().weight.add_(1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(second.processing_class, "save_pretrained", kill)  # after the weights
        save_final_model(second)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == files
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", lambda path, other: kill() if "model" in path.name else os.replace(path, other))
        save_final_model(second)
    assert "config.json" in os.listdir(tmp_path) and "model.safetensors" not in os.listdir(tmp_path)
    save_final_model(second)
    assert {path.name for path in tmp_path.iterdir()} == files.keys()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert hash_model(loaded) == hash_model(second.model) != hash_model(tiny_speech_lm())


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"attn_implementation": "flash_attention_2"}])
def test_a_model_that_computes_otherwise_is_loaded(tmp_path, options):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.save_model()
    model = trained_model(trainer, ModelConfig(**{"dtype": "float32", **options}))
    assert model is not trainer.model
    assert model.dtype == torch.float32


@pytest.fixture
def stories(tmp_path):
    """A function that writes pairs of units as a benchmark."""

    def write(*names, units=range(20)):
        rows = {"id": names, "units": [list(units)] * len(names)}
        Dataset.from_dict(rows).to_parquet(tmp_path / "stories" / "units.parquet")
        return PretrainArguments(num_units=50, benchmarks=json.dumps({"sstorycloze": str(tmp_path / "stories")}))

    return write


def test_benchmarks_are_read_before_training(stories, tmp_path):
    check_final_steps(stories("1_correct", "1_incorrect"), 16_000)
    with pytest.raises(ValueError, match="not a pair"):
        check_final_steps(stories("1_correct", "1_incorrect", "2_correct"), 16_000)
    with pytest.raises(ValueError, match="has the unit 50"):
        check_final_steps(stories("1_correct", "1_incorrect", units=[3, 50]), 16_000)
    args = stories("1_correct", "1_incorrect")
    (tmp_path / "stories" / "units.parquet").write_bytes(b"damaged")
    with pytest.raises((OSError, ValueError), match=r"units\.parquet"):
        check_final_steps(args, 16_000)


def test_matplotlib_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(final_steps, "is_matplotlib_available", lambda: False)
    check_final_steps(PretrainArguments(), 16_000)
    assert 'pip install "slam-hf[plots]"' in capsys.readouterr().out


def test_audio_of_benchmarks_needs_a_codec(tmp_path):
    for name in ("1_correct", "1_incorrect"):
        (tmp_path / f"{name}.wav").write_bytes(b"")
    args = PretrainArguments(num_units=50, benchmarks={"sstorycloze": str(tmp_path)})
    with pytest.raises(ValueError, match="holds audio: name the `codec`"):
        check_final_steps(args, 16_000)


def test_benchmarks_of_text_need_a_model_of_text_and_no_codec(tmp_path):
    for name in ("1_mutual", "1_correct", "1_incorrect"):
        (tmp_path / f"{name}.txt").write_text("One.")
    benchmarks = {"sstorycloze_t2t": str(tmp_path)}
    check_final_steps(PretrainArguments(num_units=50, text_tokenizer="tokenizer", benchmarks=benchmarks), 16_000)
    with pytest.raises(ValueError, match="sstorycloze_t2t has text, and the model only knows units"):
        check_final_steps(PretrainArguments(num_units=50, benchmarks=benchmarks), 16_000)


def test_the_prompt_and_the_recogniser_are_tried_before_training(tmp_path, recordings):
    (tmp_path / "prompt.wav").write_bytes(b"not audio")
    with pytest.raises(ValueError, match=r"prompt\.wav"):
        check_final_steps(PretrainArguments(prompt=str(tmp_path / "prompt.wav"), codec="codec"), 16_000)
    args = PretrainArguments(prompt=str(recordings[0]), codec="codec", asr_model=str(tmp_path / "whisper"))
    with pytest.raises(OSError, match="whisper"):
        check_final_steps(args, 16_000)


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

    monkeypatch.setattr(final_steps, "load_recogniser", load_recogniser)
    path = tmp_path / "continuation.wav"
    transcript = continue_recording(tiny_model, make_processor(tiny_codec), str(recordings[0]), 0, path, "whisper")
    assert transcript == f"whisper heard {soundfile.info(path).frames} samples"
