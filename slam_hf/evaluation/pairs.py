"""Scores a model on pairs of utterances: audio, units or texts → log-likelihoods → metric."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import AutoProcessor, pipeline

from ..encoding.codec_identity import describe_codec
from ..fingerprints import describe_model, hash_rows
from ..loading_utils import naming_damaged_files
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processing_speech_lm import SpeechLMProcessor
from ..public_names import public_name
from ..tokenization_speech_text import SpeechTextTokenizer
from .arguments import EvaluationArguments
from .benchmark_folder import check_vocabulary, gather_utterances, read_benchmark
from .benchmarks import Pair
from .candidates import Candidate, make_candidate
from .report import Evaluation
from .scoring import score_pairs
from .tasks import CONDITIONAL_SCORES, TASKS, Task
from .units import Utterances


def evaluate_pairs(
    args: EvaluationArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor | None = None,
    described: dict[str, str | None] | None = None,
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
        described (`dict`, *optional*):
            What [`describe_model`] returned for the model. Without it, the weights are hashed again.

    Returns:
        [`Evaluation`] with one record per pair. If the benchmark has prompts, the [`CONDITIONAL_SCORES`] stand beside
        the published one. Pairs with an utterance that cannot be encoded, or that has more tokens than the model has
        positions, are skipped: their records have no scores and say why.

    Raises:
        FileNotFoundError, ValueError: the benchmark is incomplete, its units are not the model's, the task has text
            and the model does not know any, or all pairs had to be skipped.
    """
    processor = own_processor(args, model, processor)
    tokenizer, task = processor.tokenizer, TASKS[args.task]
    folder = read_benchmark(args.task, args.data)
    _check_text(args.task, tokenizer.has_text, args.ban_text)
    if not tokenizer.has_text:
        tokenizer.add_eos_token = True
    codec = load_pipeline(args, model, processor).processor.audio_tokenizer if folder.needs_codec else None
    utterances = gather_utterances(folder, task, tokenizer, codec, args)
    problems = {pair.names: _missing_parts(pair, utterances) for pair in folder.pairs}
    candidates = {
        pair.names: [make_candidate(name, pair.prompt, task, utterances, tokenizer) for name in pair.sides]
        for pair in folder.pairs
        if not problems[pair.names]
    }
    for names, of_pair in candidates.items():
        problems[names] = _problems_of_lengths(names, of_pair, model)
    scored = [names for names in candidates if not problems[names]]
    # One for all processes: saving a trained model has changed its configuration in the first process alone.
    (described,) = broadcast_object_list([described or describe_model(model, args.model)])
    model.to(getattr(torch, args.dtype))
    journal = f"{described['weights']}-{args.dtype}-{args.reduction}{'-ban_text' if args.ban_text else ''}"
    scores = score_pairs(
        [tuple(candidates[names]) for names in scored],
        model,
        journal_dir=Path(args.output_dir) / ".journal" / journal,
        reduction=args.reduction,
        batch_tokens=args.batch_tokens,
        suppress_tokens=_text_ids(tokenizer) if args.ban_text else None,
        name=args.task,
    )
    scores_of = dict(zip(scored, scores, strict=True))
    records = [
        _make_record(pair, task, scores_of.get(pair.names), utterances, problems[pair.names]) for pair in folder.pairs
    ]
    return Evaluation(
        task=args.task,
        results=task.compute(records),
        records=records,
        model=described,
        data={"name": public_name(args.data), "hash": hash_rows(_contents(pair, utterances) for pair in folder.pairs)},
        codec=codec and describe_codec(codec),
        settings=args.settings,
    )


def check_benchmark(
    task: str, data: str, num_units: int | None, reads_text: bool = False, ban_text: bool = False
) -> bool:
    """
    Check that a model of `num_units` units (`None`: not known), and possibly of text, can be scored on a benchmark of
    pairs, without reading its audio. A training that ends with an evaluation calls this at its start. It raises what
    [`evaluate_pairs`] would, and a `ValueError` if the task is not one of pairs. Returns whether the benchmark needs a
    codec.
    """
    folder = read_benchmark(task, data)
    _check_text(task, reads_text, ban_text)
    if folder.utterances is not None and num_units is not None:
        check_vocabulary(folder.utterances, num_units)
    return folder.needs_codec


