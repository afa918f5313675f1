import pytest

from slam_hf.metrics.auto_bleu.auto_bleu import AutoBLEU, auto_bleu


def test_repeated_bigrams_by_hand():
    # the-cat, cat-and, and-the, the-cat: two of four occur again.
    assert auto_bleu("the cat and the cat") == 0.5
    assert auto_bleu("the cat and the cat", n=1) == 0.8
    assert auto_bleu("a story that never repeats itself") == 0.0


def test_words_are_those_of_nltk():
    # Tokens: do, n't, ",", do, n't, "!" - both of the do-n't bigrams are repeated.
    assert auto_bleu("don't, don't!") == 2 / 5


def test_short_texts_count_as_nothing_repeated():
    results = AutoBLEU(keep_in_memory=True).compute(predictions=["no no no", "", "word", "one two"])
    assert results["auto_bleu"] == 0.25
    assert (results["num_transcripts"], results["num_short"]) == (4, 2)


def test_interval_holds_the_mean():
    texts = ["no no no", "one two three four"] * 50
    results = AutoBLEU(keep_in_memory=True).compute(predictions=texts)
    assert results["auto_bleu"] == 0.5
    assert results["auto_bleu_interval"] == pytest.approx([0.4, 0.6], abs=0.02)


def test_length_of_the_ngrams():
    results = AutoBLEU(keep_in_memory=True).compute(predictions=["a b c a b c"], n=3)
    assert results["auto_bleu"] == 0.5
