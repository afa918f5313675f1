import re
from functools import partial

import numpy as np
import pytest
import torch

from slam_hf import HubertUnitTokenizer
from slam_hf.evaluation import scoring
from slam_hf.evaluation.candidates import Candidate, TokenSequence


@pytest.fixture
def tokenizer():
    return HubertUnitTokenizer(num_units=50, add_eos_token=True)


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 60, size=(20, 2))
    return [tuple(generator.integers(0, 50, size=length) for length in row) for row in lengths]


def score_pairs(pairs, model, tokenizer, *args, **kwargs) -> np.ndarray:
    """The published scores of pairs of units, of shape `(pairs, 2)`."""
    ids = [[np.array(tokenizer.encode_units(units)["input_ids"]) for units in pair] for pair in pairs]
    candidates = [tuple(Candidate(TokenSequence(row, 1)) for row in pair) for pair in ids]
    scores = scoring.score_pairs(candidates, model, *args, **kwargs)
    assert np.isnan(scores[..., 1:]).all()
    return scores[..., 0]


def score_alone(model, units: np.ndarray, reduction: str = "mean") -> float:
    input_ids = torch.tensor([[1, *(units + 2), 1]])
    return model.log_likelihood(input_ids, reduction=reduction).item()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
def test_scores_are_those_of_each_utterance_alone(tiny_model, tokenizer, pairs, tmp_path, batch_tokens, reduction):
    scores = score_pairs(pairs, tiny_model, tokenizer, tmp_path, reduction, batch_tokens)
    expected = [[score_alone(tiny_model, units, reduction) for units in pair] for pair in pairs]
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-5)


def test_equal_units_have_equal_scores_whatever_the_batch(tiny_model, tokenizer, pairs, tmp_path):
    same = [(first, first.copy()) for first, _ in pairs]
    scores = score_pairs(same, tiny_model, tokenizer, tmp_path, batch_tokens=100)
    assert (scores[:, 0] == scores[:, 1]).all()


def test_close_scores_are_computed_again_alone(tiny_model, tokenizer, pairs, tmp_path, monkeypatch):
    # With every pair counted as close, no batch has any part in the scores: they are equal to the last bit.
    monkeypatch.setattr(scoring, "CLOSE", 1.0)
    small = score_pairs(pairs, tiny_model, tokenizer, tmp_path / "small", batch_tokens=100)
    large = score_pairs(pairs[::-1], tiny_model, tokenizer, tmp_path / "large", batch_tokens=8192)
    assert (small == large[::-1]).all()
    assert small.tolist() == [[score_alone(tiny_model, units) for units in pair] for pair in pairs]


def test_batches_hold_sequences_of_about_one_length(tiny_model, tokenizer, pairs, tmp_path, monkeypatch):
    shapes = []
    log_likelihood = tiny_model.log_likelihood

    def count(input_ids, attention_mask, reduction):
        shapes.append((attention_mask.numel(), attention_mask.sum().item()))
        return log_likelihood(input_ids, attention_mask, reduction)

    monkeypatch.setattr(tiny_model, "log_likelihood", count)
    score_pairs(pairs, tiny_model, tokenizer, tmp_path, batch_tokens=200)
    computed, scored = np.sum(shapes, axis=0)
    assert max(shape[0] for shape in shapes) <= 200
    assert scored == sum(len(units) + 2 for pair in pairs for units in pair)
    assert scored / computed > 0.85


def test_one_bar_goes_to_its_end(tiny_model, tokenizer, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "CLOSE", 0.1)  # some pairs are computed again
    monkeypatch.setattr(scoring, "tqdm", partial(scoring.tqdm, mininterval=0))  # however fast it goes
    score_pairs(pairs, tiny_model, tokenizer, tmp_path, batch_tokens=200, name="sBLIMP")
    shown = capsys.readouterr().err.split("\r")[-1]
    total = int(re.search(r"sBLIMP: 100%.* (\d+)/\1 ", shown)[1])
    assert 40 < total < 80
    score_pairs(pairs, tiny_model, tokenizer, tmp_path, batch_tokens=200, name="sBLIMP")
    assert capsys.readouterr().err.count("sBLIMP") == 0


def test_finished_scores_are_not_computed_again(tiny_model, tokenizer, pairs, tmp_path, monkeypatch):
    log_likelihood, calls = tiny_model.log_likelihood, []

    def die_after_three_batches(*args):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(args[0].shape[0])
        return log_likelihood(*args)

    monkeypatch.setattr(tiny_model, "log_likelihood", die_after_three_batches)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(pairs, tiny_model, tokenizer, tmp_path, batch_tokens=200)
    finished = sum(calls)

    calls.clear()
    monkeypatch.setattr(
        tiny_model, "log_likelihood", lambda *args: calls.append(args[0].shape[0]) or log_likelihood(*args)
    )
    resumed = score_pairs(pairs, tiny_model, tokenizer, tmp_path, batch_tokens=200)
    assert finished + sum(calls) == 40
    uninterrupted = score_pairs(pairs, tiny_model, tokenizer, tmp_path / "other", batch_tokens=200)
    np.testing.assert_allclose(resumed, uninterrupted, atol=1e-5)
    assert ((resumed[:, 0] > resumed[:, 1]) == (uninterrupted[:, 0] > uninterrupted[:, 1])).all()
