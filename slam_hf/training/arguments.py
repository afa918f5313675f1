"""Arguments of the training scripts that transformers and TRL do not have."""

import json
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING
from trl import ModelConfig

from ..configuration_speech_lm import SpeechLMConfig
from ..corpora.interleaving import METHODS
from ..evaluation.tasks import pair_tasks
from ..option_parser import with_help
from ..public_names import PREFIX, is_hub_id
from ..quickstart import resolve_path
from ..recipe_parser import check_keys
from ..unit_vocabulary import MAX_UNITS, NUM_SPECIAL_TOKENS


MODALITIES = ("speech", "text", "interleaved")

MAX_TRAINED_UNITS = MAX_UNITS - NUM_SPECIAL_TOKENS
"""The ids of units and of two special tokens are stored as uint16."""


@dataclass
class ModelArguments(ModelConfig):
    """TRL's arguments of the model. LoRA adapts every linear layer by default, and arguments that have no effect are
    refused."""

    def __post_init__(self):
        if self.load_in_4bit or self.load_in_8bit:
            raise ValueError(
                "`load_in_4bit` and `load_in_8bit` are not supported: to save memory, train with `use_peft` and "
                "`dtype: bfloat16`."
            )
        if self.lora_task_type != "CAUSAL_LM":
            raise ValueError(f"`lora_task_type` must be CAUSAL_LM, got {self.lora_task_type}.")
        for name, default in ((argument.name, argument.default) for argument in fields(self)):
            if getattr(self, name) == default:
                continue
            if name.startswith(("bnb_", "use_bnb_")):
                raise ValueError(f"`{name}` has no effect: models are not quantised. Remove it.")
            if not self.use_peft and name.startswith(("lora_", "use_rslora", "use_dora")):
                raise ValueError(f"`{name}` has no effect without `use_peft`: add that, or remove it.")
        if self.model_name_or_path is None and self.model_revision != "main":
            raise ValueError("`model_revision` has no effect without `model_name_or_path`: remove it.")
        if self.use_peft and self.lora_target_modules is None and self.lora_target_parameters is None:
            self.lora_target_modules = "all-linear"
        super().__post_init__()
        if isinstance(self.lora_target_modules, str) and self.lora_target_modules.isidentifier():
            # PEFT takes a string as a regular expression of whole paths, and a list as the names of modules.
            self.lora_target_modules = [self.lora_target_modules]


@dataclass
class CorpusConfig:
    r"""
    A corpus, as `datasets.load_dataset` finds it.

    Args:
        path (`str`):
            A Hub id, a folder, `"parquet"` with `data_files`, or `"quickstart:corpus"`, which comes with the package.
        name (`str`, *optional*):
            Configuration of the dataset.
        data_files (`str`, `list[str]` or `dict[str, str]`, *optional*):
            Files of the dataset.
        revision (`str`, *optional*):
            Revision on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Split to train on.
        weight (`float`, *optional*):
            Share of the training tokens that comes from this corpus, relative to the weights of the other corpora.
            Either every corpus has a weight or none has: then they are mixed in proportion to their sizes.
        modality (`str`, *optional*, defaults to `"speech"`):
            What to train on: `"speech"`, the units of a tokenised corpus; `"text"`, a column of text; or
            `"interleaved"`, the units and the words of a tokenised corpus with `aligned_text`, in turn. Its rows
            without word times are left out.
        text_column (`str`, *optional*, defaults to `"text"`):
            Name of the column of text.
    """

    path: str
    name: str | None = None
    data_files: str | list[str] | dict[str, str] | None = None
    revision: str | None = None
    split: str = "train"
    weight: float | None = None
    modality: str = "speech"
    text_column: str = "text"

    def __post_init__(self):
        self.path = resolve_path(self.path)
        if self.modality not in MODALITIES:
            raise ValueError(
                f"The `modality` of a corpus can be {', '.join(MODALITIES)}, got {self.modality!r} for '{self.path}'."
            )
        if not (is_hub_id(self.path) or "://" in self.path or Path(self.path).exists()):
            raise FileNotFoundError(f"The corpus '{self.path}' does not exist.")
        if self.weight is not None:
            try:
                weight = float(self.weight)  # YAML takes 1e-3 for a string
            except (TypeError, ValueError):
                weight = math.nan
            if not 0 < weight < math.inf:
                raise ValueError(f"The weights of `datasets` must be positive, got {self.weight} for '{self.path}'.")
            self.weight = weight


