"""Lets a model continue prompts, and has what it says transcribed and assessed."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm
from transformers import AutomaticSpeechRecognitionPipeline

from ..encoding.codec_identity import describe_codec
from ..fingerprints import describe_model, hash_model, hash_rows
from ..judging.arguments import JudgeArguments
from ..judging.continuations import describe_generation, save_audio
from ..judging.transcription import load_recogniser, transcribe_waveforms
from ..loading_utils import check_model
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processes import get_process_state
from ..processing_speech_lm import SpeechLMProcessor
from ..public_names import public_name
from .arguments import ContinuationArguments, EvaluationArguments
from .assessments import check_assessment, load_assessment
from .journal import Journal
from .pairs import load_pipeline, own_processor
from .prompts import Prompt, Prompts, find_prompts
from .report import Evaluation
from .tasks import TASKS


def evaluate_continuations(
    args: EvaluationArguments,
    continuation_args: ContinuationArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor | None = None,
    described: dict[str, str | None] | None = None,
    judge_args: JudgeArguments | None = None,
) -> Evaluation:
    r"""
    Let a model continue the beginnings of the correct stories of a StoryCloze folder, or of the documents of a
    tokenised corpus, and assess what it says. Called in each process of `accelerate launch`, it divides the work among
    them. After an interruption, it continues where it stopped.

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
        judge_args ([`JudgeArguments`], *optional*):
            Who rates the continuations, in `llm_judge`.

    Returns:
        [`Evaluation`] with one record per prompt. Where prompts and continuations are judged together, the results of
        the continuations alone are under `continuation`. Prompts that cannot be encoded are skipped: their records
        say why. The audio is in `audio/` below the output folder.

    Raises:
        ImportError: a package is missing: nltk for auto-BLEU, speechmos for the quality.
        ValueError: the stories are incomplete or not audio, the codec is not the model's or has no vocoder, or all
            prompts had to be skipped.
    """
    task = TASKS[args.task]
    prompts = check_continuations(args, continuation_args, judge_args)
    # What the judgement needs is loaded before the long work.
    speak = load_pipeline(args, model, own_processor(args, model, processor))
    transcribe = load_recogniser(continuation_args.asr_model, model.device)
    assess = load_assessment(args.task, continuation_args, judge_args, prompts, speak, transcribe)
    # One for all processes: saving a trained model has changed its configuration in the first process alone.
    (described,) = broadcast_object_list([described or describe_model(model, args.model)])
    data_hash = prompts.hash()
    model.to(getattr(torch, args.dtype))
    codec = speak.processor.audio_tokenizer
    settings = continuation_args.settings | {
        "dtype": args.dtype,
        "generation": describe_generation(speak),
        "asr_model": describe_model(transcribe.model),
    }
    if task.end_at_pauses:
        settings["end_at_pauses"] = True
    identity = hash_rows([[described["weights"], data_hash, hash_model(codec), settings]])
    journal_dir = Path(args.output_dir, ".journal")
    audio_dir = Path(args.output_dir, "audio", *(["pauses"] if task.end_at_pauses else []))
    records = continue_prompts(
        prompts, speak, transcribe, continuation_args, journal_dir / identity, audio_dir, args.task
    )
    if assess is not None:
        settings |= assess.settings
        spoken = {record["prompt"]: record for record in records if record["skipped"] is None}
        columns = _in_batches(
            list(spoken),
            lambda names, _: dict(zip(names, assess([spoken[name] for name in names]), strict=True)),
            journal_dir / hash_rows([[identity, assess.settings]]),
            continuation_args.batch_size,
            f"{args.task}: assessing",
        )
        records = [record | columns.get(record["prompt"], {}) for record in records]
    return Evaluation(
        task=args.task,
        results=task.compute(records),
        records=records,
        model=described,
        data={"name": public_name(args.data), "hash": data_hash},
        codec=describe_codec(codec),
        settings=settings,
    )


def check_continuations(
    args: EvaluationArguments, continuation_args: ContinuationArguments, judge_args: JudgeArguments | None = None
) -> Prompts:
    """Check what [`evaluate_continuations`] is asked for, as far as it is known without loading a model or asking an
    endpoint. It raises what that would. Returns the prompts."""
    task = TASKS[args.task]
    prompts = find_prompts(args.data, task, args.task, continuation_args.num_prompts, continuation_args.prompt_seconds)
    task.import_metric()
    check_model(continuation_args.asr_model)
    check_assessment(args.task, continuation_args, judge_args, prompts)
    return prompts


def continue_prompts(
    prompts: Prompts,
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
    args: ContinuationArguments,
    journal_dir: str | os.PathLike,
    audio_dir: str | os.PathLike,
    name: str = "continuations",
) -> list[dict[str, Any]]:
    r"""
    Continue prompts, and transcribe the results.

    Called in each process of `accelerate launch`, it divides the batches among them. A batch holds the same prompts,
    and has the same seed, in any number of processes and after any interruption.

    Finished batches are kept in `journal_dir`, which must be for these prompts, models and arguments only. `audio_dir`
    gets `{name}.wav`, the prompt resynthesised by the codec with its continuation, and `{name}_continuation.wav`.

    Returns:
        `list` of one `dict` per prompt, in their order:

        - **prompt** (`str`) -- Name of the prompt.
        - **skipped** (`str`, *optional*) -- Why it was not continued. If it is there, nothing else is.
        - **prompt_seconds** (`float`) -- Length of the prompt.
        - **prompt_units**, **units** (`list[int]`) -- Deduplicated units of the prompt, and of the continuation.
        - **transcript**, **continuation_transcript** (`str`) -- What is heard in the two audio files.
    """

    def continue_batch(names: Sequence[str], batch: int) -> dict[str, dict[str, Any]]:
        read, skipped = prompts.read(names, speak)
        records = {name: {"skipped": reason} for name, reason in skipped.items()}
        if read:
            records |= _continue_batch(read, speak, transcribe, args.seed + batch, Path(audio_dir))
        return records

    records = _in_batches(prompts.names, continue_batch, journal_dir, args.batch_size, name)
    return [{"prompt": name, **record} for name, record in records.items()]


def _in_batches(
    names: Sequence[str],
    work: Callable[[Sequence[str], int], dict[str, dict[str, Any]]],
    journal_dir: str | os.PathLike,
    batch_size: int,
    title: str,
) -> dict[str, dict[str, Any]]:
    """The result of each name, in their order. `work` makes those of a batch, given its names and its number, unless
    they are in the journal. The processes divide the batches among them."""
    state = get_process_state()
    journal = Journal(journal_dir)
    # All processes must find the same batches missing, before one of them finishes any.
    state.wait_for_everyone()
    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    pending = [(number, batch) for number, batch in enumerate(batches) if batch[-1] not in journal.results]
    share = pending[state.process_index :: state.num_processes]
    for number, batch in tqdm(share, desc=title, unit="batch", disable=not state.is_main_process or not share):
        results = work(batch, number)
        journal.add((name, results[name]) for name in batch)
    finished = {name: result for results in gather_object([journal.results]) for name, result in results.items()}
    return {name: finished[name] for name in names}


def _continue_batch(
    prompts: Mapping[str, Prompt],
    speak: AudioToAudioPipeline,
    transcribe: AutomaticSpeechRecognitionPipeline,
    seed: int,
    audio_dir: Path,
) -> dict[str, dict[str, Any]]:
    rate = speak.processor.audio_tokenizer.sampling_rate
    inputs = speak.tokenizer.encode_units(
        [prompt.units for prompt in prompts.values()], padding=True, return_tensors="pt"
    )
    # As published scores are made: a model may end when it likes.
    outputs = speak.forward(dict(inputs), seed=seed, min_new_seconds=0)
    ids = outputs["continuations"][:, 0]
    wholes = [
        row[:length].numpy() for row, length in zip(outputs["waveforms"][:, 0], outputs["lengths"][:, 0], strict=True)
    ]
    continuations = speak.processor.batch_decode(ids)
    heard = transcribe_waveforms(wholes + continuations, rate, transcribe, len(prompts))
    records = {}
    for row, (name, prompt) in enumerate(prompts.items()):
        for suffix, audio in (("", wholes[row]), ("_continuation", continuations[row])):
            save_audio(audio, rate, audio_dir / f"{name}{suffix}.wav")
        records[name] = {
            "skipped": None,
            "prompt_seconds": prompt.seconds,
            "prompt_units": prompt.units.tolist(),
            "units": speak.tokenizer.decode_units(ids[row]).tolist(),
            "transcript": heard[row],
            "continuation_transcript": heard[len(prompts) + row],
        }
    return records
