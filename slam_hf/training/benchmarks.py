"""How a model that was just trained does on benchmarks of pairs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ..evaluation.arguments import EvaluationArguments
from ..evaluation.pairs import evaluate_pairs
from ..evaluation.report import save_evaluation
from ..processes import get_process_state


def score_benchmarks(checkpoint: Path, benchmarks: Mapping[str, str], training_tokens: int) -> Iterator[str]:
    r"""
    Score a checkpoint on benchmarks, one after the other. Called in each process of `accelerate launch`, it divides
    the work among them.

    Args:
        checkpoint (`Path`):
            Folder of a model and its processor. Results and records go to `evaluation/` in it, as
            `hub_scripts/evaluate_model.py` writes them.
        benchmarks (`Mapping[str, str]`):
            The folder of each benchmark by its task, one of pairs.
        training_tokens (`int`):
            Tokens that the model was trained on.

    Yields:
        `str`: a line with the accuracy over pairs and its 95 % interval.
    """
    if not benchmarks:
        return
    state = get_process_state()
    # From its files: the trainer's model may be compiled, or spread over processes.
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(state.device).eval()
    for task, data in benchmarks.items():
        args = EvaluationArguments(str(checkpoint), task, data, output_dir=str(checkpoint / "evaluation"))
        evaluation = evaluate_pairs(args, model)
        if state.is_main_process:
            save_evaluation(evaluation, args.output_dir, model.num_parameters(), training_tokens)
        accuracy, interval = evaluation.results["accuracy"], evaluation.results["accuracy_interval"]
        yield f"{task}: {accuracy:.1%} of {len(evaluation.records)} pairs, {interval[0]:.1%} to {interval[1]:.1%}"
