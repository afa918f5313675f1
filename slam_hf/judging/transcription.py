"""Transcribes speech, such as the continuations of a model."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

from ..loading_utils import naming_damaged_files


MIN_SECONDS = 0.1
"""Shorter audio is padded with silence: some recognisers cannot read it."""


def load_recogniser(model: str, device: torch.device) -> AutomaticSpeechRecognitionPipeline:
    """The pipeline of a speech recogniser, a Hub id or a folder, in half precision on a GPU."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with naming_damaged_files(model):
        recogniser = pipeline("automatic-speech-recognition", model=model, device=device, dtype=dtype)
    if recogniser.tokenizer.pad_token is None:  # pipelines need one for batches
        recogniser.tokenizer.pad_token = recogniser.tokenizer.eos_token
    return recogniser


def transcribe_waveforms(
    waveforms: Sequence[np.ndarray], rate: int, transcribe: AutomaticSpeechRecognitionPipeline, batch_size: int
) -> list[str]:
    """Transcripts as the recogniser gives them, and an empty one for empty audio. On a CPU, one at a time is faster:
    measured with Whisper base, eight together take almost twice as long."""
    if isinstance(transcribe, AutomaticSpeechRecognitionPipeline) and transcribe.device.type == "cpu":
        batch_size = 1
    audible = [row for row, waveform in enumerate(waveforms) if len(waveform) > 0]
    texts = [""] * len(waveforms)
    if not audible:  # pipelines fail on an empty list
        return texts
    shortest = round(MIN_SECONDS * rate)
    padded = [np.pad(waveforms[row], (0, max(0, shortest - len(waveforms[row])))) for row in audible]
    inputs = [{"raw": waveform, "sampling_rate": rate} for waveform in padded]
    for row, result in zip(audible, transcribe(inputs, batch_size=batch_size), strict=True):
        texts[row] = result["text"]
    return texts
