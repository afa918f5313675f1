"""Measure this package against the plain way of doing the same.

```
python hub_scripts/speed.py encode
python hub_scripts/speed.py score
python hub_scripts/speed.py train
```
"""

import argparse

from speed_comparisons import encode, score, train


BENCHMARKS = {"encode": encode, "score": score, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="benchmark")
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.__doc__.splitlines()[0])
        benchmark.add_arguments(command)
        command.set_defaults(run=benchmark.run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
