import numpy as np
import pytest

from slam_hf.metrics.storycloze.storycloze import StoryCloze


@pytest.fixture
def storycloze():
    return StoryCloze(keep_in_memory=True)


def test_right_wrong_and_tie_by_hand(storycloze):
    results = storycloze.compute(correct_scores=[-1.0, -2.0, -3.0, -1.0], incorrect_scores=[-2.0, -1.0, -3.0, -5.0])
    assert results["accuracy"] == (1 + 0 + 0.5 + 1) / 4
    assert (results["num_pairs"], results["num_ties"]) == (4, 1)


def test_interval_is_the_binomial_one(storycloze):
    outcomes = np.repeat([1.0, 0.0], [700, 300])
    results = storycloze.compute(correct_scores=outcomes.tolist(), incorrect_scores=[0.5] * 1000)
    half_width = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert results["accuracy_interval"] == pytest.approx([0.7 - half_width, 0.7 + half_width], abs=0.004)


def test_interval_of_a_certain_result_is_a_point(storycloze):
    results = storycloze.compute(correct_scores=[0.0] * 5, incorrect_scores=[-1.0] * 5)
    assert results["accuracy_interval"] == [1.0, 1.0]


def test_impossible_utterances_tie_or_lose(storycloze):
    results = storycloze.compute(correct_scores=[float("-inf"), float("-inf")], incorrect_scores=[float("-inf"), -1.0])
    assert results["accuracy"] == 0.25
