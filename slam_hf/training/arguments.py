"""Arguments of the training scripts that transformers and TRL do not have."""

import json
import os
from dataclasses import dataclass, field

from ..evaluation.tasks import pair_tasks
from ..quickstart import PREFIX, resolve_path


@dataclass
class CorpusConfig:
    r"""
    A tokenised corpus, as `datasets.load_dataset` finds it.

    Args:
        path (`str`):
            A Hub id, a folder, `"parquet"` with `data_files`, or `"quickstart:corpus"`, which comes with this package.
        name (`str`, *optional*):
            Configuration of the dataset.
        data_files (`str`, `list[str]` or `dict[str, str]`, *optional*):
            Files of the dataset.
        revision (`str`, *optional*):
            Revision on the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Split to train on.
        weight (`float`, *optional*):
            Share of the training tokens that comes from this corpus, relative to the other corpora's weights. Either
            every corpus has one or none has, and each counts as its size.
    """

    path: str
    name: str | None = None
    data_files: str | list[str] | dict[str, str] | None = None
    revision: str | None = None
    split: str = "train"
    weight: float | None = None

    def __post_init__(self):
        self.path = resolve_path(self.path)


@dataclass
class PretrainArguments:
    r"""
    What to train on which units, and for how long.

    Args:
        base_config (`dict`, *optional*):
            Train from scratch: the architecture of the LM, as in its `config.json` (`model_type`, `hidden_size`, ...).
            Otherwise `model_name_or_path` says what to start from: a text LM (TWIST initialisation), or a SpeechLM.
        num_units (`int`, *optional*, defaults to 500):
            Number of units of the codec that the corpora were made with.
        rope_theta (`float`, *optional*):
            Base of the rotary embedding. Defaults to that of the text LM.
        codec (`str`, *optional*):
            The unit codec, a Hub id, a folder or `"quickstart:codec"`: named in the processor that is saved, and used
            for the audio of the continuation at the end.
        datasets (`list[CorpusConfig]`, *optional*):
            Tokenised corpora. Defaults to the quickstart corpus of this package.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read the corpora while training, instead of preparing them before.
        validation_split (`str`, *optional*, defaults to `"validation"`):
            Split of the corpora that is held out.
        validation_documents (`int`, *optional*):
            Hold out the first so many documents of each corpus instead, for corpora without such a split.
        context_length (`int`, *optional*, defaults to 1024):
            Tokens per row of a batch.
        packing (`bool`, *optional*, defaults to `True`):
            Whether documents share the rows of a batch, without attending to each other. Otherwise each has one of its
            own, padded.
        dataset_num_proc (`int`, *optional*):
            Processes that prepare the corpora.
        max_train_tokens (`int`, *optional*):
            Train until so many tokens, padding not among them, have been seen.
        max_train_hours (`float`, *optional*):
            Train for so many hours. `max_steps` and `num_train_epochs` are the other two ways to say how long; -1
            takes back a budget that a recipe gives.
        benchmarks (`dict[str, str]`, *optional*):
            Benchmarks of pairs to score the model on at the end: the folder of each by its task (`sblimp`, ...).
        prompt (`str`, *optional*):
            A recording that the model continues at the end, with `codec`. Defaults to a held-out document. An empty
            string takes back what a recipe names, for `codec` too.
        asr_model (`str`, *optional*):
            A speech recogniser, a Hub id or a folder, that transcribes the continuation.
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Whether to delete what an earlier run has left in the output folder.
    """

    base_config: dict | str | None = field(
        default=None, metadata={"help": "Train from scratch: the LM's configuration, in JSON."}
    )
    num_units: int = field(default=500, metadata={"help": "Number of units of the codec."})
    rope_theta: float | None = field(default=None, metadata={"help": "Base of the rotary embedding."})
    codec: str | None = field(default=None, metadata={"help": "The unit codec: a Hub id or a folder."})
    datasets: list[CorpusConfig] = field(
        default_factory=lambda: [CorpusConfig(f"{PREFIX}corpus")],
        metadata={"help": "Tokenised corpora: Hub ids or folders."},
    )
    streaming: bool = field(default=False, metadata={"help": "Read the corpora while training."})
    validation_split: str = field(default="validation", metadata={"help": "Split that is held out."})
    validation_documents: int | None = field(
        default=None, metadata={"help": "Hold out the first so many documents of each corpus instead of a split."}
    )
    context_length: int = field(default=1024, metadata={"help": "Tokens per row of a batch."})
    packing: bool = field(default=True, metadata={"help": "Whether documents share rows."})
    dataset_num_proc: int | None = field(default=None, metadata={"help": "Processes that prepare the corpora."})
    max_train_tokens: int | None = field(
        default=None, metadata={"help": "Train until so many tokens are seen; -1: no such budget."}
    )
    max_train_hours: float | None = field(
        default=None, metadata={"help": "Train for so many hours; -1: no such budget."}
    )
    benchmarks: dict | str | None = field(
        default=None, metadata={"help": "Folders of benchmarks by task, to score at the end, in JSON."}
    )
    prompt: str | None = field(default=None, metadata={"help": "A recording to continue at the end."})
    asr_model: str | None = field(default=None, metadata={"help": "Speech recogniser for the continuation."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete what an earlier run has left in the output folder."}
    )

    def __post_init__(self):
        if isinstance(self.base_config, str):
            self.base_config = json.loads(self.base_config)
        if isinstance(self.benchmarks, str):
            self.benchmarks = json.loads(self.benchmarks)
        self.benchmarks = {task: resolve_path(folder) for task, folder in (self.benchmarks or {}).items()}
        self.codec = self.codec or None
        self.prompt = resolve_path(self.prompt) if self.prompt else None
        self.max_train_tokens, self.max_train_hours = (
            None if budget is None or budget <= 0 else budget
            for budget in (self.max_train_tokens, self.max_train_hours)
        )
        # Used after training, which may take a day: what is wrong with them is said before.
        for task, folder in self.benchmarks.items():
            if task not in pair_tasks():
                raise ValueError(f"`benchmarks` can be {', '.join(pair_tasks())}, and '{task}' is none of them.")
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"The folder '{folder}' of the benchmark {task} is not there.")
        if self.prompt is not None and not (os.path.isfile(self.prompt) or self.prompt.startswith("http")):
            raise FileNotFoundError(f"The recording '{self.prompt}' to continue is not there.")
        if self.prompt is not None and self.codec is None:
            raise ValueError("To continue the recording `prompt`, name the `codec` of the corpora.")
        self.datasets = [CorpusConfig(**corpus) if isinstance(corpus, dict) else corpus for corpus in self.datasets]
        weights = [corpus.weight for corpus in self.datasets]
        if None in weights and any(weight is not None for weight in weights):
            raise ValueError("Either every corpus of `datasets` has a `weight`, or none has.")
        if any(weight is not None and weight <= 0 for weight in weights):
            raise ValueError(f"The weights of `datasets` must be positive, got {weights}.")
        if self.context_length < 2:
            raise ValueError(f"`context_length` must be at least 2, got {self.context_length}.")
