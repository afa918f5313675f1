import random

import numpy as np
import pytest

from slam_hf.codec_training import measures


def test_units_that_are_phones_remove_all_uncertainty_about_them():
    phones = np.array(["a", "a", "b", "c", "b"])
    assert measures.normalized_mutual_information(np.array([7, 7, 1, 4, 1]), phones) == pytest.approx(1.0)


def test_units_independent_of_phones_remove_none():
    assert measures.normalized_mutual_information([0, 0, 1, 1], ["a", "b", "a", "b"]) == pytest.approx(0.0)


def test_mutual_information_of_a_half_informative_unit():
    # H(phone) = log 4; the unit says which half, which is log 2.
    assert measures.normalized_mutual_information([0, 0, 1, 1], ["a", "b", "c", "d"]) == pytest.approx(0.5)


def test_one_label_alone_has_no_information():
    assert np.isnan(measures.normalized_mutual_information([0, 1], ["a", "a"]))


def test_perplexity_is_the_number_of_units_used_equally_often():
    assert measures.perplexity([5, 5, 0, 5, 5]) == pytest.approx(4.0)
    assert measures.perplexity([0, 9]) == pytest.approx(1.0)


def test_unit_edit_rate_compares_deduplicated_units():
    assert measures.unit_edit_rate([[1, 1, 2, 3, 3]], [[1, 2, 2, 4]]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)]
)
def test_edit_distance(first, second, distance):
    assert measures.edit_distance(list(map(ord, first)), list(map(ord, second))) == distance


def test_edit_distance_is_that_of_the_definition():
    def recursive(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(recursive(a[1:], b) + 1, recursive(a, b[1:]) + 1, recursive(a[1:], b[1:]) + (a[0] != b[0]))

    rng = random.Random(0)
    for _ in range(30):
        a, b = ([rng.randrange(3) for _ in range(rng.randrange(6))] for _ in range(2))
        assert measures.edit_distance(a, b) == recursive(a, b)


def test_labels_are_those_at_the_middle_of_frames():
    words = [
        {"word": "a", "start_time": 0.0, "end_time": 0.07},
        {"word": "no time", "start_time": None, "end_time": None},
        {"word": "b", "start_time": 0.1, "end_time": 9.0},
    ]
    # The middles of 25 frames a second: 0.02, 0.06, 0.10, 0.14.
    assert measures.frame_labels(words, 4, 25.0) == ["a", "a", "b", "b"]
    assert measures.frame_labels(words[:1], 4, 25.0) == ["a", "a", "", ""]
