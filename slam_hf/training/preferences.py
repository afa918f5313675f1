"""The model to align, and preference pairs for TRL's `DPOTrainer`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, get_dataset_split_names, load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor
from trl import ScriptArguments

from ..audio_utils import load_audio
from ..corpora.preference_pairs import as_unit_string
from ..encoding.recordings import PAIR_CLIPS
from ..loading_utils import naming_damaged_files
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..processing_speech_lm import SpeechLMProcessor
from ..quickstart import resolve_path
from ..unit_vocabulary import MAX_UNITS
from .arguments import ModelArguments
from .data import hold_out, is_held_out_split


@dataclass
class AlignmentData(ScriptArguments):
    """What every script of TRL takes: `dataset_name`, `dataset_config`, `dataset_train_split`, and
    `dataset_test_split`, without which 1 % of the rows are held out, at most 100. The aligned model continues the
    recording `prompt`, which its card plays. `overwrite_output_dir` deletes what an earlier run has left in the output
    folder."""

    prompt: str | None = field(default=None, metadata={"help": "A recording to continue at the end, for the card."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Delete an earlier run in the output folder."})

    def __post_init__(self):
        if self.dataset_name is None:
            raise ValueError("Name the data: `dataset_name`, a Hub id, a folder or what comes with the package.")
        self.dataset_name = resolve_path(self.dataset_name)
        self.prompt = resolve_path(self.prompt) if self.prompt else None
        for name in ("dataset_streaming", "ignore_bias_buffers"):
            if getattr(self, name):
                raise ValueError(f"`{name}` has no effect: remove it.")


@dataclass
class AlignArguments(AlignmentData):
    r"""
    The preference pairs to align with, as [`AlignmentData`] names them (`dataset_name`: a Hub id, a folder or
    `"quickstart:preferences"`), and

    Args:
        max_auto_bleu (`float`, *optional*):
            Keep pairs whose prompt and chosen text together have an auto-BLEU₂ below this. A model finds speech that
            repeats itself likely, and preference training would strengthen that. Defaults to no filter.
    """

    max_auto_bleu: float | None = field(
        default=None, metadata={"help": "Keep pairs whose prompt and chosen text have an auto-BLEU-2 below this."}
    )


def load_processor(model_args: ModelArguments, prompt: str | None = None) -> SpeechLMProcessor:
    """The processor of the model to align. A `ValueError` says that it is not named, is another kind of model, or has
    no codec to continue the recording `prompt` with; an `OSError`, that the recording cannot be read."""
    if model_args.model_name_or_path is None:
        raise ValueError("Name the model to align: `model_name_or_path`, a Hub id or a folder.")
    with naming_damaged_files(model_args.model_name_or_path):
        processor = AutoProcessor.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    if not isinstance(processor, SpeechLMProcessor):
        raise ValueError(f"'{model_args.model_name_or_path}' is not a speech language model.")
    if prompt is not None:
        if processor.audio_tokenizer is None:
            raise ValueError(
                f"'{model_args.model_name_or_path}' names no codec to continue the recording `prompt` with."
            )
        processor.audio_tokenizer.check_vocoder(with_durations=True)
        load_audio(prompt, processor.audio_tokenizer.sampling_rate)
    return processor


def load_model(model_args: ModelArguments) -> SpeechLMForCausalLM:
    """The model to align."""
    return AutoModelForCausalLM.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
    )


def load_pairs(args: AlignArguments, num_units: int) -> tuple[Dataset, Dataset]:
    """The pairs to train on and those that are held out, each as [`prepare_pairs`] makes them."""
    return load_rows(args, lambda pairs: prepare_pairs(pairs, args.max_auto_bleu, num_units))


def load_rows(args: AlignmentData, prepare: Callable[[Dataset], Dataset]) -> tuple[Dataset, Dataset]:
    """The rows to train on and those that are held out, both prepared."""

    def load(split: str) -> Dataset:
        return prepare(load_dataset(args.dataset_name, args.dataset_config, split=split))

    rows, splits = load(args.dataset_train_split), get_dataset_split_names(args.dataset_name, args.dataset_config)
    if is_held_out_split(args.dataset_test_split, "test", args.dataset_train_split, splits, args.dataset_name):
        return rows, load(args.dataset_test_split)
    return hold_out(rows, None, args.dataset_name)


def prepare_pairs(pairs: Dataset, max_auto_bleu: float | None = None, num_units: int = MAX_UNITS) -> Dataset:
    """Make pairs of unit strings (`<Un3><Un49>...`) from strings or lists of units, without pairs whose prompt and
    chosen text together have an auto-BLEU₂ of `max_auto_bleu` or more; arXiv 2502.15814 takes 0.3."""
    wanted = [*PAIR_CLIPS, *([] if max_auto_bleu is None else ["prompt_text", "chosen_text"])]
    missing = [name for name in wanted if name not in pairs.column_names]
    if missing:
        raise ValueError(
            f"Preference pairs lack the columns {', '.join(missing)}: they need {', '.join(PAIR_CLIPS)}, and the "
            "texts for the filter `max_auto_bleu`."
        )
    if max_auto_bleu is not None:
        pairs = _without_repetition(pairs, max_auto_bleu)
    return pairs.select_columns(list(PAIR_CLIPS)).map(
        _as_strings, with_indices=True, fn_kwargs={"num_units": num_units}
    )


def _without_repetition(pairs: Dataset, max_auto_bleu: float) -> Dataset:
    try:
        from ..metrics.auto_bleu.auto_bleu import auto_bleu
    except ImportError as error:
        raise ImportError('The filter `max_auto_bleu` needs NLTK: pip install "slam-hf[metrics]".') from error

    def repeats_little(prompt: str | None, chosen: str | None) -> bool:
        if prompt is None or chosen is None:
            raise ValueError("A pair has no text, which the filter `max_auto_bleu` needs: remove the filter.")
        return auto_bleu(f"{prompt} {chosen}", n=2) < max_auto_bleu

    return pairs.filter(repeats_little, input_columns=["prompt_text", "chosen_text"])


def _as_strings(pair: dict[str, Any], row: int, num_units: int) -> dict[str, str]:
    try:
        return {name: as_unit_string(units, num_units) for name, units in pair.items()}
    except ValueError as error:
        raise ValueError(f"Preference pair {row}: {error}") from error
