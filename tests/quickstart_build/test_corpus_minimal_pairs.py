from collections import Counter

import pytest
from quickstart.corpus import minimal_pairs
from quickstart.sentences import normalize


@pytest.fixture(scope="module")
def pairs():
    return minimal_pairs.generate_pairs(40, excluded=set())


def test_pairs_are_of_seven_phenomena_different_and_reproducible(pairs):
    assert Counter(pair.type for pair in pairs).most_common() == [
        ("subject_verb_agreement", 40),
        ("subject_verb_agreement_attractor", 40),
        ("determiner_noun_agreement", 40),
        ("anaphor_agreement", 40),
        ("irregular_forms", 40),
        ("argument_structure", 40),
        ("word_order", 40),
    ]
    assert len({pair.good for pair in pairs}) == len(pairs)
    assert pairs == minimal_pairs.generate_pairs(40, excluded=set())


def test_a_pair_differs_in_one_word_or_in_the_order_of_words(pairs):
    for pair in pairs:
        good, bad = normalize(pair.good).split(), normalize(pair.bad).split()
        assert len(good) == len(bad)
        if pair.type == "word_order":
            assert good != bad and sorted(good) == sorted(bad)
        else:
            assert sum(word != other for word, other in zip(good, bad, strict=True)) == 1


def test_the_deciding_words_are_right_about_as_often_as_wrong(pairs):
    for phenomenon in ("subject_verb_agreement", "determiner_noun_agreement", "anaphor_agreement"):
        words = Counter()
        for pair in pairs:
            if pair.type == phenomenon:
                good, bad = (Counter(normalize(text).split()) for text in (pair.good, pair.bad))
                words.update(good - bad)
        assert len(words) in (2, 4)
        assert min(words.values()) >= 0.3 * sum(words.values()) / (len(words) / 2)


def test_excluded_sentences_do_not_occur():
    first = minimal_pairs.generate_pairs(5, excluded=set())
    excluded = {normalize(pair.good) for pair in first[::2]} | {normalize(pair.bad) for pair in first[1::2]}
    again = minimal_pairs.generate_pairs(5, excluded)
    assert excluded.isdisjoint(normalize(text) for pair in again for text in (pair.good, pair.bad))


def test_too_many_pairs_are_refused():
    with pytest.raises(ValueError, match="has no 3000 different pairs"):
        minimal_pairs.generate_pairs(3_000, excluded=set())
