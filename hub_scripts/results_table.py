"""Print the results table of the Slam paper in Markdown, with your models as new rows.

Models of speech and text are in a second table, with those of the SIMS paper.

```
python hub_scripts/results_table.py outputs/evaluation outputs/my-model --plot results.png
```
"""

import sys

from slam_hf.command_line import run
from slam_hf.evaluation.results_table import conditional_to_markdown, read_summaries, save_plot, to_markdown
from slam_hf.evaluation.sims_results import COLUMNS, CROSS_MODAL
from slam_hf.evaluation.slamming_results import PUBLISHED
from slam_hf.evaluation.tasks import TASKS
from slam_hf.option_parser import OptionParser


def main() -> None:
    parser = OptionParser(doc=__doc__)
    parser.add_argument("summaries", nargs="*", help="Summaries of evaluations, or folders with them at any depth.")
    parser.add_argument("--plot", metavar="PNG", help="Draw the accuracies against the number of training tokens.")
    args = parser.parse_args()
    measured = read_summaries(args.summaries)
    rows = [*PUBLISHED, *measured]
    print(to_markdown(rows))
    cross_modal = [row for row in measured if any(not TASKS[task].is_speech for task in row.scores)]
    if cross_modal:
        print(f"\nStories of speech and text:\n\n{to_markdown([*CROSS_MODAL, *cross_modal], COLUMNS)}")
    conditional = conditional_to_markdown(measured)
    if conditional is not None:
        print(f"\nThe published score, and two conditional ones, which papers do not report:\n\n{conditional}")
    if args.plot is not None:
        left_out = save_plot(rows, args.plot)
        if left_out:
            names = ", ".join(left_out)
            print(f"Not in the plot: {names}. Their number of training tokens is not known.", file=sys.stderr)
            print("Evaluate a model of yours with `--training_tokens` to see it there.", file=sys.stderr)


if __name__ == "__main__":
    run(main)
