"""Print the results table of the Slam paper in Markdown, with models of yours as new rows.

```
python hub_scripts/results_table.py outputs/evaluation outputs/my-model --plot results.png
```
"""

import argparse
import sys

from slam_hf.command_line import help_options, run
from slam_hf.evaluation.results_table import read_summaries, save_plot, to_markdown
from slam_hf.evaluation.slamming_results import PUBLISHED


def main() -> None:
    parser = argparse.ArgumentParser(**help_options(__doc__))
    parser.add_argument("summaries", nargs="*", help="Summaries of evaluations, or folders with them at any depth.")
    parser.add_argument("--plot", metavar="PNG", help="Draw the accuracies against the number of training tokens.")
    args = parser.parse_args()
    rows = [*PUBLISHED, *read_summaries(args.summaries)]
    print(to_markdown(rows))
    if args.plot is not None:
        left_out = save_plot(rows, args.plot)
        if left_out:
            names = ", ".join(left_out)
            print(f"Not in the plot: {names}. Their number of training tokens is not known.", file=sys.stderr)
            print("Evaluate a model of yours with `--training_tokens` to see it there.", file=sys.stderr)


if __name__ == "__main__":
    run(main)
