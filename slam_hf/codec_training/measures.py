"""Measures of units: how many are used, how much they tell about phones or words, and how stable they are."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np


def deduplicate(units: Sequence[int]) -> list[int]:
    """Units with equal neighbours merged."""
    return [int(unit) for unit, _ in groupby(units)]


def perplexity(counts: Sequence[float]) -> float:
    """The number of equally frequent units that would be as uncertain: `exp` of the entropy of the frequencies."""
    shares = np.asarray(counts, dtype=np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def normalized_mutual_information(units: Sequence[int], labels: Sequence[Any]) -> float:
    r"""
    Share of the uncertainty about a frame's label that its unit removes: I(unit; label) / H(label). For phones, it is
    the measure of the HuBERT paper (https://huggingface.co/papers/2106.07447, section IV-D).

    Args:
        units (sequence of `int`):
            Unit of each frame.
        labels (sequence):
            Phone, or word, of each frame.

    Returns:
        `float` between 0 and 1; NaN where all labels are equal.
    """
    _, unit_index = np.unique(np.asarray(units), return_inverse=True)
    _, label_index = np.unique(np.asarray(labels), return_inverse=True)
    joint = np.zeros((unit_index.max() + 1, label_index.max() + 1))
    np.add.at(joint, (unit_index, label_index), 1 / len(unit_index))
    of_label = joint.sum(axis=0)
    independent = joint.sum(axis=1, keepdims=True) * of_label
    present = joint > 0
    information = (joint[present] * np.log(joint[present] / independent[present])).sum()
    entropy = -(of_label * np.log(of_label)).sum()
    return float(information / entropy) if entropy > 0 else float("nan")


def unit_edit_rate(references: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Edits that turn one version's deduplicated units into another's, per unit of the first: 0 for equal ones."""
    pairs = [(deduplicate(a), deduplicate(b)) for a, b in zip(references, others, strict=True)]
    return sum(edit_distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def edit_distance(reference: Sequence[int], other: Sequence[int]) -> int:
    """Insertions, deletions and substitutions that turn one sequence into another."""
    other = np.asarray(other)
    positions = np.arange(len(other) + 1)
    row = positions
    for number, item in enumerate(reference, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (other != item))
        # An insertion adds 1 to the entry before: the minimum over all entries before, less their positions.
        row = np.minimum.accumulate(np.concatenate([[number], best]) - positions) + positions
    return int(row[-1])


def frame_labels(aligned: Sequence[dict[str, Any]], num_frames: int, frame_rate: float) -> list[str]:
    """The word, or phone, at the middle of each frame, and `""` between them."""
    timed = [item for item in aligned if None not in (item["start_time"], item["end_time"])]
    labels = [""] * num_frames
    for item in timed:
        first, last = np.ceil(np.array([item["start_time"], item["end_time"]]) * frame_rate - 0.5).astype(int)
        for frame in range(max(0, first), min(last, num_frames)):
            labels[frame] = item["word"]
    return labels
