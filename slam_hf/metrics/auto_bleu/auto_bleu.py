"""Auto-BLEU: how much a text repeats itself."""

from collections import Counter

import datasets
import evaluate
import numpy as np
from nltk.tokenize import NLTKWordTokenizer


_DESCRIPTION = """
Auto-BLEU measures how repetitive generated speech is, on its transcripts: the share of a transcript's n-grams that
occur more than once in it, averaged over transcripts.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `str`):
        Transcripts.
    n (`int`, *optional*, defaults to 2):
        Length of the n-grams, in word tokens of NLTK.

Returns:
    auto_bleu (`float`):
        Mean over transcripts, from 0 (nothing is repeated) to 1. A transcript with fewer than `n` words has no n-gram,
        and counts as 0. Papers give it in percent.
    auto_bleu_interval (`list` of 2 `float`):
        95 % interval by the percentile bootstrap over transcripts.
    num_transcripts, num_short (`int`):
        Number of transcripts, and of those with fewer than `n` words.

Example:

    >>> auto_bleu = evaluate.load("slam_hf/metrics/auto_bleu")
    >>> auto_bleu.compute(predictions=["the cat and the cat", "a dog"])["auto_bleu"]
    0.25
"""

_CITATION = """
@article{lakhotia2021generative,
  title={On Generative Spoken Language Modeling from Raw Audio},
  author={Lakhotia, Kushal and Kharitonov, Eugene and Hsu, Wei-Ning and Adi, Yossi and Polyak, Adam and
          Bolte, Benjamin and Nguyen, Tu-Anh and Copet, Jade and Baevski, Alexei and Mohamed, Abdelrahman and
          Dupoux, Emmanuel},
  journal={Transactions of the Association for Computational Linguistics},
  year={2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AutoBLEU(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=["https://arxiv.org/abs/2102.01192"],
        )

    def _compute(self, predictions, n=2):
        counts = [count_ngrams(text, n) for text in predictions]
        groups = [np.sort([repeated_share(ngrams) for ngrams in counts])]
        return {
            "auto_bleu": _mean(groups),
            "auto_bleu_interval": confidence_interval(_mean, groups),
            "num_transcripts": len(counts),
            "num_short": sum(not ngrams for ngrams in counts),
        }


def auto_bleu(text: str, n: int = 2) -> float:
    """Share of the n-grams of a text that occur more than once in it; 0 for a text without n-grams."""
    return repeated_share(count_ngrams(text, n))


def count_ngrams(text: str, n: int) -> Counter:
    words = NLTKWordTokenizer().tokenize(text)
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def repeated_share(ngrams: Counter) -> float:
    return sum(count for count in ngrams.values() if count > 1) / ngrams.total() if ngrams else 0.0


def _mean(groups):
    return float(groups[0].mean())


def confidence_interval(statistic, groups):
    """95 % percentile bootstrap of a statistic of groups of items, each group resampled on its own.

    The metrics share this by copy: each is a Space of its own.
    """
    generator = np.random.default_rng(0)
    estimates = [statistic([generator.choice(group, len(group)) for group in groups]) for _ in range(1000)]
    return np.quantile(estimates, (0.025, 0.975), axis=0).T.tolist()
