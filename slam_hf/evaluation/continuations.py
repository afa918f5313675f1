"""Lets a model continue the beginnings of recordings, and judges the transcripts of what it says."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import AutomaticSpeechRecognitionPipeline

from ..audio_utils import load_audio
from ..encoding.codec_identity import describe_codec
from ..fingerprints import describe_model, hash_model, hash_rows
from ..judging.local import TextLM
from ..judging.transcription import load_recogniser, transcribe_waveforms
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processes import get_process_state
from ..processing_speech_lm import SpeechLMProcessor
from ..public_names import public_name
from .arguments import ContinuationArguments, EvaluationArguments
from .journal import Journal
from .pairs import load_pipeline, own_processor
from .report import Evaluation
from .tasks import TASKS
from .units import hash_files, list_audio


def evaluate_continuations(
    args: EvaluationArguments,
    continuation_args: ContinuationArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor | None = None,
    described: dict[str, str | None] | None = None,
) -> Evaluation:
    r"""
    Let a model continue the beginnings of the correct stories of a StoryCloze folder, and judge the transcripts.
    Called in each process of `accelerate launch`, it divides the work among them. After an interruption, it continues
    where it stopped.

    Args:
        args ([`EvaluationArguments`]):
            The benchmark. `model` names the model in the results.
        continuation_args ([`ContinuationArguments`]):
            How to continue, transcribe and judge.
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode. Its weights are cast to `args.dtype`.
        processor ([`SpeechLMProcessor`], *optional*):
            Its processor, which is not changed. Defaults to that of `args.model`.
        described (`dict`, *optional*):
            What [`describe_model`] returned for the model. Without it, the weights are hashed again.

    Returns:
        [`Evaluation`] with the results of prompts and continuations together, with those of the continuations alone
        under `continuation`, and with one record per prompt. Prompts that cannot be encoded are skipped: their records
        say why. The audio is in `audio/` below the output folder.

    Raises:
        ImportError: nltk is missing, which auto-BLEU needs.
        ValueError: the stories are incomplete or not audio, the codec is not the model's or has no vocoder, or all
            prompts had to be skipped.
    """
    task = TASKS[args.task]
    files = list_audio(args.data)
    if not files:
        raise ValueError(f"'{args.data}' holds no audio, which the prompts of {args.task} are the beginnings of.")
    pairs = task.read_pairs(args.data, files.keys())[: continuation_args.num_prompts]
    files = {pair.correct: files[pair.correct] for pair in pairs}
    alignments = {f"{name}.json": path for name in files if (path := files[name].with_suffix(".json")).is_file()}
    # What the judgement needs is loaded before the long work.
    task.import_metric()
    needs_text_lm = "negative_log_likelihood" in task.inputs.values()
    text_lm = (
        TextLM.from_pretrained(continuation_args.text_lm, continuation_args.start_token) if needs_text_lm else None
    )
    speak = load_pipeline(args, model, own_processor(args, model, processor))
    transcribe = load_recogniser(continuation_args.asr_model, model.device)
    described = described or describe_model(model, args.model)
    data_hash = hash_rows(hash_files(files | alignments).items())
    model.to(getattr(torch, args.dtype))
    codec = speak.processor.audio_tokenizer
    settings = {name: getattr(continuation_args, name) for name in ("prompt_seconds", "batch_size", "seed")}
    settings |= {
        "dtype": args.dtype,
        "generation": _describe_generation(speak),
        "asr_model": describe_model(transcribe.model),
    }
    identity = hash_rows([[described["weights"], data_hash, hash_model(codec), settings]])
    journal_dir, audio_dir = Path(args.output_dir, ".journal", identity), Path(args.output_dir, "audio")
    records = continue_recordings(files, speak, transcribe, continuation_args, journal_dir, audio_dir, args.task)
    if text_lm is not None:
        settings["text_lm"] = text_lm.description
        text_lm.model.to(model.device)
        _add_losses(records, text_lm, continuation_args.batch_size)
    return Evaluation(
        task=args.task,
        results=task.compute(records),
        records=records,
        model=described,
        data={"name": public_name(args.data), "hash": data_hash},
        codec=describe_codec(codec),
        settings=settings,
    )


def continue_recordings(
    files: Mapping[str, Path],
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
    args: ContinuationArguments,
    journal_dir: str | os.PathLike,
    audio_dir: str | os.PathLike,
    name: str = "continuations",
) -> list[dict[str, Any]]:
    r"""
    Continue the beginnings of recordings, which `files` gives by name, and transcribe the results.

    Called in each process of `accelerate launch`, it divides the batches among them. A batch holds the same prompts,
    and has the same seed, in any number of processes and after any interruption.

    Finished batches are kept in `journal_dir`, which must be for these files, models and arguments only. `audio_dir`
    gets `{name}.wav`, the prompt resynthesised by the codec with its continuation, and `{name}_continuation.wav`.

    Returns:
        `list` of one `dict` per recording, in their order:

        - **prompt** (`str`) -- Name of the recording.
        - **skipped** (`str`, *optional*) -- Why it was not continued. If it is there, nothing else is.
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
    for seed, batch in tqdm(share, desc=name, unit="batch", disable=not state.is_main_process or not share):
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
    Read the beginnings of recordings. If a recording has a file of the same name with the extension `.json` beside it,
    with `aligned_text`, a list of `{"word", "start_time", "end_time"}` in seconds, the prompt ends at the nearest end
    of a word; `ValueError` where that file cannot be read. Shorter recordings are taken as a whole.

    Returns:
        `tuple` of two `dict` by name: waveforms of shape `(samples,)` at the codec's sampling rate, and what is wrong
        with the recordings that cannot be read or are shorter than a frame of the codec.
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


def _end_of_prompt(path: Path, seconds: float) -> float:
    alignment = path.with_suffix(".json")
    if not alignment.is_file():
        return seconds
    try:
        words = json.loads(alignment.read_text("utf-8-sig")).get("aligned_text", [])
        end = min((float(word["end_time"]) for word in words), key=lambda end: abs(end - seconds), default=seconds)
        if not 0 < end < math.inf:
            raise ValueError(f"a word ends at {end} s")
        return end
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{alignment}' is not a JSON object with `aligned_text`, a list of words with `end_time` in seconds "
            f"({error!r}): mend it or take it away."
        ) from error


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
        # As published scores are made: whole prompts, and a model may end when it likes.
        trim_silence=False,
        min_new_seconds=0,
    )
    units = [speak.tokenizer.encode_units(result["units"], add_special_tokens=False) for result in results]
    continuations = speak.processor.batch_decode([ids["input_ids"] for ids in units])
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


def _add_losses(records: Sequence[dict[str, Any]], text_lm: TextLM, batch_size: int) -> None:
    """Add to records the mean negative log-likelihood per token of their transcripts, `None` for empty ones."""
    state = get_process_state()
    rows = [row for row, record in enumerate(records) if record["skipped"] is None]
    share = rows[state.process_index :: state.num_processes]
    for prefix in ("", "continuation_"):
        texts = [records[row][f"{prefix}transcript"] for row in share]
        losses = text_lm.losses(texts, batch_size)
        for row, value in gather_object(list(zip(share, losses, strict=True))):
            records[row][f"{prefix}negative_log_likelihood"] = value


def _describe_generation(speak: AudioToAudioPipeline) -> dict[str, Any]:
    """The settings of the model's own generation configuration, and those that the pipeline adds."""
    parameters = speak.model.generation_config.to_diff_dict() | speak._prepare_generate_kwargs({})
    return {name: value for name, value in parameters.items() if name[0] != "_" and name != "transformers_version"}
