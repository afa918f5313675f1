import json
import math
import sys

import pytest
import soundfile
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from slam_hf import HubertUnitTokenizer
from slam_hf.evaluation.arguments import ContinuationArguments, EvaluationArguments
from slam_hf.evaluation.continuation_tasks import evaluate_continuations, score_records
from slam_hf.metrics.auto_bleu.auto_bleu import auto_bleu


LETTERS = list("abcdefghij")


def save_recogniser(folder) -> None:
    """A tiny wav2vec 2.0 that hears random letters."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(["<pad>", "|", *LETTERS])}))
    tokenizer = Wav2Vec2CTCTokenizer(
        folder / "vocab.json", unk_token="<pad>", pad_token="<pad>", bos_token=None, eos_token=None
    )
    feature_extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16000, return_attention_mask=False)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2Processor(feature_extractor, tokenizer).save_pretrained(folder)


def save_text_lm(folder) -> None:
    """A tiny GPT-2 over letters."""
    backend = Tokenizer(WordLevel({token: id for id, token in enumerate(["<begin>", " ", *LETTERS])}, unk_token=" "))
    backend.pre_tokenizer = Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<begin>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


@pytest.fixture
def workplace(tmp_path, tiny_model, tiny_codec, recordings):
    """Folders of the models, and of three stories."""
    tiny_model.save_pretrained(tmp_path / "model")
    HubertUnitTokenizer(num_units=50).save_pretrained(tmp_path / "model")
    tiny_codec.save_pretrained(tmp_path / "codec")
    save_recogniser(tmp_path / "recogniser")
    save_text_lm(tmp_path / "text_lm")
    (tmp_path / "sSC").mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    for number in (1, 2, 10):
        soundfile.write(tmp_path / "sSC" / f"{number}_correct.wav", waveform[number * 8000 :][:16000], rate)
        soundfile.write(tmp_path / "sSC" / f"{number}_incorrect.wav", waveform[:16000], rate)
    return tmp_path


def evaluate(workplace, model, task, **kwargs):
    args = EvaluationArguments(
        model=str(workplace / "model"),
        task=task,
        data=str(workplace / "sSC"),
        codec=str(workplace / "codec"),
        output_dir=str(workplace / "results"),
    )
    continuation_args = ContinuationArguments(
        prompt_seconds=0.5, asr_model=str(workplace / "recogniser"), text_lm=str(workplace / "text_lm"), batch_size=2
    )
    for name, value in kwargs.items():
        setattr(continuation_args, name, value)
    return evaluate_continuations(args, continuation_args, model)


def test_genppl_and_auto_bleu_judge_the_same_transcripts(workplace, tiny_model, monkeypatch):
    genppl = evaluate(workplace, tiny_model, "genppl")
    assert [record["prompt"] for record in genppl.records] == ["1_correct", "2_correct", "10_correct"]
    losses = [record["negative_log_likelihood"] for record in genppl.records]
    assert genppl.results["genppl"] == pytest.approx(math.exp(sum(losses) / 3))
    losses = [record["continuation_negative_log_likelihood"] for record in genppl.records]
    assert genppl.results["continuation"]["genppl"] == pytest.approx(math.exp(sum(losses) / 3))
    assert genppl.settings["generation"]["top_k"] == 25
    assert genppl.settings["text_lm"]["start_token"] == "<begin>"

    monkeypatch.setattr(tiny_model, "generate", None)  # nothing is generated again
    bleu = evaluate(workplace, tiny_model, "auto_bleu")
    transcripts = [record["transcript"] for record in genppl.records]
    assert [record["transcript"] for record in bleu.records] == transcripts
    assert bleu.results["auto_bleu"] == pytest.approx(sum(map(auto_bleu, transcripts)) / 3)
    assert bleu.results["continuation"]["num_transcripts"] == 3


def test_other_settings_are_another_evaluation(workplace, tiny_model):
    first = evaluate(workplace, tiny_model, "auto_bleu", num_prompts=1)
    second = evaluate(workplace, tiny_model, "auto_bleu", num_prompts=1, seed=5)
    assert len(first.records) == 1
    assert first.records[0]["units"] != second.records[0]["units"]


def test_empty_transcripts_are_counted_and_do_not_count():
    record = {"skipped": None, "negative_log_likelihood": 2.0, "continuation_negative_log_likelihood": 3.0}
    silent = record | {"continuation_negative_log_likelihood": None}
    skipped = {"skipped": "3_correct: empty"}
    results = score_records("genppl", [record, silent, skipped])
    assert results["genppl"] == pytest.approx(math.exp(2.0))
    assert (results["num_transcripts"], results["num_empty"]) == (2, 0)
    assert results["continuation"]["genppl"] == pytest.approx(math.exp(3.0))
    assert (results["continuation"]["num_transcripts"], results["continuation"]["num_empty"]) == (2, 1)


def test_auto_bleu_without_nltk_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    monkeypatch.delitem(sys.modules, "slam_hf.metrics.auto_bleu.auto_bleu")
    with pytest.raises(ImportError, match=r'Auto-BLEU needs nltk: pip install "slam-hf\[metrics\]"'):
        score_records("auto_bleu", [{"skipped": None, "transcript": "a", "continuation_transcript": "a"}])


def test_all_prompts_skipped(workplace, tiny_model):
    for path in (workplace / "sSC").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="Every one of 3 items had to be skipped"):
        evaluate(workplace, tiny_model, "genppl")
