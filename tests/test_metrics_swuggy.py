"""Values computed by hand, and the arithmetic of the official ZeroSpeech 2021 evaluation written out in pandas."""

import math

import numpy as np
import pandas
import pytest

from slam_hf.metrics.swuggy.swuggy import SWUGGY


@pytest.fixture
def swuggy():
    return SWUGGY(keep_in_memory=True)


def test_voices_and_vocabulary_by_hand(swuggy):
    results = swuggy.compute(
        correct_scores=[-1.0, -3.0, -1.0, -2.0, -1.0],
        incorrect_scores=[-2.0, -2.0, -2.0, -2.0, -2.0],
        ids=["cat", "cat", "dog", "axolotl", "emu"],
        frequencies=[250, 250, 4, 0, None],
    )
    assert results["accuracy"] == pytest.approx((1 + 0 + 1 + 0.5 + 1) / 5)
    assert results["item_accuracy"] == pytest.approx((0.5 + 1 + 0.5 + 1) / 4)
    assert results["in_vocabulary_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert {name: entry["accuracy"] for name, entry in results["by_frequency"].items()} == {
        ">100": 0.5,
        "1-5": 1.0,
        "oov": 0.5,
        "unknown": 1.0,
    }
    assert (results["num_pairs"], results["num_items"], results["num_ties"]) == (5, 4, 1)


def test_agrees_with_the_official_tables(swuggy):
    generator = np.random.default_rng(0)
    rows = []
    for item in range(80):
        frequency = [0, 1, 4, 5, 19, 20, 99, 100, 5000][item % 9]
        for _ in range(generator.integers(1, 5)):
            rows.append((str(item), frequency, *generator.integers(-5, 0, size=2).astype(float)))
    gold = pandas.DataFrame(rows, columns=["ids", "frequencies", "correct_scores", "incorrect_scores"])
    results = swuggy.compute(**gold.to_dict("list"))

    points = (gold.correct_scores > gold.incorrect_scores) + 0.5 * (gold.correct_scores == gold.incorrect_scores)
    by_pair = gold.assign(points=points).groupby("ids").agg({"points": "mean", "frequencies": "first"})
    labels = ["oov", "1-5", "6-20", "21-100", ">100"]
    bands = pandas.cut(by_pair.frequencies, [0, 1, 5, 20, 100, math.inf], labels=labels, right=False)
    by_frequency = by_pair.points.groupby(bands, observed=True).mean()
    assert results["item_accuracy"] == pytest.approx(by_pair.points.mean())
    assert results["in_vocabulary_accuracy"] == pytest.approx(by_pair.points[bands != "oov"].mean())
    assert {name: entry["accuracy"] for name, entry in results["by_frequency"].items()} == pytest.approx(
        by_frequency.to_dict()
    )


def test_without_known_words_there_is_no_vocabulary_accuracy(swuggy):
    results = swuggy.compute(correct_scores=[0.0], incorrect_scores=[-1.0], ids=["1"], frequencies=[0])
    assert results["item_accuracy"] == 1.0
    assert math.isnan(results["in_vocabulary_accuracy"])
