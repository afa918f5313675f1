"""How speech sounds: a learned opinion score of its quality, and whether two clips have the same voice."""

from collections.abc import Sequence
from importlib import metadata

import numpy as np
import torch
from torchaudio.functional import resample
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector, PreTrainedModel, SequenceFeatureExtractor

from ..loading_utils import naming_damaged_files


DNSMOS_RATE = 16_000
"""Sampling rate of DNSMOS, in Hz."""

MIN_VOICE_SECONDS = 0.5
"""Shorter clips tell too little about a voice, and some models cannot read them."""


def describe_quality_model() -> dict[str, str]:
    """The package and the version of the quality model; `ImportError` if it is not installed."""
    try:
        import speechmos.dnsmos  # noqa: F401
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise ImportError(f'Speech quality needs {package}: pip install "slam-hf[quality]".') from error
    return {"name": "DNSMOS", "package": "speechmos", "version": metadata.version("speechmos")}


def rate_quality(waveform: np.ndarray, rate: int) -> dict[str, float | None]:
    r"""
    Predict what listeners would say of a clip, from 1 to 5, by DNSMOS of Microsoft's package `speechmos`, which holds
    its weights: ITU-T P.835 (arXiv 2110.01763) and P.808 (arXiv 2010.15258). DNSMOS repeats clips that are shorter
    than 9 seconds.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`), rate (`int`):
            The clip and its sampling rate in Hz.

    Returns:
        `dict` with the predicted means of the opinions on the **overall** quality, on the **signal**, on the
        **background** (P.835) and on the quality by **p808**; each is `None` for an empty clip.
    """
    names = {"overall": "ovrl_mos", "signal": "sig_mos", "background": "bak_mos", "p808": "p808_mos"}
    if len(waveform) == 0:
        return dict.fromkeys(names)
    from speechmos import dnsmos

    clip = resample(torch.from_numpy(waveform), rate, DNSMOS_RATE).clamp(-1, 1).numpy()
    scores = dnsmos.run(clip, DNSMOS_RATE)
    return {name: float(scores[key]) for name, key in names.items()}


class SpeakerEncoder:
    r"""
    A model of speaker verification, which puts clips of one voice near each other.

    Args:
        model (`str`):
            Any `AutoModelForAudioXVector`, such as `microsoft/wavlm-base-plus-sv`: a Hub id or a folder.
        device (`torch.device`):
            Where to run it.
    """

    def __init__(self, model: str, device: torch.device):
        with naming_damaged_files(model):
            self.feature_extractor: SequenceFeatureExtractor = AutoFeatureExtractor.from_pretrained(model)
            self.model: PreTrainedModel = AutoModelForAudioXVector.from_pretrained(
                model, dtype=torch.float32, use_safetensors=True
            )
        self.model.to(device).eval()

    @torch.no_grad()
    def similarity(self, waveforms: Sequence[np.ndarray], rate: int) -> float | None:
        """Cosine similarity of the voices of two clips of shape `(samples,)`, with a sampling rate in Hz. `None` if
        one of them is shorter than half a second. A clip is encoded alone: padding would change it."""
        if min(map(len, waveforms)) < MIN_VOICE_SECONDS * rate:
            return None
        wanted = self.feature_extractor.sampling_rate
        embeddings = []
        for waveform in waveforms:
            clip = resample(torch.from_numpy(waveform), rate, wanted).numpy()
            inputs = self.feature_extractor(clip, sampling_rate=wanted, return_tensors="pt").to(self.model.device)
            embeddings.append(self.model(**inputs).embeddings[0])
        return torch.cosine_similarity(*embeddings, dim=0).item()
