"""Continuation tasks: how natural, and how repetitive, is what a model says after a prompt?"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluate
import torch
from accelerate.utils import gather_object
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..encoding.codec_identity import describe_codec
from ..metrics.genppl.genppl import negative_log_likelihoods, summarize
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..processes import get_process_state
from .arguments import ContinuationArguments, EvaluationArguments
from .benchmarks import read_storycloze
from .continuation import continue_recordings, load_recogniser
from .fingerprints import describe_model, hash_model, hash_rows, name_data
from .pairs import load_pipeline
from .report import Evaluation, keep_scored
from .units import hash_files, list_audio


TRANSCRIPTS = ("transcript", "continuation_transcript")
LOSSES = ("negative_log_likelihood", "continuation_negative_log_likelihood")


def evaluate_continuations(
    args: EvaluationArguments, continuation_args: ContinuationArguments, model: SpeechLMForCausalLM
) -> Evaluation:
    r"""
    Let a model continue the beginnings of the correct stories of a StoryCloze folder, and judge the transcripts.
    Called in each process of `accelerate launch`, it divides the work among them; interrupted, it continues where it
    was.

    Args:
        args ([`EvaluationArguments`]):
            What to score it on.
        continuation_args ([`ContinuationArguments`]):
            How to continue, transcribe and judge.
        model ([`SpeechLMForCausalLM`]):
            The model, in evaluation mode.

    Returns:
        [`Evaluation`] with the results of prompts and continuations together, with those of the continuations alone
        under `continuation`, and with one record per prompt. Prompts that cannot be encoded are skipped: their records
        say why. The audio is in `audio/` below the output folder.

    Raises:
        ImportError: nltk is missing, which auto-BLEU needs.
        ValueError: the stories are incomplete, the codec is not the model's or has no vocoder, or all prompts had to
            be skipped.
    """
    files = list_audio(args.data)
    pairs = read_storycloze(args.data, files.keys())[: continuation_args.num_prompts]
    files = {pair.correct: files[pair.correct] for pair in pairs}
    alignments = {f"{name}.json": path for name in files if (path := files[name].with_suffix(".json")).is_file()}
    speak = load_pipeline(args, model)
    transcribe = load_recogniser(continuation_args.asr_model, model.device)
    described, data_hash = describe_model(model), hash_rows(hash_files(files | alignments).items())
    settings = {
        "prompt_seconds": continuation_args.prompt_seconds,
        "batch_size": continuation_args.batch_size,
        "seed": continuation_args.seed,
        "generation": _describe_generation(speak),
        "asr_model": describe_model(transcribe.model),
    }
    identity = [described["weights"], data_hash, hash_model(speak.processor.audio_tokenizer), settings]
    output_dir = Path(args.output_dir)
    records = continue_recordings(
        files,
        speak,
        transcribe,
        continuation_args,
        journal_dir=output_dir / ".journal" / hash_rows([identity]),
        audio_dir=output_dir / "audio",
    )
    if args.task == "genppl":
        tokenizer = AutoTokenizer.from_pretrained(continuation_args.text_lm)
        text_lm = AutoModelForCausalLM.from_pretrained(continuation_args.text_lm, dtype=torch.float32).eval()
        start_token = continuation_args.start_token or tokenizer.bos_token
        settings["text_lm"] = describe_model(text_lm) | {"start_token": start_token}
        add_losses(records, text_lm.to(model.device), tokenizer, start_token, continuation_args.batch_size)
    return Evaluation(
        task=args.task,
        results=score_records(args.task, records),
        records=records,
        model=described,
        data={"name": name_data(args.data), "hash": data_hash},
        codec=describe_codec(speak.processor.audio_tokenizer),
        settings=settings,
    )


def add_losses(
    records: Sequence[dict[str, Any]],
    text_lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    start_token: str | None,
    batch_size: int,
) -> None:
    """Add to records the mean negative log-likelihood per token of their transcripts, `None` for empty ones."""
    state = get_process_state()
    for transcript, loss in zip(TRANSCRIPTS, LOSSES, strict=True):
        rows = [row for row, record in enumerate(records) if record["skipped"] is None]
        share = rows[state.process_index :: state.num_processes]
        texts = [records[row][transcript] for row in share]
        losses = negative_log_likelihoods(texts, text_lm, tokenizer, start_token, batch_size)
        for row, value in gather_object(list(zip(share, losses, strict=True))):
            records[row][loss] = value


def score_records(task: str, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    r"""
    The metric of a task over its records, such as those of a Parquet file that an evaluation wrote.

    Args:
        task (`str`):
            `"genppl"` or `"auto_bleu"`.
        records (iterable of `Mapping`):
            Records of prompts. Those that were skipped do not count.

    Returns:
        `dict`: what the metric gives for prompts and continuations, and under `continuation` for continuations alone.

    Raises:
        ValueError: all prompts were skipped.
    """
    scored = keep_scored(records)
    if task == "genppl":
        whole, continuation = (summarize([record[column] for record in scored]) for column in LOSSES)
    else:
        metric = _load_auto_bleu()
        columns = ([record[column] for record in scored] for column in TRANSCRIPTS)
        whole, continuation = (metric(keep_in_memory=True).compute(predictions=texts) for texts in columns)
    return whole | {"continuation": continuation}


def _load_auto_bleu() -> type[evaluate.Metric]:
    try:
        from ..metrics.auto_bleu.auto_bleu import AutoBLEU
    except ImportError as error:
        raise ImportError('Auto-BLEU needs nltk: pip install "slam-hf[metrics]".') from error
    return AutoBLEU


def _describe_generation(speak: AudioToAudioPipeline) -> dict[str, Any]:
    """What the model's own generation configuration sets, and what the pipeline adds to it."""
    parameters = speak.model.generation_config.to_diff_dict() | speak._prepare_generate_kwargs({})
    return {name: value for name, value in parameters.items() if name[0] != "_" and name != "transformers_version"}
