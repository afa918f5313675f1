r"""Make preference pairs from a model's own continuations.

```
python hub_scripts/make_preferences.py \
    --model slprl/slam --source LibriSpeech/train-clean-100 --layout librispeech --output_dir pairs/slam
```

The model continues the beginning of each recording several times. The continuations are transcribed and judged, and
the best and the worst of each prompt become a pair for align_dpo.py. Start it again with the same command to continue
after an interruption, or with other thresholds to choose again among the same continuations.
"""

from dataclasses import dataclass, fields
from typing import Literal

from transformers.hf_argparser import HfArg

from slam_hf.command_line import parse_arguments, run
from slam_hf.corpora.preferences.job import PreferenceJob
from slam_hf.corpora.preferences.selection import Thresholds
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.judging.arguments import JudgeArguments
from slam_hf.quickstart import resolve_path
from slam_hf.remote_files import absolute_if_folder, absolute_path


@dataclass
class PromptArguments(SourceArguments):
    _argument_group_name = "where the prompts are from"

    layout: Literal["folder", "librispeech", "librilight", "manifest", "webdataset", "dataset", "units"] = HfArg(
        default="folder",
        help="What the source is. `webdataset`: tar archives of audio. `dataset` has an audio column. `units` "
        "is a tokenised corpus, as tokenize_corpus.py makes it.",
    )
    num_prompts: int | None = HfArg(default=None, help="Number of prompts, from the first. Default: all.")
    prompt_seconds: float = HfArg(
        default=3.0, help="Length of a prompt, in seconds: to the nearest end of a word where their times are known."
    )

    def __post_init__(self):
        for name in ("num_prompts", "prompt_seconds"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")


@dataclass
class SamplingArguments:
    _argument_group_name = "how, and where to"

    model: str = HfArg(help="The speech language model: a Hub id or a folder.")
    output_dir: str = HfArg(help="Folder of the dataset, or its URL, such as s3://.")
    asr_model: str = HfArg(default="openai/whisper-large-v3-turbo", help="Speech recogniser: a Hub id or a folder.")
    codec: str | None = HfArg(default=None, help="The unit codec. Default: the model's own.")
    split: str = HfArg(default="train", help="Name of the split to write.")
    num_samples: int = HfArg(default=8, help="Number of continuations per prompt.")
    temperature: float | None = HfArg(default=None, help="Sampling temperature. Default: the model's own.")
    max_new_tokens: int | None = HfArg(
        default=None, help="Maximum length of a continuation, in tokens. Default: the model's own."
    )
    seed: int = HfArg(default=0, help="Seed of the sampling.")
    batch_size: int = HfArg(default=32, help="Number of continuations to sample together.")
    dtype: Literal["float32", "bfloat16"] = HfArg(
        default="float32", help="Type of the model's weights: bfloat16 is faster on a GPU."
    )
    save_audio: bool = HfArg(default=False, help="Keep prompts and continuations as FLAC, in audio/.")

    def __post_init__(self):
        if self.num_samples < 2:
            raise ValueError(f"A pair is of two continuations: `num_samples` is {self.num_samples}.")
        for name in ("max_new_tokens", "temperature", "batch_size"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")


@dataclass
class ThresholdArguments:
    _argument_group_name = "which continuations are chosen and rejected"

    min_score: float | None = HfArg(default=None, help="Minimum score of a chosen continuation. Default: no limit.")
    max_score: float | None = HfArg(default=None, help="Maximum score of a rejected continuation. Default: no limit.")
    min_margin: float = HfArg(default=0.0, help="The scores of a pair differ by more than this.")
    max_auto_bleu: float = HfArg(
        default=0.2, help="A text with a higher auto-BLEU-2 repeats itself: it is rejected, whatever its score."
    )


def main() -> None:
    prompt_args, args, judge_args, thresholds, executor_args = parse_arguments(
        __doc__, (PromptArguments, SamplingArguments, JudgeArguments, ThresholdArguments, ExecutorArguments)
    )
    source = {item.name: getattr(prompt_args, item.name) for item in fields(SourceArguments)}
    source["source"] = absolute_if_folder(resolve_path(prompt_args.source))
    for name in ("judge_model", "judge_prompt"):
        if getattr(judge_args, name) is not None:
            setattr(judge_args, name, absolute_if_folder(getattr(judge_args, name)))
    options = {name: getattr(args, name) for name in ("temperature", "max_new_tokens")}
    job = PreferenceJob(
        SourceArguments(**source),
        model=absolute_if_folder(args.model),
        asr_model=absolute_if_folder(args.asr_model),
        judge=judge_args,
        output_dir=absolute_path(args.output_dir),
        codec=args.codec and absolute_if_folder(resolve_path(args.codec)),
        split=args.split,
        thresholds=Thresholds(**vars(thresholds)),
        num_prompts=prompt_args.num_prompts,
        prompt_seconds=prompt_args.prompt_seconds,
        num_samples=args.num_samples,
        seed=args.seed,
        batch_size=args.batch_size,
        dtype=args.dtype,
        options={name: value for name, value in options.items() if value is not None},
        save_audio=args.save_audio,
    )
    summary = job.run(executor_args)
    if summary is None:
        print("Submitted to Slurm. When it has ended, the same command says what came out.")
        return
    print(f"{summary.num_rows:,} pairs in '{args.output_dir}'.")
    for reason, count in summary.skipped.items():
        print(f"{count:,} prompts without a pair: {reason}.")
    for problem, count in summary.made["continuations"].items():
        print(f"{count:,} continuations: {problem}.")
    levels = ", ".join(f"{level} are below {score:.3g}" for level, score in summary.made["scores"].items())
    print(f"Of the scores, {levels}.")
    print(f"Align with: align_dpo.py --dataset_name {args.output_dir} --model_name_or_path {args.model}")


if __name__ == "__main__":
    run(main, hint="Start the same command again to continue.")
