"""How much units tell about phones, and how little about the voice."""

from collections.abc import Sequence

import numpy as np

from slam_hf.codec_training.measures import frame_labels, normalized_mutual_information, unit_edit_rate

from ..speech_bank import HOP_LENGTH, SAMPLING_RATE, SpeechBank


UNSEEN = ("flite-slt", "flite-rms")
"""Voices that nothing is trained on. Both read the held-out sentences, and their phones are known."""


def measure_units(banks: Sequence[SpeechBank], units: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
    r"""
    Measure units on sentences that two voices read.

    Args:
        banks (sequence of [`SpeechBank`]):
            The two voices.
        units (sequence of sequences of `np.ndarray`):
            For each of them, the unit of each frame of each held-out utterance.

    Returns:
        `dict`: phone-normalised mutual information, and the unit edit rate between the voices.
    """
    labels = [
        label
        for bank, sequences in zip(banks, units, strict=True)
        for index, sequence in zip(bank.indices(held_out=True), sequences, strict=True)
        for label in frame_labels(bank.rows[index]["aligned_text"], len(sequence), SAMPLING_RATE / HOP_LENGTH)
    ]
    joined = np.concatenate([sequence for sequences in units for sequence in sequences])
    return {"pnmi": normalized_mutual_information(joined, labels), "edit_rate": unit_edit_rate(*units)}
