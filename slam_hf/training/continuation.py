"""A first listen to a model that was just trained: it continues a held-out document, or a recording."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset, IterableDataset
from transformers import pipeline

from ..evaluation.transcription import load_recogniser, transcribe_waveforms
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import PAPER_SAMPLING
from ..processing_speech_lm import SpeechLMProcessor
from .arguments import PretrainArguments


PROMPT_UNITS = 60
"""About three seconds of speech at 25 frames a second."""

PROMPT_SECONDS = 3.0


def describe_continuation(
    args: PretrainArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor,
    documents: Dataset | IterableDataset,
    seed: int,
    path: Path,
) -> str:
    r"""
    Let a model continue the recording `args.prompt`, or else the first of the held-out documents.

    Args:
        args ([`PretrainArguments`]):
            The recording and the speech recogniser.
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode.
        processor ([`SpeechLMProcessor`]):
            Its processor.
        documents (`Dataset` or `IterableDataset`):
            Held-out documents, with the column `units`.
        seed (`int`):
            Seed of the sampling.
        path (`Path`):
            The audio file to write, if the processor has a codec with a vocoder.

    Returns:
        `str`: the units of the prompt and the continuation, or where the audio is and its transcript.
    """
    if args.prompt is None:
        prompt, continuation = continue_document(model, processor, next(iter(documents))["units"], seed, path)
        return f"Prompt: {prompt}\nContinuation: {continuation}"
    transcript = continue_recording(model, processor, args.prompt, seed, path, args.asr_model)
    lines = [f"Continuation of {args.prompt}: {path}"] + ([] if transcript is None else [f"Transcript: {transcript}"])
    return "\n".join(lines)


def continue_document(
    model: SpeechLMForCausalLM, processor: SpeechLMProcessor, units: np.ndarray, seed: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Let a model continue the beginning of a document, with the sampling of [`AudioToAudioPipeline`].

    Args:
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode.
        processor ([`SpeechLMProcessor`]):
            Its processor.
        units (`np.ndarray` of shape `(units,)`):
            The document.
        seed (`int`):
            Seed of the sampling.
        path (`Path`):
            The audio file to write, if the processor has a codec with a vocoder.

    Returns:
        `tuple` of `np.ndarray`: the units of the prompt and of the continuation.
    """
    prompt = processor.tokenizer.encode_units(units[:PROMPT_UNITS], return_tensors="pt").to(model.device)
    torch.manual_seed(seed)
    sequence = model.generate(**prompt, generation_config=PAPER_SAMPLING)[0]
    codec = processor.audio_tokenizer
    if codec is not None and codec.vocoder is not None:
        soundfile.write(path, processor.decode(sequence.to(codec.device)), codec.sampling_rate)
    prompt_length = prompt["input_ids"].shape[1]
    return units[:PROMPT_UNITS], processor.tokenizer.decode_units(sequence[prompt_length:])


def continue_recording(
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor,
    recording: str,
    seed: int,
    path: Path,
    asr_model: str | None = None,
) -> str | None:
    r"""
    Let a model continue the first three seconds of a recording by two seconds or more.

    Args:
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode.
        processor ([`SpeechLMProcessor`]):
            Its processor, with a codec that has a vocoder.
        recording (`str`):
            Path of the recording.
        seed (`int`):
            Seed of the sampling.
        path (`Path`):
            The audio file to write: the prompt, as the codec says it, and the continuation.
        asr_model (`str`, *optional*):
            A speech recogniser, a Hub id or a folder.

    Returns:
        `str`, *optional*: the transcript of the audio, if there is a recogniser.
    """
    speak = pipeline("audio-to-audio", model=model, processor=processor, device=model.device)
    result = speak(recording, prompt_duration=PROMPT_SECONDS, seed=seed)
    soundfile.write(path, result["audio"], result["sampling_rate"])
    if asr_model is None:
        return None
    transcribe = load_recogniser(asr_model, speak.device)
    return transcribe_waveforms([result["audio"]], result["sampling_rate"], transcribe, batch_size=1)[0].strip()
