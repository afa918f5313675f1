"""Accuracy on SALMon, the suite for acoustic language model evaluation."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Accuracy on SALMon, which asks whether a speech language model hears more than words: how often it finds a recording
more likely than one in which the speaker, gender, sentiment, background or room changes midway (consistency), or in
which background or sentiment do not fit what is said (alignment).
"""

_KWARGS_DESCRIPTION = """
Args:
    correct_scores (`list` of `float`):
        Score (log-likelihood) of the consistent or fitting recording of each pair.
    incorrect_scores (`list` of `float`):
        Score of its twin.
    parts (`list` of `str`):
        The part of the benchmark that the pair is from, such as `speaker_consistency`.

Returns:
    accuracy (`float`):
        Mean over parts of their accuracies.
    accuracy_interval (`list` of 2 `float`):
        95 % interval by the percentile bootstrap over pairs, within each part.
    by_part (`dict`):
        For each part `accuracy` (mean over pairs of 1 where the consistent or fitting recording scores higher, 0.5
        where both score the same, 0 otherwise), `accuracy_interval` and `num_pairs`.
    num_pairs, num_ties (`int`):
        Number of pairs, and of those with equal scores.

Example:

    >>> salmon = evaluate.load("slam_hf/metrics/salmon")
    >>> results = salmon.compute(
    ...     correct_scores=[-2.0, -2.1, -2.2],
    ...     incorrect_scores=[-2.5, -2.0, -2.3],
    ...     parts=["rir_consistency", "rir_consistency", "bg_alignment"],
    ... )
    >>> results["accuracy"], results["by_part"]["rir_consistency"]["accuracy"]
    (0.75, 0.5)
"""

_CITATION = """
@article{maimon2024salmon,
  title={A Suite for Acoustic Language Model Evaluation},
  author={Maimon, Gallil and Roth, Amit and Adi, Yossi},
  journal={arXiv preprint arXiv:2409.07437},
  year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class SALMon(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "correct_scores": datasets.Value("float64"),
                    "incorrect_scores": datasets.Value("float64"),
                    "parts": datasets.Value("string"),
                }
            ),
            reference_urls=["https://arxiv.org/abs/2409.07437", "https://github.com/slp-rl/salmon"],
        )

    def _compute(self, correct_scores, incorrect_scores, parts):
        outcomes = pair_outcomes(correct_scores, incorrect_scores)
        names = sorted(set(parts))
        groups = [np.sort(outcomes[np.array(parts) == name]) for name in names]
        estimates, intervals = _estimates(groups), confidence_interval(_estimates, groups)
        by_part = {
            name: {"accuracy": float(estimate), "accuracy_interval": interval, "num_pairs": len(group)}
            for name, estimate, interval, group in zip(names, estimates[1:], intervals[1:], groups, strict=True)
        }
        return {
            "accuracy": float(estimates[0]),
            "accuracy_interval": intervals[0],
            "by_part": by_part,
            "num_pairs": len(outcomes),
            "num_ties": int((outcomes == 0.5).sum()),
        }


def _estimates(groups):
    """The mean over parts, then the accuracy of each part."""
    by_part = [group.mean() for group in groups]
    return [np.mean(by_part), *by_part]


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
