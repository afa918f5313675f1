"""Lets a model continue the beginnings of recordings, and transcribes what it says."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

from ..audio_utils import load_audio
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processes import get_process_state
from .arguments import ContinuationArguments
from .journal import Journal


def continue_recordings(
    files: Mapping[str, Path],
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
    args: ContinuationArguments,
    journal_dir: str | os.PathLike,
    audio_dir: str | os.PathLike,
) -> list[dict[str, Any]]:
    r"""
    Continue the beginnings of recordings.

    Called in each process of `accelerate launch`, it divides the batches among them. A batch holds the same prompts,
    and has the same seed, in any number of processes and after any interruption.

    Args:
        files (`Mapping[str, Path]`):
            Recordings by name.
        speak ([`AudioToAudioPipeline`]):
            Continues prompts.
        transcribe ([`~transformers.AutomaticSpeechRecognitionPipeline`]):
            Transcribes the results.
        args ([`ContinuationArguments`]):
            Length of the prompts, batch size and seed.
        journal_dir (`str` or `os.PathLike`):
            Where finished batches are kept: a folder for these files, models and arguments.
        audio_dir (`str` or `os.PathLike`):
            Where `{name}.wav`, the prompt as the codec gives it back with its continuation, and
            `{name}_continuation.wav` are written.

    Returns:
        `list` of one `dict` per recording, in their order:

        - **prompt** (`str`) -- Name of the recording.
        - **skipped** (`str`, *optional*) -- Why it was not continued; then there is nothing else.
        - **prompt_seconds** (`float`) -- Length of the prompt.
        - **prompt_units**, **units** (`list[int]`) -- Deduplicated units of the prompt, and of the continuation.
        - **transcript**, **continuation_transcript** (`str`) -- What is heard in the two audio files.
    """
    state = get_process_state()
    journal = Journal(journal_dir)
    # All processes must find the same batches missing, before one of them finishes any.
    state.wait_for_everyone()
    names = list(files)
    batches = [names[start : start + args.batch_size] for start in range(0, len(names), args.batch_size)]
    pending = [(seed, batch) for seed, batch in enumerate(batches, args.seed) if batch[-1] not in journal.results]
    share = pending[state.process_index :: state.num_processes]
    for seed, batch in tqdm(share, desc="continuing", unit="batch", disable=not state.is_main_process or not share):
        prompts, skipped = read_prompts({name: files[name] for name in batch}, speak, args.prompt_seconds)
        records = {name: {"skipped": reason} for name, reason in skipped.items()}
        if prompts:
            records |= _continue_batch(prompts, speak, transcribe, seed, Path(audio_dir))
        journal.add((name, records[name]) for name in batch)
    finished = {name: record for results in gather_object([journal.results]) for name, record in results.items()}
    return [{"prompt": name, **finished[name]} for name in names]


def read_prompts(
    files: Mapping[str, Path], speak: AudioToAudioPipeline, seconds: float
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    r"""
    Read the beginnings of recordings. Where a file of the same name with the extension `.json` lies beside one, with
    `aligned_text`, a list of `{"word", "start_time", "end_time"}` in seconds, the beginning goes to the nearest end of
    a word.

    Args:
        files (`Mapping[str, Path]`):
            Recordings by name.
        speak ([`AudioToAudioPipeline`]):
            What is to continue them, with the codec.
        seconds (`float`):
            Length of the beginnings; a shorter recording is taken whole.

    Returns:
        `tuple` of `dict`: waveforms at the codec's sampling rate, each of shape `(samples,)`; and what is wrong with
        the recordings that are unreadable, or shorter than a frame of the codec.
    """
    codec = speak.processor.audio_tokenizer
    prompts, skipped = {}, {}
    for name, path in files.items():
        try:
            waveform = load_audio(path, codec.sampling_rate)
        except ValueError as error:
            skipped[name] = f"{name}: {error}"
            continue
        waveform = waveform[: round(_end_of_prompt(path, seconds) * codec.sampling_rate)]
        if len(waveform) * codec.frame_rate < codec.sampling_rate:
            skipped[name] = f"{name}: too short: {len(waveform) / codec.sampling_rate:.3f} s"
        else:
            prompts[name] = waveform
    return prompts, skipped


def load_recogniser(model: str, device: torch.device) -> AutomaticSpeechRecognitionPipeline:
    """The pipeline of a speech recogniser, a Hub id or a folder, in half precision on a GPU."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    recogniser = pipeline("automatic-speech-recognition", model=model, device=device, dtype=dtype)
    if recogniser.tokenizer.pad_token is None:  # which pipelines ask of a tokenizer before they take batches
        recogniser.tokenizer.pad_token = recogniser.tokenizer.eos_token
    return recogniser


def transcribe_waveforms(
    waveforms: Sequence[np.ndarray], rate: int, transcribe: AutomaticSpeechRecognitionPipeline, batch_size: int
) -> list[str]:
    """Transcripts as the recogniser gives them, with nothing for audio that is empty."""
    audible = [row for row, waveform in enumerate(waveforms) if len(waveform) > 0]
    inputs = [{"raw": waveforms[row], "sampling_rate": rate} for row in audible]
    texts = [""] * len(waveforms)
    for row, result in zip(audible, transcribe(inputs, batch_size=batch_size), strict=True):
        texts[row] = result["text"]
    return texts


def _end_of_prompt(path: Path, seconds: float) -> float:
    alignment = path.with_suffix(".json")
    if not alignment.is_file():
        return seconds
    words = json.loads(alignment.read_text("utf-8")).get("aligned_text", [])
    return min((word["end_time"] for word in words), key=lambda end: abs(end - seconds), default=seconds)


def _continue_batch(
    prompts: Mapping[str, np.ndarray],
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
    seed: int,
    audio_dir: Path,
) -> dict[str, dict[str, Any]]:
    rate = speak.processor.audio_tokenizer.sampling_rate
    results = speak(
        [{"array": waveform, "sampling_rate": rate} for waveform in prompts.values()],
        batch_size=len(prompts),
        seed=seed,
    )
    continuations = [_synthesize(result["units"], speak) for result in results]
    heard = transcribe_waveforms(
        [result["audio"] for result in results] + continuations, rate, transcribe, len(prompts)
    )
    records = {}
    for row, (name, waveform) in enumerate(prompts.items()):
        for suffix, audio in (("", results[row]["audio"]), ("_continuation", continuations[row])):
            path = audio_dir / f"{name}{suffix}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, audio, rate)
        records[name] = {
            "skipped": None,
            "prompt_seconds": len(waveform) / rate,
            "prompt_units": results[row]["prompt_units"].tolist(),
            "units": results[row]["units"].tolist(),
            "transcript": heard[row],
            "continuation_transcript": heard[len(prompts) + row],
        }
    return records


def _synthesize(units: np.ndarray, speak: AudioToAudioPipeline) -> np.ndarray:
    return speak.processor.decode(speak.tokenizer.encode_units(units, add_special_tokens=False)["input_ids"])
