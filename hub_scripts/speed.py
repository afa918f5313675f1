"""Measure this package against the usual way to do the same work.

```
python hub_scripts/speed.py all --output figures
python hub_scripts/speed.py encode train --size small
```

The ways of a comparison take turns in one run, on the same inputs and with random weights, which do not change the
speed. The table shows the median of the rounds and their range. `--output` also writes `speed.json` and `speed.png`.
On a CPU, leave the machine idle: other processes distort wall time. The ratio of processor time is more robust.
"""

from pathlib import Path

import torch
from speed_comparisons import encode, generate, score, stream, tokenize, train
from speed_comparisons.report import print_comparison, save_comparisons

from slam_hf.command_line import run
from slam_hf.option_parser import OptionParser


COMPARISONS = {
    "encode": encode,
    "tokenize": tokenize,
    "train": train,
    "score": score,
    "generate": generate,
    "stream": stream,
}


def main() -> None:
    parser = OptionParser(doc=__doc__)
    descriptions = " ".join(f"{name}: {module.__doc__.splitlines()[0]}" for name, module in COMPARISONS.items())
    parser.add_argument(
        "comparisons", nargs="+", choices=[*COMPARISONS, "all"], metavar="comparison", help=descriptions
    )
    parser.add_argument("--size", choices=("small", "full"), help="Default: full on a GPU, small on a CPU.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of turns of each way. Default: 3.")
    parser.add_argument("--num_threads", type=int, help="Threads of PyTorch. Default: PyTorch's choice.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the inputs and the weights. Default: 0.")
    parser.add_argument("--output", type=Path, help="Folder for speed.json and speed.png.")
    args = parser.parse_args()

    torch.set_num_threads(args.num_threads or torch.get_num_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = args.size or ("small" if device.type == "cpu" else "full")
    finished = {}
    for name in COMPARISONS if "all" in args.comparisons else args.comparisons:
        torch.manual_seed(args.seed)
        finished[name] = COMPARISONS[name].compare(size, args.rounds, args.seed, device)
        print_comparison(finished[name])
        if args.output is not None:  # after each, so that an interrupted run leaves what is done
            save_comparisons(finished, args.output)


if __name__ == "__main__":
    run(main)
