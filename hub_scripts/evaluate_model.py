"""Score a speech language model on a benchmark.

```
accelerate launch hub_scripts/evaluate_model.py \
    --model slprl/slam_scaled --task sblimp --data zerospeech2021/syntactic/dev
```

Start it again with the same command to continue after an interruption.
"""

import torch
from transformers import AutoModelForCausalLM, HfArgumentParser

from slam_hf import SpeechLMForCausalLM
from slam_hf.evaluation.arguments import ContinuationArguments, EvaluationArguments
from slam_hf.evaluation.continuations import evaluate_continuations
from slam_hf.evaluation.pairs import evaluate_pairs
from slam_hf.evaluation.report import describe_results, save_evaluation
from slam_hf.evaluation.tasks import TASKS
from slam_hf.processes import get_process_state


def main() -> None:
    parser = HfArgumentParser((EvaluationArguments, ContinuationArguments))
    args, continuation_args = parser.parse_args_into_dataclasses()
    state = get_process_state()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(state.device).eval()
    if not isinstance(model, SpeechLMForCausalLM):
        raise SystemExit(f"{args.model} is a {type(model).__name__}: expected a speech language model.")
    if TASKS[args.task].kind == "pairs":
        evaluation = evaluate_pairs(args, model)
    else:
        evaluation = evaluate_continuations(args, continuation_args, model)
    if state.is_main_process:
        summary = save_evaluation(evaluation, args.output_dir, model.num_parameters(), args.training_tokens)
        skipped = [record["skipped"] for record in evaluation.records if record["skipped"] is not None]
        for reason in skipped[:10]:
            print(f"skipped: {reason}")
        print(f"{len(evaluation.records)} items, {len(skipped)} of them skipped.")
        print(describe_results(evaluation))
        print(f"Summary: {summary}")


if __name__ == "__main__":
    main()