def _check_text(task: str, reads_text: bool, ban_text: bool) -> None:
    if not reads_text and not TASKS[task].is_speech:
        raise ValueError(
            f"{task} has text, and the model only knows units: evaluate a model of speech and text, or choose a task "
            "of speech."
        )
    if ban_text and not (reads_text and TASKS[task].is_speech):
        raise ValueError("`ban_text` is for models of speech and text, and for tasks of speech alone.")


def own_processor(
    args: EvaluationArguments, model: SpeechLMForCausalLM, processor: SpeechLMProcessor | None = None
) -> SpeechLMProcessor:
    """A processor that may be changed: a copy of the one in memory, or the one that is saved with the model."""
    if processor is None:
        # An adapter has the processor of its base model, which is what `name_or_path` is then.
        name = model.name_or_path if hasattr(model, "peft_config") else args.model
        with naming_damaged_files(name):
            return AutoProcessor.from_pretrained(name)
    processor = copy.copy(processor)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    return processor


def load_pipeline(
    args: EvaluationArguments, model: SpeechLMForCausalLM, processor: SpeechLMProcessor
) -> AudioToAudioPipeline:
    """The model's pipeline, with the codec that the arguments name or else the model's own."""
    return pipeline("audio-to-audio", model=model, processor=processor, codec=args.codec, device=model.device)


def _text_ids(tokenizer: SpeechTextTokenizer) -> list[int]:
    """The ids that the reference toolkit bans: those of text without its special tokens, and the first id of each
    encoded modality token. That is the token which the text tokenizer puts in front, if it does so."""
    firsts = {tokenizer(token)["input_ids"][0] for token in (tokenizer.speech_token, tokenizer.text_token)}
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    return sorted(set(tokenizer.text_ids) - special | firsts)


def _missing_parts(pair: Pair, utterances: Utterances) -> list[str]:
    return [f"{name}: {utterances.skipped[name]}" for name in pair.names if name in utterances.skipped]


def _problems_of_lengths(
    names: Sequence[str], candidates: Sequence[Candidate], model: SpeechLMForCausalLM
) -> list[str]:
    problems = []
    for name, candidate in zip(names[-2:], candidates, strict=True):
        length, limit = len(candidate.whole.ids), model.max_positions
        if limit is not None and length > limit:
            problems.append(f"{name}: too long: {length:,} tokens, and the model has {limit:,} positions")
        # The padding id is never scored.
        sequences = [sequence for sequence in (candidate.whole, candidate.ending) if sequence is not None]
        if not all((sequence.ids[sequence.start :] != model.config.pad_token_id).any() for sequence in sequences):
            problems.append(f"{name}: too short: there is no token to score")
    return problems


def _make_record(
    pair: Pair, task: Task, scores: np.ndarray | None, utterances: Utterances, problems: Sequence[str]
) -> dict[str, Any]:
    """The record of a pair, whose scores have shape `(2, 3)`: of each side, as [`score_pairs`] gives them."""
    record = {"correct": pair.correct, "incorrect": pair.incorrect, **pair.labels}
    prefixes = [""]
    if pair.prompt is not None:
        record["prompt"] = pair.prompt
        prefixes += [f"{name}_" for name in CONDITIONAL_SCORES]
    for index, prefix in enumerate(prefixes):
        values = (None, None) if scores is None else scores[:, index].tolist()
        record[f"{prefix}correct_score"], record[f"{prefix}incorrect_score"] = values
    for side, name in zip(("correct", "incorrect"), pair.sides, strict=True):
        # Where a story was joined, its units are those of prompt and ending.
        parts = (name,) if task.is_speech else (pair.prompt, name)
        record[f"{side}_units"] = sum(len(utterances.units.get(part, ())) for part in parts)
    return record | {"skipped": "; ".join(problems) or None}


def _contents(pair: Pair, utterances: Utterances) -> list[Any]:
    prompt = [] if pair.prompt is None else [pair.prompt]
    return [*pair.sides, pair.labels, *prompt, *map(utterances.hashes.get, pair.names)]
