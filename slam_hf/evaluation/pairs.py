"""Scores a model on pairs of utterances: audio or units of a benchmark's folder → log-likelihoods → metric."""

import copy
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, pipeline

from ..encoding.codec_identity import describe_codec
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processing_speech_lm import SpeechLMProcessor
from ..public_names import public_name
from .arguments import EvaluationArguments
from .benchmarks import Pair
from .fingerprints import describe_model, hash_rows
from .report import Evaluation
from .scoring import score_pairs
from .tasks import TASKS, pair_tasks
from .units import Utterances, encode_files, list_audio, read_tokenized


def evaluate_pairs(
    args: EvaluationArguments, model: SpeechLMForCausalLM, processor: SpeechLMProcessor | None = None
) -> Evaluation:
    r"""
    Score a model on a benchmark of pairs. Called in each process of `accelerate launch`, it divides the work among
    them. After an interruption, it continues where it stopped.

    Args:
        args ([`EvaluationArguments`]):
            The benchmark, and how to score. `model` names the model in the results.
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode. Its weights are cast to `args.dtype`.
        processor ([`SpeechLMProcessor`], *optional*):
            Its processor, which is not changed. Defaults to that of `args.model`.

    Returns:
        [`Evaluation`] with one record per pair. Pairs with an utterance that cannot be encoded, or that is longer than
        the positions that the model has learned, are skipped: their records have no scores and say why.

    Raises:
        FileNotFoundError, ValueError: the benchmark is incomplete, its units are not the model's, or all of its pairs
            had to be skipped.
    """
    processor = own_processor(args, model, processor)
    pairs, utterances, files = _read_benchmark(args.task, args.data)
    codec = None
    if utterances is None:
        codec = load_pipeline(args, model, processor).processor.audio_tokenizer
        wanted = {name: files[name] for pair in pairs for name in pair.names}
        utterances = encode_files(wanted, codec, args.cache_dir, args.num_workers)
    processor.tokenizer.add_eos_token = True
    _check_vocabulary(utterances, processor.tokenizer.num_units)
    _skip_too_long(utterances, model.max_positions)
    described = describe_model(model, args.model)
    model.to(getattr(torch, args.dtype))
    scored = [pair.names for pair in pairs if utterances.skipped.keys().isdisjoint(pair.names)]
    scores = score_pairs(
        [tuple(utterances.units[name] for name in names) for names in scored],
        model,
        processor.tokenizer,
        journal_dir=Path(args.output_dir) / ".journal" / f"{described['weights']}-{args.dtype}-{args.reduction}",
        reduction=args.reduction,
        batch_tokens=args.batch_tokens,
        name=args.task,
    )
    scores_of = dict(zip(scored, scores.tolist(), strict=True))
    records = [_make_record(pair, scores_of.get(pair.names, (None, None)), utterances) for pair in pairs]
    contents = ([*astuple(pair), *map(utterances.hashes.get, pair.names)] for pair in pairs)
    return Evaluation(
        task=args.task,
        results=TASKS[args.task].compute(records),
        records=records,
        model=described,
        data={"name": public_name(args.data), "hash": hash_rows(contents)},
        codec=codec and describe_codec(codec),
        settings={"reduction": args.reduction, "dtype": args.dtype},
    )


def check_benchmark(task: str, data: str, num_units: int) -> None:
    """
    Check that a model can be scored on a benchmark of pairs, without reading its audio. Trainings that end with an
    evaluation call this at their start. It raises what [`evaluate_pairs`] would, or a `ValueError` for another task.
    """
    _, utterances, _ = _read_benchmark(task, data)
    if utterances is not None:
        _check_vocabulary(utterances, num_units)


def _read_benchmark(task: str, data: str) -> tuple[list[Pair], Utterances | None, dict[str, Path]]:
    """The pairs of a benchmark, and either its utterances, if they are tokenised, or its audio files."""
    if task not in pair_tasks():
        raise ValueError(f"A benchmark of pairs can be {', '.join(pair_tasks())}, and '{task}' is none of them.")
    if not Path(data).is_dir():
        raise FileNotFoundError(f"The folder '{data}' of the benchmark {task} is not there.")
    utterances = read_tokenized(data)
    files = list_audio(data) if utterances is None else {}
    names = files.keys() if utterances is None else utterances.hashes.keys()
    return TASKS[task].read_pairs(data, names), utterances, files


def own_processor(
    args: EvaluationArguments, model: SpeechLMForCausalLM, processor: SpeechLMProcessor | None = None
) -> SpeechLMProcessor:
    """A processor that may be changed: a copy of the one in memory, or the one that is saved with the model."""
    if processor is None:
        # An adapter has the processor of its base model, which is what `name_or_path` is then.
        return AutoProcessor.from_pretrained(model.name_or_path if hasattr(model, "peft_config") else args.model)
    processor = copy.copy(processor)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    return processor


def load_pipeline(
    args: EvaluationArguments, model: SpeechLMForCausalLM, processor: SpeechLMProcessor
) -> AudioToAudioPipeline:
    """The model's pipeline, with the codec that the arguments name or else the model's own."""
    return pipeline("audio-to-audio", model=model, processor=processor, codec=args.codec, device=model.device)


def _make_record(pair: Pair, scores: Sequence[float | None], utterances: Utterances) -> dict[str, Any]:
    problems = [f"{name}: {utterances.skipped[name]}" for name in pair.names if name in utterances.skipped]
    record = {"correct": pair.correct, "incorrect": pair.incorrect, **pair.labels}
    record["correct_score"], record["incorrect_score"] = scores
    record["correct_units"], record["incorrect_units"] = (len(utterances.units.get(name, ())) for name in pair.names)
    return record | {"skipped": "; ".join(problems) or None}


def _skip_too_long(utterances: Utterances, max_positions: int | None) -> None:
    for name, units in utterances.units.items():
        num_tokens = len(units) + 2  # with <S> on both sides
        if max_positions is not None and num_tokens > max_positions:
            problem = f"too long: {num_tokens:,} tokens, and the model has {max_positions:,} positions"
            utterances.skipped[name] = problem


def _check_vocabulary(utterances: Utterances, num_units: int) -> None:
    for name, units in utterances.units.items():
        if units.max() >= num_units:
            raise ValueError(
                f"{name!r} has the unit {units.max()}, but the model only knows 0 to {num_units - 1}: its units were "
                "made with another codec than the model was trained on."
            )
