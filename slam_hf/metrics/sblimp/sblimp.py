"""Accuracy on sBLIMP, the spoken grammar benchmark of the ZeroSpeech challenge 2021."""

from collections import defaultdict

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Accuracy on sBLIMP (`syntactic` of the ZeroSpeech challenge 2021): how often a speech language model finds a
grammatical sentence more likely than its ungrammatical twin, read by the same voice. An item of the benchmark is read
by several voices, and papers average over voices in different ways: the metric gives all of these averages.
"""

_KWARGS_DESCRIPTION = """
Args:
    correct_scores (`list` of `float`):
        Score (log-likelihood) of the grammatical sentence of each pair.
    incorrect_scores (`list` of `float`):
        Score of the ungrammatical sentence, read by the same voice.
    types, subtypes, ids (`list` of `str`):
        The columns `type`, `subtype` and `id` of the benchmark's `gold.csv`, which together name an item.

Returns:
    accuracy (`float`):
        Mean over pairs of 1 where the grammatical sentence scores higher, 0.5 where both score the same, 0 otherwise.
        An item counts once for each of its voices. The Slam paper reports this one.
    item_accuracy (`float`):
        Mean over voices within an item, then over items: the score of the ZeroSpeech leaderboard.
    macro_accuracy (`float`):
        Mean over voices within an item, then over the items of a type, then over types.
    voice_pair_accuracy (`float`):
        Share of items that are right in every voice. Several ties in an item count as if each were decided by a coin.
    *_interval (`list` of 2 `float`):
        95 % intervals by the percentile bootstrap over items, within each type; the voices of an item stay together.
    by_type (`dict`):
        For each type `accuracy` (mean over voices, then over items), `accuracy_interval` and `num_items`.
    num_pairs, num_items, num_ties (`int`):
        Number of pairs, of items, and of pairs with equal scores.

Example:

    >>> sblimp = evaluate.load("slam_hf/metrics/sblimp")
    >>> results = sblimp.compute(
    ...     correct_scores=[-2.0, -2.1, -2.2],
    ...     incorrect_scores=[-2.5, -2.0, -2.3],
    ...     types=["binding", "binding", "ellipsis"],
    ...     subtypes=["principle_A", "principle_A", "n_bar"],
    ...     ids=["1", "1", "1"],
    ... )
    >>> results["accuracy"], results["item_accuracy"], results["voice_pair_accuracy"]
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

MEASURES = ("accuracy", "item_accuracy", "macro_accuracy", "voice_pair_accuracy")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class SBLIMP(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "correct_scores": datasets.Value("float64"),
                    "incorrect_scores": datasets.Value("float64"),
                    "types": datasets.Value("string"),
                    "subtypes": datasets.Value("string"),
                    "ids": datasets.Value("string"),
                }
            ),
            homepage="https://zerospeech.com",
            reference_urls=["https://arxiv.org/abs/2011.11588", "https://github.com/zerospeech/zerospeech2021"],
        )

    def _compute(self, correct_scores, incorrect_scores, types, subtypes, ids):
        outcomes = pair_outcomes(correct_scores, incorrect_scores)
        items = defaultdict(list)
        for outcome, *item in zip(outcomes, types, subtypes, ids, strict=True):
            items[tuple(item)].append(outcome)
        rows = defaultdict(list)
        for (type, *_), voices in sorted(items.items()):
            rows[type].append([sum(voices), len(voices), np.prod(voices)])
        groups = [np.array(items_of_type) for items_of_type in rows.values()]
        estimates, intervals = _estimates(groups), confidence_interval(_estimates, groups)
        results = {}
        for measure, estimate, interval in zip(MEASURES, estimates, intervals, strict=False):
            results |= {measure: float(estimate), f"{measure}_interval": interval}
        by_type = zip(rows, estimates[len(MEASURES) :], intervals[len(MEASURES) :], groups, strict=True)
        results["by_type"] = {
            name: {"accuracy": float(estimate), "accuracy_interval": interval, "num_items": len(group)}
            for name, estimate, interval, group in by_type
        }
        num_ties = int((outcomes == 0.5).sum())
        return results | {"num_pairs": len(outcomes), "num_items": len(items), "num_ties": num_ties}


def _estimates(groups):
    """The measures, then the accuracy of each type."""
    sums, voices, all_right = np.concatenate(groups).T
    by_type = [np.mean(group[:, 0] / group[:, 1]) for group in groups]
    return [sums.sum() / voices.sum(), np.mean(sums / voices), np.mean(by_type), all_right.mean(), *by_type]


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