@with_help
@dataclass
class PretrainArguments:
    r"""
    What to train, on which units and texts, and for how long.

    Args:
        base_config (`dict`, *optional*):
            Train from scratch: the architecture of the LM, as in its `config.json` (`model_type`, `hidden_size`, ...).
            Otherwise `model_name_or_path` says what to start from: a text LM (TWIST initialisation), or a SpeechLM. On
            the command line it is JSON.
        text_tokenizer (`str`, *optional*):
            Make a model of speech and text: the text tokenizer that is extended with units, a Hub id, a folder or
            `"quickstart:tokenizer"`. If a corpus has text, it defaults to the tokenizer of the text LM.
        num_units (`int`, *optional*, defaults to 500):
            Number of units of the codec that the corpora were made with.
        rope_theta (`float`, *optional*):
            Base of the rotary embedding that a text LM gets. Defaults to its own, which -1 restores.
        codec (`str`, *optional*):
            The codec of the units: a Hub id, a folder or `"quickstart:codec"`. The saved processor names it, and it
            speaks the continuation at the end. Defaults to the codec of the SpeechLM that training starts from.
        datasets (`list` of [`CorpusConfig`], `str` or `dict`, *optional*):
            Corpora: their arguments or just their paths. Defaults to the quickstart corpus of this package.
        interleaving (`str`, *optional*, defaults to `"poisson"`):
            How to choose the words of interleaved corpora that are speech, anew for each pass over a corpus:
            `"poisson"`, `"span"` or `"random"`, see [`~corpora.interleaving.draw_speech_words`].
        interleaving_span (`float`, *optional*, defaults to 10):
            Number of words per span of speech; for `"poisson"`, their mean.
        interleaving_share (`float`, *optional*, defaults to 0.3):
            Share of the words that are speech, or for `"span"` the probability that a span begins.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read the corpora during training instead of preparing them beforehand.
        validation_split (`str`, *optional*, defaults to `"validation"`):
            Split of the corpora that is held out. A corpus that has no such split holds out 1 % of its documents, at
            most 100.
        validation_documents (`int`, *optional*):
            Hold out this number of documents at the beginning of each corpus instead of a split.
        context_length (`int`, *optional*, defaults to 1024):
            Tokens per packed sequence.
        packing (`bool`, *optional*, defaults to `True`):
            Whether documents share a sequence, without attending to each other. Otherwise each has a sequence of its
            own, padded, and the weights of corpora are shares of documents.
        cut_documents (`bool`, *optional*, defaults to `True`):
            Whether packing cuts documents to fill every sequence to 98 %. Otherwise documents stay whole, except for
            those that are longer than a sequence, and padding fills the rest (TRL's `bfd_split`). Held-out documents
            are always packed in this way.
        dataset_num_proc (`int`, *optional*):
            Number of processes that prepare the corpora.
        batch_size (`int`, *optional*):
            Number of sequences in an optimizer step, over all processes, which sets `gradient_accumulation_steps`.
            Defaults to what the arguments of the trainer give, or in a resumed run, gave when it began: so it can
            continue on another number of processes.
        max_train_tokens (`int`, *optional*):
            Number of tokens to train on, without padding; -1: no limit.
        max_train_hours (`float`, *optional*):
            Number of hours to train; -1: no limit. `max_steps` and `num_train_epochs` are the other ways to say how
            long.
        sample_steps (`int`, *optional*):
            Let the model continue a held-out document every so many steps, with `codec`. -1 removes what a recipe
            gives.
        price_per_hour (`float`, *optional*):
            Price of an hour on all machines together: the plan then says what the run costs.
        benchmarks (`dict[str, str]`, *optional*):
            Benchmarks of pairs to score the model on at the end: the folder of each by its task (`sblimp`, ...), on
            the command line in JSON.
        prompt (`str`, *optional*):
            A recording that the model continues at the end, with `codec`. Defaults to a held-out document. An empty
            string removes what a recipe names, as it does for `codec`.
        asr_model (`str`, *optional*):
            A speech recogniser, a Hub id or a folder, that transcribes the continuation.
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Whether to delete what an earlier run has left in the output folder.
    """

    base_config: dict | str | None = None
    text_tokenizer: str | None = None
    num_units: int = 500
    rope_theta: float | None = None
    codec: str | None = None
    datasets: list[CorpusConfig] = field(default_factory=lambda: [CorpusConfig(f"{PREFIX}corpus")])
    interleaving: str = "poisson"
    interleaving_span: float = 10
    interleaving_share: float = 0.3
    streaming: bool = False
    validation_split: str = "validation"
    validation_documents: int | None = None
    context_length: int = 1024
    packing: bool = True
    cut_documents: bool = True
    dataset_num_proc: int | None = None
    batch_size: int | None = None
    max_train_tokens: int | None = None
    max_train_hours: float | None = None
    sample_steps: int | None = None
    price_per_hour: float | None = None
    benchmarks: dict | str | None = None
    prompt: str | None = None
    asr_model: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self):
        self.base_config = _read_mapping("base_config", self.base_config)
        self.benchmarks = _read_mapping("benchmarks", self.benchmarks)
        if self.base_config is not None:
            _check_base_config(self.base_config)
        self.benchmarks = {task: resolve_path(folder) for task, folder in (self.benchmarks or {}).items()}
        self.codec = self.codec or None
        self.prompt = resolve_path(self.prompt) if self.prompt else None
        self.text_tokenizer = resolve_path(self.text_tokenizer) if self.text_tokenizer else None
        for name in ("rope_theta", "max_train_tokens", "max_train_hours", "sample_steps"):
            value = getattr(self, name)
            setattr(self, name, None if value is None or value <= 0 else value)
        if self.rope_theta is not None and self.base_config is not None:
            raise ValueError("`rope_theta` is for a text LM: give it in `base_config` instead.")
        if self.price_per_hour is not None and not 0 < self.price_per_hour < math.inf:
            raise ValueError(f"`price_per_hour` must be positive, got {self.price_per_hour}.")
        for name in ("num_units", "context_length", "batch_size", "validation_documents", "sample_steps"):
            value, least = getattr(self, name), 2 if name == "context_length" else 1
            if value is not None and not (type(value) is int and value >= least):  # a boolean is an `int`, too
                raise ValueError(f"`{name}` must be a whole number and at least {least}, got {value}.")
        if self.interleaving not in METHODS:
            raise ValueError(f"`interleaving` can be {', '.join(METHODS)}, got '{self.interleaving}'.")
        is_whole = self.interleaving != "span" or self.interleaving_span == int(self.interleaving_span)
        if not (1 <= self.interleaving_span < math.inf and is_whole):
            raise ValueError(
                "`interleaving_span` must be at least 1, and a whole number for `interleaving: span`, got "
                f"{self.interleaving_span}."
            )
        if not 0 < self.interleaving_share <= 1:
            raise ValueError(f"`interleaving_share` must be above 0 and at most 1, got {self.interleaving_share}.")
        if self.num_units > MAX_TRAINED_UNITS:
            raise ValueError(f"`num_units` must be at most {MAX_TRAINED_UNITS:,}, got {self.num_units:,}.")
        # These are used after training, which may take a day: errors in them are raised before it.
        for task, folder in self.benchmarks.items():
            if task not in pair_tasks():
                raise ValueError(f"`benchmarks` can be {', '.join(pair_tasks())}, and '{task}' is not one of them.")
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"The folder '{folder}' of the benchmark {task} does not exist.")
        if self.prompt is not None and not (os.path.isfile(self.prompt) or self.prompt.startswith("http")):
            raise FileNotFoundError(f"The recording '{self.prompt}' to continue does not exist.")
        if self.prompt is not None and self.codec is None:
            raise ValueError("To continue the recording `prompt`, name the `codec` of the corpora.")
        if self.asr_model is not None and self.prompt is None:
            raise ValueError("`asr_model` transcribes the continuation of a recording: name the `prompt`.")
        corpora = self.datasets if isinstance(self.datasets, list) else [self.datasets]
        self.datasets = [_as_corpus(corpus) for corpus in corpora]
        weights = [corpus.weight for corpus in self.datasets]
        if not weights:
            raise ValueError("Name at least one corpus in `datasets`.")
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError("Either every corpus of `datasets` has a `weight`, or none has.")
        if self.base_config is not None and self.has_text and self.text_tokenizer is None:
            raise ValueError("A corpus of `datasets` has text: name the `text_tokenizer` of the new model.")

    @property
    def has_text(self) -> bool:
        """`bool`: Whether the model is one of speech and text."""
        return self.text_tokenizer is not None or any(corpus.modality != "speech" for corpus in self.datasets)

    @property
    def has_full_sequences(self) -> bool:
        """`bool`: Whether every sequence is full, but for 2 %."""
        return self.packing and self.cut_documents

    @property
    def is_endless(self) -> bool:
        """`bool`: Whether the training data has no end: it is streamed, or interleaved anew in each pass."""
        return self.streaming or any(corpus.modality == "interleaved" for corpus in self.datasets)


