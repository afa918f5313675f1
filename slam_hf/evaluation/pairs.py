"""Benchmarks of pairs: audio or units of a benchmark's folder → log-likelihoods → the metric of the benchmark."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import evaluate
from transformers import AutoProcessor, AutoTokenizer, pipeline

from ..encoding.codec_identity import CodecDescription, describe_codec
from ..metrics.salmon.salmon import SALMon
from ..metrics.sblimp.sblimp import SBLIMP
from ..metrics.storycloze.storycloze import StoryCloze
from ..metrics.swuggy.swuggy import SWUGGY
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from .arguments import EvaluationArguments
from .benchmarks import Pair, read_salmon, read_sblimp, read_storycloze, read_swuggy
from .fingerprints import describe_model, hash_rows, name_data
from .report import Evaluation, keep_scored
from .scoring import score_pairs
from .units import Utterances, encode_files, list_audio, read_tokenized


@dataclass(frozen=True)
class PairTask:
    """How a benchmark is laid out, what scores it, and which input of the metric is which label of a pair."""

    read_pairs: Callable[[str, Collection[str]], list[Pair]]
    metric: type[evaluate.Metric]
    inputs: dict[str, str] = field(default_factory=dict)


PAIR_TASKS = {
    "sblimp": PairTask(read_sblimp, SBLIMP, {"types": "type", "subtypes": "subtype", "ids": "id"}),
    "swuggy": PairTask(read_swuggy, SWUGGY, {"ids": "id", "frequencies": "frequency"}),
    "sstorycloze": PairTask(read_storycloze, StoryCloze),
    "tstorycloze": PairTask(read_storycloze, StoryCloze),
    "salmon": PairTask(read_salmon, SALMon, {"parts": "part"}),
}


def evaluate_pairs(args: EvaluationArguments, model: SpeechLMForCausalLM) -> Evaluation:
    r"""
    Score a model on a benchmark of pairs. Called in each process of `accelerate launch`, it divides the work among
    them; interrupted, it continues where it was.

    Args:
        args ([`EvaluationArguments`]):
            What to score it on.
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode.

    Returns:
        [`Evaluation`] with one record per pair. Pairs with an utterance that cannot be encoded are skipped: their
        records have no scores and say why.

    Raises:
        FileNotFoundError, ValueError: the benchmark is incomplete, its units are not the model's, or all of its pairs
            had to be skipped.
    """
    pairs, utterances, codec = _read_benchmark(args, model)
    tokenizer = AutoTokenizer.from_pretrained(args.model, add_eos_token=True)
    _check_vocabulary(utterances, tokenizer.num_units)
    described = describe_model(model)
    scored = [pair for pair in pairs if pair.correct in utterances.units and pair.incorrect in utterances.units]
    scores = score_pairs(
        [(utterances.units[pair.correct], utterances.units[pair.incorrect]) for pair in scored],
        model,
        tokenizer,
        journal_dir=Path(args.output_dir) / ".journal" / f"{described['weights']}-{args.reduction}",
        reduction=args.reduction,
        batch_tokens=args.batch_tokens,
    )
    scores_of = {(pair.correct, pair.incorrect): row for pair, row in zip(scored, scores.tolist(), strict=True)}
    records = [_make_record(pair, scores_of, utterances) for pair in pairs]
    return Evaluation(
        task=args.task,
        results=score_records(args.task, records),
        records=records,
        model=described,
        data={
            "name": name_data(args.data),
            "hash": hash_rows(
                [*astuple(pair), utterances.hashes[pair.correct], utterances.hashes[pair.incorrect]] for pair in pairs
            ),
        },
        codec=codec,
        settings={"reduction": args.reduction},
    )


def _read_benchmark(
    args: EvaluationArguments, model: SpeechLMForCausalLM
) -> tuple[list[Pair], Utterances, CodecDescription | None]:
    read_pairs = PAIR_TASKS[args.task].read_pairs
    utterances = read_tokenized(args.data)
    if utterances is not None:
        return read_pairs(args.data, utterances.hashes.keys()), utterances, None
    files = list_audio(args.data)
    pairs = read_pairs(args.data, files.keys())
    codec = load_pipeline(args, model).processor.audio_tokenizer
    wanted = {name: files[name] for pair in pairs for name in (pair.correct, pair.incorrect)}
    utterances = encode_files(wanted, codec, args.cache_dir, args.batch_seconds, args.num_workers)
    return pairs, utterances, describe_codec(codec)


def score_records(task: str, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    r"""
    The metric of a task over its records, such as those of a Parquet file that an evaluation wrote.

    Args:
        task (`str`):
            A key of `PAIR_TASKS`.
        records (iterable of `Mapping`):
            Records of pairs. Those that were skipped do not count.

    Returns:
        `dict`: what the metric gives.

    Raises:
        ValueError: all pairs were skipped.
    """
    scored = keep_scored(records)
    inputs = {"correct_scores": "correct_score", "incorrect_scores": "incorrect_score", **PAIR_TASKS[task].inputs}
    columns = {name: [record[column] for record in scored] for name, column in inputs.items()}
    return PAIR_TASKS[task].metric(keep_in_memory=True).compute(**columns)


def load_pipeline(args: EvaluationArguments, model: SpeechLMForCausalLM) -> AudioToAudioPipeline:
    """The model's pipeline, with the codec that the arguments name or else the model's own."""
    processor = AutoProcessor.from_pretrained(args.model)
    return pipeline("audio-to-audio", model=model, processor=processor, codec=args.codec, device=model.device)


def _make_record(
    pair: Pair, scores: Mapping[tuple[str, str], Sequence[float]], utterances: Utterances
) -> dict[str, Any]:
    names = (pair.correct, pair.incorrect)
    problems = [f"{name}: {utterances.skipped[name]}" for name in names if name in utterances.skipped]
    record = {"correct": pair.correct, "incorrect": pair.incorrect, **pair.labels}
    record["correct_score"], record["incorrect_score"] = scores.get(names, (None, None))
    record["correct_units"], record["incorrect_units"] = (len(utterances.units.get(name, ())) for name in names)
    return record | {"skipped": "; ".join(problems) or None}


def _check_vocabulary(utterances: Utterances, num_units: int) -> None:
    for name, units in utterances.units.items():
        if units.max() >= num_units:
            raise ValueError(
                f"{name!r} has the unit {units.max()}, but the model only knows 0 to {num_units - 1}: its units were "
                "made with another codec than the model was trained on."
            )
