"""Compares quantisers on held-out sentences: how much units tell about phones, and how little about the voice."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torchaudio.transforms import MFCC

from ..speech_bank import HOP_LENGTH, SpeechBank
from .measures import deduplicate, phone_labels, phone_normalized_mutual_information, unit_edit_rate
from .targets import assign


VOICE_PAIRS = (("flite-slt", "flite-rms"), ("hibari", "flite-slt"), ("hibari", "flite-awb"))
UNSEEN = ("flite-slt", "flite-rms")
EVALUATED = ("flite-slt", "flite-rms", "flite-awb", "hibari")


def evaluate_units(
    banks: Mapping[str, SpeechBank], units_of: Callable[[SpeechBank, int], np.ndarray]
) -> dict[str, float]:
    r"""
    Measure a quantiser on the sentences that every voice reads.

    Args:
        banks (`Mapping[str, SpeechBank]`):
            The voices in `EVALUATED`.
        units_of (`Callable`):
            Gives the unit of each frame of a bank's utterance.

    Returns:
        `dict`: phone-normalised mutual information on the two unseen voices; unit edit rates between voices, the
        first pair of which is unseen; and deduplicated units per second of hibari.
    """
    held_out = {name: banks[name].indices(held_out=True) for name in EVALUATED}
    units = {name: [units_of(banks[name], index) for index in indices] for name, indices in held_out.items()}
    phones = [phone_labels(banks[name], index) for name in UNSEEN for index in held_out[name]]
    unseen_units = np.concatenate([sequence for name in UNSEEN for sequence in units[name]])
    figures = {"pnmi_unseen": phone_normalized_mutual_information(unseen_units, np.concatenate(phones))}
    for first, second in VOICE_PAIRS:
        figures[f"edit_rate_{first}_{second}"] = unit_edit_rate(units[first], units[second])
    count = sum(len(deduplicate(sequence)) for sequence in units["hibari"])
    figures["units_per_second"] = count / sum(map(len, units["hibari"])) * 25
    return figures


def mfcc_frames(waveform: np.ndarray) -> np.ndarray:
    """13 MFCCs of 25 ms windows every 20 ms, averaged in pairs to 25 frames a second."""
    options = {"n_fft": 400, "hop_length": HOP_LENGTH // 2, "n_mels": 40}
    coefficients = MFCC(16_000, 13, melkwargs=options)(torch.from_numpy(waveform)).T
    num_frames = len(waveform) // HOP_LENGTH
    return coefficients[: 2 * num_frames].unflatten(0, (num_frames, 2)).mean(1).numpy()


def mfcc_units(centroids: np.ndarray, bank: SpeechBank, index: int) -> np.ndarray:
    """The baseline: the k-means cluster of each frame's MFCCs."""
    return assign(mfcc_frames(bank.waveform(index)), centroids)
