"""What evaluations and preferences share: where a prompt ends, and how a model continues it."""

import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
import torch
from transformers.tokenization_utils_base import BatchEncoding

from ..atomic_write import atomic_write
from ..pipeline_audio_to_audio import AudioToAudioPipeline


def end_of_prompt(words: Iterable[Mapping[str, Any]], seconds: float) -> float:
    """The end of the word that ends nearest to `seconds`, of words with `end_time`; `seconds` where there is none."""
    ends = (float(word["end_time"]) for word in words if word["end_time"] is not None)
    return min(ends, key=lambda end: abs(end - seconds), default=seconds)


def cut_units(row: Mapping[str, Any], seconds: float, frame_rate: float) -> tuple[list[int], float]:
    """The first units of a row of a tokenised corpus, those that end by the end of the prompt, and how many seconds
    they last. There may be none."""
    ends = (np.cumsum(row["durations"]) / frame_rate).tolist()
    length = bisect_right(ends, end_of_prompt(row.get("aligned_text") or [], seconds) + 1e-6)
    return row["units"][:length], ends[length - 1] if length else 0.0


def sample_continuations(
    inputs: BatchEncoding,
    speak: AudioToAudioPipeline,
    seeds: Sequence[int],
    num_samples: int,
    options: Mapping[str, Any],
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    r"""
    Sample continuations of a batch of prompts. Those of a prompt depend on its seed and not on the rest of the batch,
    but for the rounding of numbers.

    Args:
        inputs ([`~transformers.BatchEncoding`]):
            `input_ids` and `attention_mask` of the prompts, padded on the left.
        speak ([`AudioToAudioPipeline`]):
            The model's pipeline.
        seeds (sequence of `int`):
            A seed for each prompt.
        num_samples (`int`):
            Number of continuations of each prompt.
        options (`dict`):
            Parameters of `generate()`.

    Returns:
        For each prompt, `num_samples` pairs: the deduplicated units of a continuation, of shape `(units,)`, and its
        waveform, of shape `(samples,)`. A model may end at once: then both are empty.
    """
    outputs = speak.forward(
        dict(inputs),
        seed=list(seeds),
        num_return_sequences=num_samples,
        min_new_seconds=0,
        return_full_audio=False,
        **options,
    )
    deduplicate = speak.processor.audio_tokenizer.deduplicate
    results = []
    for of_prompt in zip(outputs["continuations"], outputs["waveforms"], outputs["lengths"], strict=True):
        results.append([])
        for ids, waveform, length in zip(*of_prompt, strict=True):
            units = deduplicate(torch.from_numpy(speak.tokenizer.decode_units(ids)))[0]
            results[-1].append((units.numpy(), waveform[:length].numpy()))
    return results


def save_audio(waveform: np.ndarray, rate: int, path: str | os.PathLike) -> None:
    """Write a waveform of shape `(samples,)` to a path or URL that ends with the name of the format."""
    content = io.BytesIO()
    soundfile.write(content, waveform, rate, format=os.fspath(path).rpartition(".")[2].upper())
    atomic_write(path, content.getvalue())


def describe_generation(speak: AudioToAudioPipeline, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of the model's own generation configuration, and those that the pipeline and `options` add."""
    parameters = speak.model.generation_config.to_diff_dict() | speak._prepare_generate_kwargs(dict(options or {}))
    return {name: value for name, value in parameters.items() if name[0] != "_" and name != "transformers_version"}
