"""Accuracy on sWUGGY, the spoken word benchmark of the ZeroSpeech challenge 2021."""

from collections import defaultdict

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Accuracy on sWUGGY (`lexical` of the ZeroSpeech challenge 2021): how often a speech language model finds a word more
likely than a made-up word that sounds much like it, read by the same voice.
"""

_KWARGS_DESCRIPTION = """
Args:
    correct_scores (`list` of `float`):
        Score (log-likelihood) of the word of each pair.
    incorrect_scores (`list` of `float`):
        Score of the made-up word, read by the same voice.
    ids (`list` of `str`):
        The column `id` of the benchmark's `gold.csv`, which names a word and its made-up twin.
    frequencies (`list` of `int`):
        The column `frequency`: how often the word occurs in LibriSpeech; `None` where the file has no value.

Returns:
    accuracy (`float`):
        Mean over pairs of 1 where the word scores higher, 0.5 where both score the same, 0 otherwise. A word counts
        once for each of its voices.
    item_accuracy (`float`):
        Mean over voices for each word, then over words: the score of the ZeroSpeech leaderboard.
    in_vocabulary_accuracy (`float`):
        The same over the words that occur in LibriSpeech, NaN where there are none: the leaderboard's "in vocabulary".
    *_interval (`list` of 2 `float`):
        95 % intervals by the percentile bootstrap over words, within each frequency band; the voices of a word stay
        together.
    by_frequency (`dict`):
        For each of the official bands (`oov`: 0, `1-5`: 1 to 4, `6-20`: 5 to 19, `21-100`: 20 to 99, `>100`: 100 and
        more) `accuracy` (mean over voices, then over words), `accuracy_interval` and `num_items`. Words without a
        frequency are `unknown`, and count in `accuracy` and `item_accuracy` only.
    num_pairs, num_items, num_ties (`int`):
        Number of pairs, of words, and of pairs with equal scores.

Example:

    >>> swuggy = evaluate.load("slam_hf/metrics/swuggy")
    >>> results = swuggy.compute(
    ...     correct_scores=[-2.0, -2.1, -2.2],
    ...     incorrect_scores=[-2.5, -2.0, -2.3],
    ...     ids=["1", "1", "2"],
    ...     frequencies=[3, 3, 0],
    ... )
    >>> results["accuracy"], results["item_accuracy"], results["in_vocabulary_accuracy"]
    (0.6666666666666666, 0.75, 0.5)
"""

_CITATION = """
@article{nguyen2020zero,
  title={The Zero Resource Speech Benchmark 2021: Metrics and baselines for unsupervised spoken language modeling},
  author={Nguyen, Tu Anh and de Seyssel, Maureen and Roz{\\'e}, Patricia and Rivi{\\`e}re, Morgane and
          Kharitonov, Evgeny and Baevski, Alexei and Dunbar, Ewan and Dupoux, Emmanuel},
  journal={arXiv preprint arXiv:2011.11588},
  year={2020}
}
"""

MEASURES = ("accuracy", "item_accuracy", "in_vocabulary_accuracy")
BANDS = {">100": 100, "21-100": 20, "6-20": 5, "1-5": 1, "oov": 0, "unknown": None}
"""Lowest frequency of each band, under the name that the official evaluation gives it."""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class SWUGGY(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "correct_scores": datasets.Value("float64"),
                    "incorrect_scores": datasets.Value("float64"),
                    "ids": datasets.Value("string"),
                    "frequencies": datasets.Value("int64"),
                }
            ),
            homepage="https://zerospeech.com",
            reference_urls=["https://arxiv.org/abs/2011.11588", "https://github.com/zerospeech/zerospeech2021"],
        )

    def _compute(self, correct_scores, incorrect_scores, ids, frequencies):
        outcomes = pair_outcomes(correct_scores, incorrect_scores)
        items, bands = defaultdict(list), {}
        for outcome, id, frequency in zip(outcomes, ids, frequencies, strict=True):
            items[id].append(outcome)
            bands[id] = _band(frequency)
        rows = defaultdict(list)
        for id, voices in sorted(items.items()):
            rows[bands[id]].append([sum(voices), len(voices), bands[id] not in ("oov", "unknown")])
        names = [name for name in BANDS if name in rows]
        groups = [np.array(rows[name]) for name in names]
        estimates, intervals = _estimates(groups), confidence_interval(_estimates, groups)
        results = {}
        for measure, estimate, interval in zip(MEASURES, estimates, intervals, strict=False):
            results |= {measure: float(estimate), f"{measure}_interval": interval}
        by_band = zip(names, estimates[len(MEASURES) :], intervals[len(MEASURES) :], groups, strict=True)
        results["by_frequency"] = {
            name: {"accuracy": float(estimate), "accuracy_interval": interval, "num_items": len(group)}
            for name, estimate, interval, group in by_band
        }
        num_ties = int((outcomes == 0.5).sum())
        return results | {"num_pairs": len(outcomes), "num_items": len(items), "num_ties": num_ties}


def _estimates(groups):
    """The measures, then the accuracy of each band."""
    sums, voices, in_vocabulary = np.concatenate(groups).T
    accuracies = sums / voices
    known = accuracies[in_vocabulary == 1]
    by_band = [np.mean(group[:, 0] / group[:, 1]) for group in groups]
    return [sums.sum() / voices.sum(), accuracies.mean(), known.mean() if len(known) else np.nan, *by_band]


def _band(frequency):
    return "unknown" if frequency is None else next(name for name, lowest in BANDS.items() if frequency >= lowest)


def pair_outcomes(correct_scores, incorrect_scores):
    """1 where the correct member of a pair scores higher, 0.5 where both score the same, 0 otherwise.

    The metrics share this by copy: each is a Space of its own.
    """
    correct, incorrect = np.asarray(correct_scores, dtype=float), np.asarray(incorrect_scores, dtype=float)
    if np.isnan(correct).any() or np.isnan(incorrect).any():
        raise ValueError("A score is NaN: leave out the pairs that could not be scored, and report how many.")
    return np.where(correct == incorrect, 0.5, correct > incorrect)


def confidence_interval(statistic, groups):
    """95 % percentile bootstrap of a statistic of groups of items, each group resampled on its own.

    The metrics share this by copy: each is a Space of its own.
    """
    generator = np.random.default_rng(0)
    estimates = [statistic([generator.choice(group, len(group)) for group in groups]) for _ in range(1000)]
    return np.quantile(estimates, (0.025, 0.975), axis=0).T.tolist()
