"""Measures of units: mutual information with phones, and edit rate between voices."""

from itertools import groupby

import numpy as np
from rapidfuzz.distance import Levenshtein

from ..speech_bank import HOP_LENGTH, SAMPLING_RATE, SpeechBank


def phone_labels(bank: SpeechBank, index: int) -> np.ndarray:
    """The phone at the middle of each frame of an utterance whose synthesiser gave its phones."""
    phones = bank.rows[index]["aligned_text"]
    ends = np.array([phone["end_time"] for phone in phones])
    middles = (np.arange(bank.num_frames(index)) + 0.5) * HOP_LENGTH / SAMPLING_RATE
    positions = np.minimum(np.searchsorted(ends, middles), len(ends) - 1)
    return np.array([phones[position]["word"] for position in positions])


def phone_normalized_mutual_information(units: np.ndarray, phones: np.ndarray) -> float:
    r"""
    Share of the uncertainty about a frame's phone that its unit removes: I(unit; phone) / H(phone), the measure of
    the HuBERT paper (https://huggingface.co/papers/2106.07447, section IV-D).

    Args:
        units (`np.ndarray` of shape `(num_frames,)`):
            Unit of each frame.
        phones (`np.ndarray` of shape `(num_frames,)`):
            Phone of each frame.

    Returns:
        `float` between 0 and 1.
    """
    _, unit_index = np.unique(units, return_inverse=True)
    _, phone_index = np.unique(phones, return_inverse=True)
    joint = np.zeros((unit_index.max() + 1, phone_index.max() + 1))
    np.add.at(joint, (unit_index, phone_index), 1 / len(units))
    of_phone = joint.sum(0)
    independent = joint.sum(1, keepdims=True) * of_phone
    present = joint > 0
    information = (joint[present] * np.log(joint[present] / independent[present])).sum()
    return float(information / -(of_phone * np.log(of_phone)).sum())


def unit_edit_rate(references: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Edits that turn one voice's deduplicated units into another's, per unit of the first."""
    pairs = [(deduplicate(a), deduplicate(b)) for a, b in zip(references, others, strict=True)]
    return sum(Levenshtein.distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)


def deduplicate(units: np.ndarray) -> list[int]:
    """Units with equal neighbours merged."""
    return [int(unit) for unit, _ in groupby(units)]
