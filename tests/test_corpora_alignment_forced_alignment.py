import pytest
import torch

from slam_hf.corpora.alignment import forced_alignment
from slam_hf.corpora.alignment.forced_alignment import align_words
from slam_hf.corpora.alignment.word_times import UnalignableError


def log_probabilities(best: list[int], size: int = 5) -> torch.Tensor:
    """Log-probabilities with one token that is near certain in each frame."""
    return (20.0 * torch.nn.functional.one_hot(torch.tensor(best), size)).log_softmax(-1)


def test_words_have_the_frames_of_their_letters():
    # Tokens: 0 blank, 1 delimiter, 2 to 4 letters. The words are "234" and "33", whose letters a blank separates.
    best = [0, 0, 2, 2, 3, 0, 4, 1, 0, 3, 0, 3, 3, 0]
    assert align_words(log_probabilities(best), [[2, 3, 4], [3, 3]], blank=0, delimiter=1) == [(2, 7), (9, 13)]


def test_a_vocabulary_may_have_no_delimiter_and_its_blank_anywhere():
    best = [3, 4, 4, 0, 4, 2]
    assert align_words(log_probabilities(best), [[3], [0], [2]], blank=4) == [(0, 1), (3, 4), (5, 6)]


def test_frames_must_suffice_for_the_tokens_and_for_blanks_between_equal_ones():
    words = [[3, 3], [2]]  # 3, blank, 3, delimiter, 2
    assert align_words(log_probabilities([3, 0, 3, 1, 2]), words, blank=0, delimiter=1) == [(0, 3), (4, 5)]
    with pytest.raises(UnalignableError, match="too short for its text .4 frames for 5 tokens") as error:
        align_words(log_probabilities([3, 0, 3, 2]), words, blank=0, delimiter=1)
    assert error.value.reason == "too short for its text"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_an_error(value):
    outputs = log_probabilities([2, 3])
    outputs[1, 0] = value
    with pytest.raises(UnalignableError, match="not finite"):
        align_words(outputs, [[2], [3]], blank=0)


def test_an_alignment_that_memory_does_not_hold_is_an_error(monkeypatch):
    monkeypatch.setattr(forced_alignment, "MAX_CELLS", 5)
    with pytest.raises(UnalignableError, match="too long .3 frames by 2 tokens"):
        align_words(log_probabilities([2, 0, 3]), [[2], [3]], blank=0)
