"""Arguments of `hub_scripts/evaluate_model.py`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.constants import HF_HOME
from transformers.hf_argparser import HfArg
from transformers.utils import is_matplotlib_available

from ..option_parser import with_help
from ..quickstart import resolve_path
from .tasks import TASKS


@with_help
@dataclass
class EvaluationArguments:
    r"""
    Which model to score, and on which benchmark.

    Args:
        model (`str`):
            The speech language model, a Hub id, a folder or `"quickstart:model"`.
        task (`str`):
            The benchmark, a key of [`~slam_hf.evaluation.tasks.TASKS`]. In a task of pairs such as `"sblimp"`, the
            model says which of two utterances is more likely. In a continuation task such as `"genppl"`, it continues
            prompts.
        data (`str`):
            Folder of the benchmark in the layout of its release, with audio or tokenised: `syntactic/dev` (sBLIMP) or
            `lexical/dev` (sWUGGY) of ZeroSpeech 2021, with `gold.csv`; TWIST's StoryCloze; SIMS's cross-modal
            StoryCloze; SALMon. Small ones come with this package: `quickstart:benchmarks/{task}`. Continuation tasks
            take their prompts from TWIST's StoryCloze, or from a tokenised corpus, a folder or a Parquet file.
        output_dir (`str`, *optional*):
            Where `{task}.json` (results) and `{task}.parquet` (one record per item) go. Defaults to `evaluation` in
            the folder of the model, where its card finds them, and for a model on the Hub to
            `outputs/evaluation/{model}`.
        codec (`str`, *optional*):
            The unit codec, a Hub id, a folder or `"quickstart:codec"`. Defaults to the one that the model's processor
            names. Tokenised data needs none.
        cache_dir (`str`, *optional*):
            Where the units of audio files are kept for the next evaluation. Defaults to the Hugging Face cache.
        reduction (`"mean"` or `"sum"`, *optional*, defaults to `"mean"`):
            Whether an utterance's score is its mean log-likelihood per token, as published, or the sum over tokens.
        dtype (`"float32"` or `"bfloat16"`, *optional*, defaults to `"float32"`):
            Type of the model's weights. bfloat16 is faster on a GPU; log-likelihoods are summed in float32, and differ
            by up to 0.3 %. The codec and the judges of continuations stay as they are.
        ban_text (`bool`, *optional*, defaults to `False`):
            Whether a model of speech and text gives text no probability, in tasks of speech alone. Published scores
            do not do so.
        batch_tokens (`int`, *optional*, defaults to 8192):
            Maximum number of tokens per batch, padding included.
        num_workers (`int`, *optional*, defaults to 2):
            Number of processes that decode audio ahead of each codec.
        training_tokens (`float`, *optional*):
            Number of tokens that the model was trained on, for the results table. Defaults to the number in the record
            of its training.
    """

    _argument_group_name = "model and benchmark"

    model: str
    task: str
    data: str
    output_dir: str | None = None
    codec: str | None = None
    cache_dir: str = str(Path(HF_HOME) / "slam_hf" / "units")
    reduction: Literal["mean", "sum"] = "mean"
    dtype: Literal["float32", "bfloat16"] = "float32"
    ban_text: bool = False
    batch_tokens: int = 8192
    num_workers: int = 2
    training_tokens: float | None = None

    def __post_init__(self):
        self.data = resolve_path(self.data)
        self.codec = self.codec and resolve_path(self.codec)
        if self.output_dir is None:
            is_folder = Path(self.model).is_dir()
            name = self.model.replace(":", "-")  # of a model in this package
            self.output_dir = str(Path(self.model, "evaluation") if is_folder else Path("outputs/evaluation", name))

    @property
    def settings(self) -> dict[str, Any]:
        """`dict`: What the scores of pairs depend on, besides the model and the data."""
        return {"reduction": self.reduction, "dtype": self.dtype} | ({"ban_text": True} if self.ban_text else {})


@dataclass
class CommandArguments(EvaluationArguments):
    r"""
    Arguments of `hub_scripts/evaluate_model.py`: those of [`EvaluationArguments`], but for several models and tasks.

    Args:
        model, task (`list[str]`):
            Each model is loaded once and scored on all tasks.
        data (`list[str]`):
            A folder for each task, or one for all.
        text_tokenizer (`str`, *optional*):
            The tokenizer of the text, a Hub id or a folder, for models of speech and text without tokenizer files.
            Defaults to the one that the configuration of the model names.
        plot (`str`, *optional*):
            PNG file to draw the accuracies to, against the number of training tokens. Checkpoints of a run are joined.
    """

    _argument_group_name = "models and benchmarks"

    model: list[str] = HfArg(help="The speech language models: Hub ids or folders.")
    task: list[str] = field(metadata={"help": "The benchmark: %(choices)s. Or several.", "choices": TASKS})
    data: list[str] = HfArg(
        help="Folder of the benchmark as released, with audio or tokenised. One for each task, or for all."
    )

    text_tokenizer: str | None = HfArg(
        default=None, help="The text tokenizer of models of speech and text. Default: the one that the model names."
    )
    plot: str | None = HfArg(default=None, help="PNG file to draw the accuracies to, over the training tokens.")

    def __post_init__(self):
        if len(self.data) == 1:
            self.data = self.data * len(self.task)
        if self.plot is not None and not is_matplotlib_available():
            raise ValueError('`plot` needs matplotlib: pip install "slam-hf[plots]".')
        if len(self.data) != len(self.task):
            raise ValueError(f"`data` must be one folder, or one for each of {len(self.task)} tasks.")
        for name in ("model", "task"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"`{name}` names one twice: {', '.join(getattr(self, name))}.")
        if self.output_dir is not None and len(self.model) > 1:
            raise ValueError("`output_dir` is for one model: without it, the results of each are beside it.")

    def evaluations(self, model: str) -> list[EvaluationArguments]:
        """`list[EvaluationArguments]`: The evaluations of a model, one for each task."""
        common = {item.name: getattr(self, item.name) for item in fields(EvaluationArguments)} | {"model": model}
        tasks = zip(self.task, self.data, strict=True)
        return [EvaluationArguments(**common | {"task": task, "data": data}) for task, data in tasks]


@with_help
@dataclass
class ContinuationArguments:
    r"""
    How a model continues prompts, and how its continuations are judged, in continuation tasks.

    Args:
        num_prompts (`int`, *optional*, defaults to 1000):
            How many stories or documents to take prompts from, in their order.
        prompt_seconds (`float`, *optional*, defaults to 3.0):
            Length of a prompt, in seconds. If a corpus has `aligned_text`, or if there is a file `{n}_correct.json`
            with it beside `{n}_correct.wav`, a list of `{"word", "start_time", "end_time"}` in seconds, the prompt
            ends at the nearest end of a word. Otherwise, the prompts of `llm_judge` end at a pause that is at most
            half a second away, and those of other tasks at the exact time.
        asr_model (`str`, *optional*, defaults to `"openai/whisper-large-v3-turbo"`):
            Speech recogniser: a Hub id or a folder.
        text_lm (`str`, *optional*, defaults to `"meta-llama/Llama-3.2-1B"`):
            Text language model for the perplexity: a Hub id or a folder.
        start_token (`str`, *optional*):
            The token that the text LM's training texts begin with. Defaults to its tokenizer's `bos_token`.
        speaker_model (`str`, *optional*, defaults to `"microsoft/wavlm-base-plus-sv"`):
            Model of speaker verification, any `AutoModelForAudioXVector`: a Hub id or a folder.
        batch_size (`int`, *optional*, defaults to 16):
            Number of prompts to continue together. The sampled continuations depend on it.
        seed (`int`, *optional*, defaults to 0):
            Seed of the sampling.
    """

    _argument_group_name = "continuation tasks (genppl, auto_bleu, llm_judge, speech_quality, speaker_similarity)"

    num_prompts: int = 1000
    prompt_seconds: float = 3.0
    asr_model: str = "openai/whisper-large-v3-turbo"
    text_lm: str = "meta-llama/Llama-3.2-1B"
    start_token: str | None = None
    speaker_model: str = "microsoft/wavlm-base-plus-sv"
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self):
        for name in ("num_prompts", "prompt_seconds", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")

    @property
    def settings(self) -> dict[str, Any]:
        """`dict`: What the continuations depend on, besides models and data."""
        return {name: getattr(self, name) for name in ("prompt_seconds", "batch_size", "seed")}
