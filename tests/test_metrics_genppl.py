"""On tiny models: the numbers are compared with transformers' own loss of each text alone."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from slam_hf.metrics.genppl.genppl import GenPPL, negative_log_likelihoods, summarize


WORDS = ["the", "cat", "sat", "on", "mat", "<begin>", "<other>", "<end>"]


@pytest.fixture
def tokenizer():
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<begin>", eos_token="<end>", additional_special_tokens=["<other>"]
    )


@pytest.fixture
def text_lm():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()


def loss_alone(text_lm, ids: list[int]) -> float:
    """transformers' loss: the mean over all tokens but the first."""
    input_ids = torch.tensor([ids])
    return text_lm(input_ids, labels=input_ids).loss.item()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_losses_are_those_of_each_text_alone(text_lm, tokenizer, batch_size):
    texts = ["the cat", "the cat sat on the mat", "cat"]
    losses = negative_log_likelihoods(texts, text_lm, tokenizer, batch_size=batch_size)
    expected = [loss_alone(text_lm, ids) for ids in ([5, 0, 1], [5, 0, 1, 2, 3, 0, 4], [5, 1])]
    assert losses == pytest.approx(expected, abs=1e-5)


def test_start_token_can_be_another_one(text_lm, tokenizer):
    losses = negative_log_likelihoods(["the cat"], text_lm, tokenizer, start_token="<other>")
    assert losses == pytest.approx([loss_alone(text_lm, [6, 0, 1])], abs=1e-5)


def test_unknown_start_token_is_refused(text_lm, tokenizer):
    with pytest.raises(ValueError, match=r"'<s>' is no token of the text LM's tokenizer"):
        negative_log_likelihoods(["the cat"], text_lm, tokenizer, start_token="<s>")


def test_missing_start_token_is_asked_for(text_lm, tokenizer):
    tokenizer.bos_token = None
    with pytest.raises(ValueError, match=r"has no `bos_token`: pass `start_token="):
        negative_log_likelihoods(["the cat"], text_lm, tokenizer)


def test_perplexity_is_the_exponential_of_the_mean_over_texts():
    # Not of the mean over tokens: a long text counts as much as a short one.
    results = summarize([1.0, 2.0, None])
    assert results["genppl"] == pytest.approx(math.exp(1.5))
    assert results["genppl_interval"] == pytest.approx([math.e, math.e**2])
    assert (results["num_transcripts"], results["num_empty"]) == (3, 1)


def test_only_empty_transcripts_have_no_perplexity():
    results = summarize([None, None])
    assert math.isnan(results["genppl"])
    assert results["num_empty"] == 2


def test_interval_is_that_of_the_mean_loss():
    losses = np.random.default_rng(0).normal(4.0, 0.5, size=500).tolist()
    half_width = 1.96 * 0.5 / math.sqrt(500)
    low, high = summarize(losses)["genppl_interval"]
    assert math.log(high / low) / 2 == pytest.approx(half_width, rel=0.1)


def test_metric_loads_any_causal_lm(text_lm, tokenizer, tmp_path):
    text_lm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    results = GenPPL(keep_in_memory=True).compute(predictions=["the cat", " ", "mat"], model_id=str(tmp_path))
    losses = [loss_alone(text_lm, [5, 0, 1]), loss_alone(text_lm, [5, 4])]
    assert results["negative_log_likelihoods"] == [pytest.approx(losses[0]), None, pytest.approx(losses[1])]
    assert results["genppl"] == pytest.approx(math.exp(sum(losses) / 2))
    assert results["num_empty"] == 1


def test_losses_take_the_place_of_a_model():
    metric = GenPPL(keep_in_memory=True)
    results = metric.compute(predictions=["the cat", "", "mat"], losses=[1.0, None, 2.0])
    assert results == summarize([1.0, None, 2.0])
    for options in ({}, {"losses": [1.0], "model_id": "some-lm"}):
        with pytest.raises(ValueError, match="Pass either `model_id`, the text language model, or its `losses`"):
            GenPPL(keep_in_memory=True).compute(predictions=["the cat"], **options)
