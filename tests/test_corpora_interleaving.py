import json
import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from slam_hf import SpeechTextTokenizer
from slam_hf.corpora.interleaving import draw_speech_words, find_problem, interleave_words, interleaved_string


@pytest.fixture
def reference(interleaved_checkpoint):
    """Utterances, and what the reference toolkit made of them."""
    return json.loads((interleaved_checkpoint / "interleaved.json").read_text())


@pytest.fixture
def tokenizer(interleaved_checkpoint) -> SpeechTextTokenizer:
    return AutoTokenizer.from_pretrained(
        interleaved_checkpoint, text_tokenizer=interleaved_checkpoint / "text-tokenizer"
    )


def words(*timed: tuple) -> list[dict]:
    return [{"word": word, "start_time": start, "end_time": end} for word, start, end in timed]


def spans(is_speech: np.ndarray) -> list[int]:
    """Lengths of the spans of speech."""
    edges = np.flatnonzero(np.diff([0, *is_speech.astype(int), 0]))
    return (edges[1::2] - edges[::2]).tolist()


def test_strings_and_ids_are_those_of_the_reference_toolkit(reference, tokenizer):
    for case in reference["cases"]:
        row = reference["rows"][case["row"]]
        utterance = words(*row["aligned_text"])
        mixed = interleave_words(
            utterance, case["is_speech"], row["units"], row["duration"], reference["unit_seconds"]
        )
        string = interleaved_string(mixed, tokenizer)
        assert string == case["string"]
        assert tokenizer(string)["input_ids"] == case["input_ids"]


def test_the_units_of_a_span_end_between_its_first_and_last_word():
    utterance = words(("a", 0.0, 0.08), (" b", 0.08, 0.2), (" c", 0.2, 0.3))
    units, durations = [5, 6, 7, 8], [2, 1, 2, 3]  # which end at 0.08, 0.12, 0.2 and 0.32 s
    mix = [interleave_words(utterance, mask, units, durations, 0.04) for mask in ([1, 0, 0], [0, 1, 0], [0, 1, 1])]
    assert mix == [[[5], " b c"], ["a", [5, 6, 7], " c"], ["a", [5, 6, 7]]]


def test_a_poisson_span_neither_overlaps_nor_adjoins_another():
    generator = np.random.default_rng(0)
    lengths, shares = [], []
    for _ in range(300):
        is_speech = draw_speech_words(300, generator, "poisson", 10, 0.3)
        assert is_speech.sum() >= 90
        lengths += spans(is_speech)
        shares.append(is_speech.mean())
    # The last span goes beyond the share by half its length, and long ones fit less often.
    assert 0.3 < np.mean(shares) < 0.33
    assert 9 < np.mean(lengths) < 10
    assert np.var(lengths) == pytest.approx(10, rel=0.2)


def test_poisson_spans_are_distributed_as_those_that_are_drawn_until_they_fit():
    def draw_until_it_fits(generator, num_words=14):
        is_speech = np.zeros(num_words, dtype=bool)
        while is_speech.sum() < math.ceil(0.3 * num_words):
            start, length = generator.integers(num_words), generator.poisson(4)
            if length > 0 and not is_speech[max(0, start - 1) : start + length + 1].any():
                is_speech[start : start + length] = True
        return is_speech

    generator = np.random.default_rng(0)
    expected = np.mean([draw_until_it_fits(generator) for _ in range(5_000)], axis=0)
    drawn = np.mean([draw_speech_words(14, generator, "poisson", 4, 0.3) for _ in range(5_000)], axis=0)
    np.testing.assert_allclose(drawn, expected, atol=0.03)


@pytest.mark.parametrize("num_words", [1, 2, 3, 14])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("span_length", [1, 10, 1000])
def test_poisson_spans_end_where_no_more_fit(num_words, share, span_length):
    is_speech = draw_speech_words(num_words, np.random.default_rng(0), "poisson", span_length, share)
    assert is_speech.shape == (num_words,)
    assert 1 <= is_speech.sum() <= num_words


def test_every_word_can_begin_a_span():
    class Given:
        def random(self, size):
            return np.array([0.9, 0.1, 0.9, 0.9, 0.9, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9, 0.1])[:size]

    is_speech = draw_speech_words(12, Given(), "span", 3, 0.3)
    assert is_speech.astype(int).tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1]


def test_random_words_are_half_of_them():
    assert draw_speech_words(10_000, np.random.default_rng(0), "random").mean() == pytest.approx(0.5, abs=0.02)


def test_another_method_is_refused():
    with pytest.raises(ValueError, match="can be poisson, span, random, got 'uniform'"):
        draw_speech_words(3, np.random.default_rng(0), "uniform")


@pytest.mark.parametrize(
    ("utterance", "problem"),
    [
        (words(("a", 0.0, 0.5), (" b", 0.5, 1.0)), None),
        (words(("a", 0.0, 0.5005), (" b", 0.5, 1.0)), None),
        (None, "no times of words"),
        ([], "no times of words"),
        (words(("a", 0.0, 0.5), (" ", 0.5, 1.0)), "an empty word"),
        (words((None, 0.0, 0.5)), "an empty word"),
        (words(("a", None, 0.5)), "a word without times"),
        (words(("a", 0.0, math.inf)), "a word without times"),
        (words(("a", 0.0, 0.6), (" b", 0.5, 1.0)), "words that overlap or run backwards"),
        (words(("a", 0.5, 0.4)), "words that overlap or run backwards"),
        (words(("a", 0.5, 0.9), (" b", 0.1, 0.3)), "words that overlap or run backwards"),
        (words(("a", -0.1, 0.5)), "times beyond the audio"),
        (words(("a", 0.0, 1.1)), "times beyond the audio"),
    ],
)
def test_unusable_times_are_named(utterance, problem):
    assert find_problem(utterance, seconds=1.0) == problem
