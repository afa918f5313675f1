"""Accuracy on the spoken StoryCloze tests."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Accuracy on sStoryCloze and tStoryCloze, the spoken StoryCloze tests of TWIST: how often a speech language model finds
a story with its true ending more likely than the same story with a wrong ending. sStoryCloze takes the wrong ending of
the original test, tStoryCloze a random one, so that the topic gives it away.
"""

_KWARGS_DESCRIPTION = """
Args:
    correct_scores (`list` of `float`):
        Score (log-likelihood) of each story with its true ending.
    incorrect_scores (`list` of `float`):
        Score of the same story with the wrong ending.

Returns:
    accuracy (`float`):
        Mean over pairs of 1 where the true ending scores higher, 0.5 where both score the same, 0 otherwise.
    accuracy_interval (`list` of 2 `float`):
        95 % interval by the percentile bootstrap over pairs.
    num_pairs, num_ties (`int`):
        Number of pairs, and of those with equal scores.

Example:

    >>> storycloze = evaluate.load("slam_hf/metrics/storycloze")
    >>> storycloze.compute(correct_scores=[-2.0, -3.0], incorrect_scores=[-2.5, -3.0])
    {'accuracy': 0.75, 'accuracy_interval': [0.5, 1.0], 'num_pairs': 2, 'num_ties': 1}
"""

_CITATION = """
@inproceedings{hassid2023textually,
  title={Textually Pretrained Speech Language Models},
  author={Hassid, Michael and Remez, Tal and Nguyen, Tu Anh and Gat, Itai and Conneau, Alexis and Kreuk, Felix and
          Copet, Jade and Defossez, Alexandre and Synnaeve, Gabriel and Dupoux, Emmanuel and Schwartz, Roy and
          Adi, Yossi},
  booktitle={Advances in Neural Information Processing Systems},
  year={2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class StoryCloze(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"correct_scores": datasets.Value("float64"), "incorrect_scores": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/2305.13009"],
        )

    def _compute(self, correct_scores, incorrect_scores):
        outcomes = pair_outcomes(correct_scores, incorrect_scores)
        groups = [np.sort(outcomes)]
        return {
            "accuracy": _accuracy(groups),
            "accuracy_interval": confidence_interval(_accuracy, groups),
            "num_pairs": len(outcomes),
            "num_ties": int((outcomes == 0.5).sum()),
        }


def _accuracy(groups):
    return float(groups[0].mean())


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
