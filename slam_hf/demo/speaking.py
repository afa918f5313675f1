"""What the page does with a model: read a recording, continue it, and compare two of them."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..audio_files import open_audio
from ..pipeline_audio_to_audio import AudioToAudioPipeline


MAX_SECONDS = 60
"""Maximum length of a recording."""


@dataclass
class Sampling:
    """How to continue a prompt. A temperature of 0 always takes the most likely unit."""

    prompt_duration: float = 3.0
    max_new_tokens: int = 150
    temperature: float = 0.8
    top_k: int = 25
    repetition_penalty: float = 1.1

    def options(self) -> dict[str, Any]:
        """The options of a call of the pipeline."""
        options = vars(self)
        if self.temperature == 0:
            names = ("prompt_duration", "max_new_tokens", "repetition_penalty")
            options = {"do_sample": False, **{name: options[name] for name in names}}
        return dict(options)


@dataclass
class Take:
    """
    What the player shows: the prompt, or a continuation of it in speech or in text. `chunks` are 16-bit samples in
    base64, `units` pairs of a unit and the seconds that it lasts. The audio of a continuation begins with the prompt,
    which lasts `prompt_seconds`. One that `speaks` is played as soon as it can be.
    """

    name: str
    facts: str = ""
    sampling_rate: int = 16_000
    prompt_seconds: float = 0.0
    expected_seconds: float = 0.0
    chunks: list[str] = field(default_factory=list)
    units: list[tuple[int, float]] = field(default_factory=list)
    given: str = ""
    text: str | None = None
    speaks: bool = False
    done: bool = False

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.units)

    def add(self, waveform: np.ndarray, units: np.ndarray, seconds: np.ndarray) -> None:
        samples = (np.clip(waveform, -1, 1) * 32767).astype("<i2")
        self.chunks.append(base64.b64encode(samples.tobytes()).decode())
        self.units += zip(units.tolist(), seconds.tolist(), strict=True)


def read_recording(path: str | None) -> dict[str, Any]:
    r"""
    Read what a visitor recorded or chose, as the pipeline takes it.

    Args:
        path (`str`, *optional*):
            The file.

    Returns:
        `dict` with `array` of shape `(samples,)`, `sampling_rate` in Hz, and `path`, the name of the file alone.

    Raises:
        ValueError: there is none, it cannot be read, or it is longer than `MAX_SECONDS`.
    """
    if not path:
        raise ValueError("There is no recording yet: record something, or choose a file.")
    name = Path(path).name
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError("The recording is deleted, as every recording after a while: choose it again.") from None
    blocks, num_samples = [], 0
    with open_audio({"bytes": content, "path": name}) as file:
        for block in file.blocks():
            blocks.append(block)
            num_samples += len(block)
            if num_samples > MAX_SECONDS * file.sampling_rate:
                raise ValueError(f"'{name}' is longer than {MAX_SECONDS} seconds: choose a shorter recording.")
        return {"array": np.concatenate(blocks), "sampling_rate": file.sampling_rate, "path": name}


def continue_prompt(
    speak: AudioToAudioPipeline,
    prompt: Any,
    sampling: Sampling,
    seed: int = 0,
    count: int = 1,
    output_modality: Literal["speech", "text"] = "speech",
) -> Iterator[list[Take]]:
    r"""
    Continue a prompt, as the pipeline takes it. Yields all takes whenever there is more of one: the prompt as its
    units sound, and `count` continuations, made one after another with the seeds `seed`, `seed + 1`, ...
    """
    takes: list[Take] = []
    options = sampling.options()
    if speak.tokenizer.has_text:
        options["output_modality"] = output_modality
    make = _write if output_modality == "text" else _speak
    for index in range(count):
        takes.append(Take(f"Continuation {index + 1}" if count > 1 else "Continuation", f"seed {seed + index}"))
        yield from make(speak, prompt, takes, {**options, "seed": seed + index})


def _write(
    speak: AudioToAudioPipeline, prompt: Any, takes: list[Take], options: dict[str, Any]
) -> Iterator[list[Take]]:
    """Write the last take."""
    parts = prompt[0] if isinstance(prompt, list) else [prompt]
    takes[-1].given, takes[-1].text = "".join(part.get("text", "") for part in parts), ""
    for chunk in speak(prompt, stream=True, return_full_text=False, **options):
        takes[-1].text += chunk["generated_text"]
        yield takes
    takes[-1].done = True
    yield takes


def _speak(
    speak: AudioToAudioPipeline, prompt: Any, takes: list[Take], options: dict[str, Any]
) -> Iterator[list[Take]]:
    """Make the last take, and before the first one the prompt."""
    codec = speak.processor.audio_tokenizer
    take, facts, num_new = takes[-1], takes[-1].facts, 0
    spoken_prompt = Take("Prompt") if len(takes) == 1 else None
    take.speaks = spoken_prompt is not None
    for chunk in speak(prompt, stream=True, **options):
        seconds = chunk["durations"] / codec.frame_rate
        num_prompt, num_new = len(chunk["prompt_units"]), num_new + len(chunk["units"])
        take.sampling_rate = chunk["sampling_rate"]
        take.prompt_seconds += seconds[:num_prompt].sum().item()
        take.add(chunk["audio"], np.concatenate([chunk["prompt_units"], chunk["units"]]), seconds)
        take.expected_seconds = take.prompt_seconds + options["max_new_tokens"] * take.seconds / len(take.units)
        take.facts = f"{facts} · {num_new} units"
        if spoken_prompt is not None and num_prompt:
            if not spoken_prompt.units:
                takes.insert(0, spoken_prompt)
            samples = round(seconds[:num_prompt].sum() * take.sampling_rate)
            spoken_prompt.sampling_rate = take.sampling_rate
            spoken_prompt.add(chunk["audio"][:samples], chunk["prompt_units"], seconds[:num_prompt])
            spoken_prompt.prompt_seconds = spoken_prompt.expected_seconds = spoken_prompt.seconds
            spoken_prompt.facts = f"as its {len(spoken_prompt.units)} units sound · {spoken_prompt.seconds:.1f} s"
        if spoken_prompt is not None:
            spoken_prompt.done = num_new > 0
        yield takes
    take.facts = f"{facts} · {num_new} units in {take.seconds - take.prompt_seconds:.1f} s"
    if num_new == 0:
        take.facts = f"{facts} · the model ended at once: try another seed, or a shorter prompt"
    take.done = True
    if spoken_prompt is not None:
        spoken_prompt.done = True
    yield takes


def score(speak: AudioToAudioPipeline, recording: dict[str, Any]) -> tuple[float, np.ndarray]:
    """
    The mean log-likelihood per token of a recording, which is the published score, and that of each of its units, of
    shape `(units,)`, in nats.
    """
    tokenizer, ids = speak.tokenizer, speak.preprocess(recording)["input_ids"]
    after = tokenizer.ids_around()[1] if tokenizer.has_text else [tokenizer.eos_token_id]
    whole = torch.cat([ids, torch.tensor([after], dtype=ids.dtype)], dim=1).to(speak.device)
    tokens = speak.model.log_likelihood(whole, torch.ones_like(whole), "none")[0, 1:].cpu()
    return tokens.mean().item(), tokens[: len(tokenizer.decode_units(ids[0]))].numpy()
