"""Print the results table of the Slam paper in Markdown, with models of yours as new rows.

```
python hub_scripts/results_table.py outputs/evaluation/my-model outputs/evaluation/another --plot results.png
```
"""

import argparse

from slam_hf.evaluation.results_table import read_summaries, save_plot, to_markdown
from slam_hf.evaluation.slamming_results import PUBLISHED


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the results table of the Slam paper, with models of yours.")
    parser.add_argument("summaries", nargs="*", help="Summaries of evaluations, or folders with them.")
    parser.add_argument("--plot", metavar="PNG", help="Draw the accuracies against the number of training tokens.")
    args = parser.parse_args()
    rows = [*PUBLISHED, *read_summaries(args.summaries)]
    print(to_markdown(rows))
    if args.plot is not None:
        save_plot(rows, args.plot)


if __name__ == "__main__":
    main()
