r"""Score speech language models on benchmarks.

```
accelerate launch hub_scripts/evaluate_model.py \
    --model slprl/slam_scaled --task sblimp --data zerospeech2021/syntactic/dev
```

Several models and tasks are scored one after the other, and each model is loaded once. With the checkpoints of a run
(`--model outputs/slam/checkpoint-*`), `--plot curve.png` draws the scores as they grow. After an interruption, the
same command continues where it stopped.
"""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.command_line import parse_arguments, run
from slam_hf.evaluation.arguments import CommandArguments, ContinuationArguments, EvaluationArguments
from slam_hf.evaluation.continuations import check_continuations, evaluate_continuations
from slam_hf.evaluation.pairs import check_benchmark, evaluate_pairs, load_pipeline, own_processor
from slam_hf.evaluation.report import check_earlier, describe_results, save_evaluation
from slam_hf.evaluation.results_table import read_summaries, save_plot
from slam_hf.evaluation.tasks import TASKS
from slam_hf.fingerprints import describe_model
from slam_hf.folder_lock import lock_folder
from slam_hf.judging.arguments import JudgeArguments
from slam_hf.loading_utils import naming_damaged_files
from slam_hf.processes import get_process_state
from slam_hf.public_names import is_local
from slam_hf.run_record import read_training_tokens
from slam_hf.sharded_checkpoints import is_sharded, load_sharded_model


def main(args: CommandArguments, continuation_args: ContinuationArguments, judge_args: JudgeArguments) -> None:
    for name in args.model:
        if not Path(name).exists() and is_local(name):
            raise FileNotFoundError(f"'{name}' is neither a folder nor the id of a model on the Hub.")
    for name in args.model:
        model = load_model(name).to(get_process_state().device).eval()
        evaluations = args.evaluations(name)
        # Errors in the arguments of all tasks come before the work of the first.
        needs_codec = [check(each, continuation_args, judge_args, model.config) for each in evaluations]
        processor, described = None, describe_model(model, name)
        for each in evaluations:
            is_pairs = TASKS[each.task].kind == "pairs"
            settings = each.settings if is_pairs else continuation_args.settings | {"dtype": each.dtype}
            check_earlier(each.output_dir, each.task, described, each.data, settings)
        if args.text_tokenizer is not None:
            with naming_damaged_files(name):
                processor = AutoProcessor.from_pretrained(name, text_tokenizer=args.text_tokenizer)
        if any(needs_codec):
            processor = own_processor(evaluations[0], model, processor)
            speak = load_pipeline(evaluations[0], model, own_processor(evaluations[0], model, processor))
            processor.audio_tokenizer = speak.processor.audio_tokenizer
            evaluations = [replace(each, codec=None) for each in evaluations]
        for evaluation_args in evaluations:
            evaluate(evaluation_args, continuation_args, judge_args, model, processor, described)
    if args.plot is not None and get_process_state().is_main_process:
        folders = [evaluation.output_dir for name in args.model for evaluation in args.evaluations(name)]
        save_plot(read_summaries(dict.fromkeys(folders)), args.plot)
        print(f"Plot: {args.plot}")


def check(
    args: EvaluationArguments,
    continuation_args: ContinuationArguments,
    judge_args: JudgeArguments,
    config: SpeechLMConfig,
) -> bool:
    """Check the arguments of a task. Returns whether it needs a codec."""
    if TASKS[args.task].kind == "pairs":
        return check_benchmark(args.task, args.data, config.num_units, config.has_text, args.ban_text)
    check_continuations(args, continuation_args, judge_args)
    return True


def evaluate(
    args: EvaluationArguments,
    continuation_args: ContinuationArguments,
    judge_args: JudgeArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor | None,
    described: dict[str, str | None],
) -> None:
    state = get_process_state()
    with lock_folder(args.output_dir) if state.is_main_process else nullcontext():
        if TASKS[args.task].kind == "pairs":
            evaluation = evaluate_pairs(args, model, processor, described)
        else:
            evaluation = evaluate_continuations(args, continuation_args, model, processor, described, judge_args)
        if state.is_main_process:
            tokens = args.training_tokens or read_training_tokens(args.model)
            summary = save_evaluation(evaluation, args.output_dir, model.num_parameters(), tokens)
            print(describe_results(evaluation))
            print(f"Summary: {summary}")


def load_model(name: str) -> SpeechLMForCausalLM:
    hint = ""
    if Path(name, "adapter_config.json").is_file():
        hint = " It is an adapter, whose `base_model_name_or_path` must be a speech language model where it is now."
    try:
        with naming_damaged_files(name):
            if is_sharded(Path(name)):
                return load_sharded_model(Path(name))
            model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        reason = reason if name in reason else f"'{name}' cannot be loaded: {reason}"
        raise ValueError(f"{reason}{hint}") from error
    if not isinstance(model, SpeechLMForCausalLM):
        raise ValueError(f"'{name}' is a {type(model).__name__}: expected a speech language model.{hint}")
    return model


if __name__ == "__main__":
    run(
        lambda: main(
            *parse_arguments(__doc__, (CommandArguments, ContinuationArguments, JudgeArguments), launches=True)
        ),
        hint="Start the same command again to continue.",
    )
