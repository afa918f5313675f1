"""Samples on model cards: the beginnings of recordings, and what a model continues them with."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import pipeline
from transformers.utils import is_matplotlib_available

from ..audio_utils import load_audio
from ..continuation_plot import plot_continuation
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import PAPER_SAMPLING, AudioToAudioPipeline
from ..processing_speech_lm import SpeechLMProcessor
from ..public_names import public_name
from .repository_files import stage


SAMPLES, INDEX = "samples", "samples.json"
"""The folder in that of a model, and the list of the samples in it."""

MAX_FILES, MAX_BYTES = 48, 2**20
"""How many files of samples a repository may have, and the size of each: 16 kHz FLAC of over half a minute."""

SAMPLING = {name: getattr(PAPER_SAMPLING, name) for name in ("temperature", "top_k", "repetition_penalty")}
"""How the continuations are sampled."""


@strict
@dataclass
class Sample:
    """
    A continuation. `prompt` (the first `prompt_seconds` of `recording`, a public name), `continuation` (the prompt, as
    the codec says it, and what follows) and `picture` are files; `settings` are those of the sampling.
    """

    recording: str
    prompt: str
    prompt_seconds: float
    continuation: str
    seed: int
    settings: dict[str, int | float]
    picture: str | None = None

    @property
    def files(self) -> list[str]:
        """`list[str]`: The names of its files."""
        return [self.prompt, self.continuation, *([] if self.picture is None else [self.picture])]


def save_samples(
    folder: Path,
    speak: AudioToAudioPipeline,
    recordings: Sequence[str],
    seeds: Sequence[int] = (0, 1),
    prompt_seconds: float = 3.0,
) -> None:
    r"""
    Continue recordings, and write prompts, continuations and, with matplotlib, a picture of the first of each. Earlier
    samples of the folder are removed.

    Args:
        folder (`Path`):
            Folder of the model.
        speak ([`AudioToAudioPipeline`]):
            The model.
        recordings (sequence of `str`):
            The recordings, paths or URLs: none that the model was trained on.
        seeds (sequence of `int`, *optional*, defaults to `(0, 1)`):
            A continuation for each seed.
        prompt_seconds (`float`, *optional*, defaults to 3.0):
            Seconds of a recording to continue.

    Raises:
        OSError, ValueError: a recording cannot be read.
    """
    rate = speak.processor.audio_tokenizer.sampling_rate
    prompts = [load_audio(recording, rate)[: round(prompt_seconds * rate)] for recording in recordings]
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)
    (folder / SAMPLES).mkdir(parents=True)
    samples = []
    for number, (recording, prompt) in enumerate(zip(recordings, prompts, strict=True), start=1):
        soundfile.write(folder / SAMPLES / f"{number}.flac", prompt, rate)
        for seed in seeds:
            recorded = {"array": prompt, "sampling_rate": rate}
            result = speak(recorded, trim_silence=False, seed=seed, do_sample=True, **SAMPLING)
            name = f"{number}-seed-{seed}"
            soundfile.write(folder / SAMPLES / f"{name}.flac", result["audio"], rate)
            picture = f"{name}.png" if seed == seeds[0] and is_matplotlib_available() else None
            if picture is not None:
                plot_continuation(result).savefig(folder / SAMPLES / picture, dpi=100)
            seconds = len(prompt) / rate
            of = public_name(f"/{recording}")
            samples.append(Sample(of, f"{number}.flac", seconds, f"{name}.flac", seed, SAMPLING, picture))
    content = json.dumps(list(map(asdict, samples)), indent=2) + "\n"
    (folder / SAMPLES / INDEX).write_text(content, encoding="utf-8")


def save_training_samples(
    folder: Path, model: SpeechLMForCausalLM, processor: SpeechLMProcessor, recording: str, seed: int
) -> None:
    """Continue a recording twice by a model that was trained with a seed, as [`save_samples`] does."""
    speak = pipeline("audio-to-audio", model=model, processor=processor, device=model.device)
    save_samples(folder, speak, [recording], (seed, seed + 1))


def read_samples(folder: Path) -> list[Sample]:
    """
    The samples in the folder of a model, which may come from others. `ValueError` if the list is damaged or names
    files elsewhere, or if there are too many or too large ones.
    """
    path = folder / SAMPLES / INDEX
    if not path.is_file():
        return []
    try:
        samples = [Sample(**sample) for sample in json.loads(path.read_text("utf-8"))]
    except (ValueError, TypeError, RecursionError, StrictDataclassError) as error:
        raise ValueError(f"'{path}' is not a list of samples: {error}") from error
    files = {file for sample in samples for file in sample.files}
    if len(files) > MAX_FILES:
        raise ValueError(f"'{path}' names {len(files)} files: at most {MAX_FILES} belong on a card.")
    for file in sorted(files):
        if not re.fullmatch(r"[\w-]+\.(flac|png)", file, re.ASCII):
            raise ValueError(f"'{path}' names {file!r}, which is not a .flac or .png file beside it.")
        size = (folder / SAMPLES / file).lstat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"'{folder / SAMPLES / file}' has {size:,} bytes: a sample may have {MAX_BYTES:,}.")
    return samples


def stage_samples(source: Path, folder: Path) -> None:
    """Copy the samples of a model to a folder that is published. Other files beside them are left out."""
    files = {file: None for sample in read_samples(source) for file in sample.files}
    if files:
        stage([source / SAMPLES / name for name in (*files, INDEX)], folder / SAMPLES)


def describe_settings(settings: dict[str, Any]) -> str:
    """The settings of a sampling in words, such as `"temperature 0.8, top k 25"`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())
