import pytest

from slam_hf.corpora.preferences.selection import Thresholds, choose_pair
from slam_hf.encoding.recordings import SkipReason


def make(score, auto_bleu=0.0, units="<Un1>"):
    return {"score": score, "auto_bleu": auto_bleu, "units": units}


@pytest.mark.parametrize(
    ("items", "thresholds", "expected"),
    [
        # The best and the worst.
        ([(2.0,), (5.0,), (1.0,)], {}, (1, 2)),
        # The first of several, and the one that repeats itself less as the best, and more as the worst.
        ([(3.0,), (5.0, 0.1), (5.0,), (1.0,), (1.0, 0.1)], {}, (2, 4)),
        # Limits of the scores, which belong to both sides.
        ([(3.0,), (2.0,)], {"min_score": 3.0, "max_score": 2.0}, (0, 1)),
        ([(3.0,), (2.0,)], {"min_score": 3.1}, SkipReason.NONE_GOOD),
        ([(3.0,), (2.0,)], {"max_score": 1.9}, SkipReason.NONE_BAD),
        # A text that repeats itself is never chosen, and is rejected before others, whatever its score.
        ([(5.0, 0.5), (3.0,), (1.0,)], {"max_score": 1.0}, (1, 0)),
        ([(5.0, 0.5), (3.0,)], {"max_score": 1.0, "min_margin": 2.0}, (1, 0)),
        ([(5.0, 0.5), (4.0, 0.3), (1.0,)], {}, (2, 1)),
        ([(5.0, 0.2), (1.0,)], {"max_auto_bleu": 0.2}, (0, 1)),
        ([(5.0, 0.5), (4.0, 0.3)], {}, SkipReason.NONE_GOOD),
        # The scores of a pair differ by more than the margin.
        ([(3.0,), (3.0,)], {}, SkipReason.TIE),
        ([(3.0,), (2.0,)], {"min_margin": 1.0}, SkipReason.TIE),
        ([(3.0,), (1.9,)], {"min_margin": 1.0}, (0, 1)),
        # Without a score or without units, a continuation is neither good nor bad.
        ([(None,), (3.0,), (2.0,)], {}, (1, 2)),
        ([(9.0, 0.0, ""), (3.0,), (2.0,)], {}, (1, 2)),
        ([(None,), (3.0,), (2.0, 0.0, "")], {}, SkipReason.NOT_JUDGED),
        ([(None, 0.9), (None,)], {}, SkipReason.NOT_JUDGED),
        # Higher is better, also below zero.
        ([(-4.0,), (-7.5,), (-3.5,)], {"min_score": -4.0}, (2, 1)),
    ],
)
def test_the_best_good_continuation_is_chosen_and_the_worst_bad_one_rejected(items, thresholds, expected):
    continuations = [make(*item) for item in items]
    pair = choose_pair(continuations, Thresholds(**thresholds))
    if isinstance(expected, SkipReason):
        assert pair is expected
    else:
        assert [item is continuations[row] for item, row in zip(pair, expected, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min_score", float("nan"), "`min_score` must be a number, got nan"),
        ("max_auto_bleu", float("nan"), "`max_auto_bleu` must be a number, got nan"),
        ("min_margin", -0.1, "`min_margin` must be 0 or more, got -0.1"),
        ("max_auto_bleu", -0.1, "`max_auto_bleu` must be 0 or more, got -0.1"),
    ],
)
def test_thresholds_that_no_pair_could_meet_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**{name: value})
