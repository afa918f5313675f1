"""A first look, or listen, at a model that was just trained: it continues a held-out document, or a recording."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import AutoModelForCausalLM, AutoProcessor, pipeline

from ..evaluation.transcription import load_recogniser, transcribe_waveforms


PROMPT_UNITS = 60
"""About three seconds of speech at 25 frames a second."""

PROMPT_SECONDS = 3.0

MIN_NEW_UNITS = 50
"""More than two seconds to hear, also where a model of sentences takes the prompt for a whole one."""


def continue_document(checkpoint: Path, units: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Load a checkpoint by the Auto classes and let it continue the beginning of a document, with the sampling of the
    Slamming paper (arXiv 2502.15814): temperature 0.8, top-k 25, repetition penalty 1.1, 150 new tokens.

    Args:
        checkpoint (`Path`):
            Folder of a model and its processor. `continuation.wav` is written into it where the processor names a
            codec with a vocoder.
        units (`np.ndarray` of shape `(units,)`):
            The document.
        seed (`int`):
            Seed of the sampling.

    Returns:
        `tuple` of `np.ndarray`: the units of the prompt and of the continuation.
    """
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    prompt = processor.tokenizer.encode_units(units[:PROMPT_UNITS], return_tensors="pt")
    torch.manual_seed(seed)
    sequence = model.generate(
        **prompt, do_sample=True, temperature=0.8, top_k=25, repetition_penalty=1.1, max_new_tokens=150
    )[0]
    codec = processor.audio_tokenizer
    if codec is not None and codec.vocoder is not None:
        soundfile.write(checkpoint / "continuation.wav", processor.decode(sequence), codec.sampling_rate)
    prompt_length = prompt["input_ids"].shape[1]
    return units[:PROMPT_UNITS], processor.tokenizer.decode_units(sequence[prompt_length:])


def continue_recording(
    checkpoint: Path, recording: str, seed: int, asr_model: str | None = None
) -> tuple[Path, str | None]:
    r"""
    Let a checkpoint continue the first three seconds of a recording by 50 units or more, with the sampling of the
    Slamming paper.

    Args:
        checkpoint (`Path`):
            Folder of a model and its processor, which names a codec with a vocoder. `continuation.wav` is written into
            it: the prompt, as the codec says it, and the continuation.
        recording (`str`):
            Path of the recording.
        seed (`int`):
            Seed of the sampling.
        asr_model (`str`, *optional*):
            A speech recogniser, a Hub id or a folder.

    Returns:
        `tuple`: the path of the audio, and its transcript where there is a recogniser.
    """
    speak = pipeline("audio-to-audio", model=str(checkpoint))
    result = speak(recording, prompt_duration=PROMPT_SECONDS, min_new_tokens=MIN_NEW_UNITS, seed=seed)
    path = checkpoint / "continuation.wav"
    soundfile.write(path, result["audio"], result["sampling_rate"])
    if asr_model is None:
        return path, None
    transcribe = load_recogniser(asr_model, speak.device)
    return path, transcribe_waveforms([result["audio"]], result["sampling_rate"], transcribe, batch_size=1)[0].strip()
