"""Values computed by hand, and the arithmetic of the official ZeroSpeech 2021 evaluation written out in pandas."""

import numpy as np
import pandas
import pytest

from slam_hf.metrics.sblimp.sblimp import SBLIMP


@pytest.fixture
def sblimp():
    return SBLIMP(keep_in_memory=True)


def test_unequal_voices_by_hand(sblimp):
    # Item 1 has three voices (right, wrong, tie), item 2 one (right); item 1 of another type has two (both right).
    results = sblimp.compute(
        correct_scores=[-1.0, -2.0, -3.0, -1.0, -1.0, -1.0],
        incorrect_scores=[-2.0, -1.0, -3.0, -2.0, -2.0, -2.0],
        types=["agreement"] * 4 + ["binding"] * 2,
        subtypes=["number"] * 4 + ["principle_A"] * 2,
        ids=["1", "1", "1", "2", "1", "1"],
    )
    assert results["accuracy"] == pytest.approx((1 + 0 + 0.5 + 1 + 1 + 1) / 6)
    assert results["item_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert results["by_type"]["agreement"]["accuracy"] == pytest.approx(0.75)
    assert results["by_type"]["binding"]["accuracy"] == 1.0
    assert results["macro_accuracy"] == pytest.approx((0.75 + 1) / 2)
    assert results["voice_pair_accuracy"] == pytest.approx((0 + 1 + 1) / 3)
    assert (results["num_pairs"], results["num_items"], results["num_ties"]) == (6, 3, 1)
    assert results["by_type"]["agreement"]["num_items"] == 2


def test_two_ties_of_an_item_are_two_coins(sblimp):
    results = sblimp.compute(
        correct_scores=[0.0, 0.0], incorrect_scores=[0.0, 0.0], types=["a"] * 2, subtypes=["a"] * 2, ids=["1"] * 2
    )
    assert results["accuracy"] == 0.5
    assert results["voice_pair_accuracy"] == 0.25


def random_gold(num_items: int = 60) -> pandas.DataFrame:
    """Pairs of items of unequal size: 1 to 4 voices, 3 types with 2 subtypes, ids that repeat across subtypes."""
    generator = np.random.default_rng(1)
    rows = []
    for item in range(num_items):
        for _ in range(generator.integers(1, 5)):
            scores = generator.integers(-5, 0, size=2).astype(float)  # few values, so that ties occur
            rows.append((f"type{item % 3}", f"subtype{item % 6}", str(item // 6), *scores))
    return pandas.DataFrame(rows, columns=["types", "subtypes", "ids", "correct_scores", "incorrect_scores"])


def test_agrees_with_the_official_tables(sblimp):
    gold = random_gold()
    results = sblimp.compute(**gold.to_dict("list"))

    points = (gold.correct_scores > gold.incorrect_scores) + 0.5 * (gold.correct_scores == gold.incorrect_scores)
    by_pair = points.groupby([gold.types, gold.subtypes, gold.ids]).mean()
    by_type = by_pair.groupby(level="types").mean()
    assert results["num_ties"] > 0
    assert results["accuracy"] == pytest.approx(points.mean())
    assert results["item_accuracy"] == pytest.approx(by_pair.mean())
    assert results["macro_accuracy"] == pytest.approx(by_type.mean())
    assert {name: entry["accuracy"] for name, entry in results["by_type"].items()} == pytest.approx(by_type.to_dict())


def test_order_of_pairs_changes_nothing(sblimp):
    gold = random_gold()
    shuffled = gold.sample(frac=1.0, random_state=0)
    assert sblimp.compute(**gold.to_dict("list")) == sblimp.compute(**shuffled.to_dict("list"))


def test_interval_keeps_the_voices_of_an_item_together(sblimp):
    # 100 items, half of them right: with one voice or with nine that always agree, there are 100 independent draws.
    scores = [0.0, 1.0] * 50

    def half_width(voices: int) -> float:
        results = sblimp.compute(
            correct_scores=np.repeat(scores, voices).tolist(),
            incorrect_scores=[0.5] * 100 * voices,
            types=["a"] * 100 * voices,
            subtypes=["a"] * 100 * voices,
            ids=np.repeat(np.arange(100).astype(str), voices).tolist(),
        )
        low, high = results["accuracy_interval"]
        return (high - low) / 2

    binomial = 1.96 * np.sqrt(0.25 / 100)
    assert half_width(voices=1) == pytest.approx(binomial, rel=0.1)
    assert half_width(voices=9) == pytest.approx(binomial, rel=0.1)


def test_nan_scores_are_refused(sblimp):
    with pytest.raises(ValueError, match="A score is NaN"):
        sblimp.compute(correct_scores=[float("nan")], incorrect_scores=[0.0], types=["a"], subtypes=["a"], ids=["1"])