def _as_corpus(corpus: Any) -> CorpusConfig:
    if isinstance(corpus, dict):
        check_keys(corpus, {argument.name for argument in fields(CorpusConfig)}, "A corpus of `datasets`")
        if "path" not in corpus:
            raise ValueError(f"A corpus of `datasets` has no `path`: {corpus}.")
        return CorpusConfig(**corpus)
    if not isinstance(corpus, str | CorpusConfig):
        raise ValueError(f"A corpus of `datasets` must be a path or a mapping with a `path`, got {corpus!r}.")
    return CorpusConfig(corpus) if isinstance(corpus, str) else corpus


def _read_mapping(name: str, value: Any) -> dict | None:
    try:
        mapping = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        mapping = value
    if not isinstance(mapping, dict | None):
        example = {"base_config": '{"model_type": "qwen2", "hidden_size": 256}', "benchmarks": '{"sblimp": "folder"}'}
        raise ValueError(f"`{name}` must be a mapping, on the command line in JSON ({example[name]}), got {value!r}.")
    return mapping


def _check_base_config(base_config: dict[str, Any]) -> None:
    model_type = base_config.get("model_type", "qwen2")
    check_keys([model_type], CONFIG_MAPPING, "`base_config`", "model type")
    try:
        config = SpeechLMConfig(base_config=dict(base_config)).base_config
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(f"`base_config` is not a configuration of {model_type}: {error}") from error
    # transformers moves or renames what it knows, and stores any other key, which no model reads.
    known = {"model_type", "_name_or_path"} | {argument.name for argument in fields(config)} | {*config.attribute_map}
    check_keys(base_config.keys() & (vars(config).keys() - known), known, "`base_config`")
