r"""Reproduce findings of the Slamming paper (arXiv 2502.15814) and of SIMS (arXiv 2504.02398) in miniature, with the
data of this package.

```
python hub_scripts/reproduce_findings.py --output_dir outputs/findings --text_lm path/to/small-text-lm
```

Compared runs train for the same time, with two exceptions: `whole_documents` compares equal numbers of steps, which
take equal time, and `interleaving` compares equal compute. Each run is repeated with other seeds. Without a text LM,
this takes an hour on two CPU cores. Finished runs are not repeated: the same command continues where it stopped. The
results are `findings.md`, `findings.json` and `findings.png` in the output folder.

Do preferences among a model's own continuations help it, as in AlignSLM (arXiv 2411.01834)? A speech recogniser and a
text LM judge them:

```
python hub_scripts/reproduce_findings.py --findings own_preferences --output_dir outputs/own_preferences \
    --asr_model openai/whisper-base --judge_model meta-llama/Llama-3.2-1B
```

How large should the next model be, and how many tokens should it see? A scaling law of small models estimates both,
with intervals. It takes half an hour of a core, and its results are `scale.md`, `scale.json` and `scale.png`. A GPU
trains larger models, several at a time:

```
python hub_scripts/reproduce_findings.py --findings scale --output_dir outputs/scale
python hub_scripts/reproduce_findings.py --findings scale --output_dir outputs/scale-gpu --jobs 16 \
    --widths 32 64 128 256 512 1024 --max_run_flops 2.1e15
```
"""

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from findings.compare import OWN_MEASURES, Finding, compare
from findings.report import save_report
from findings.runs import Alignment, Judged, Judges, Pretraining, complete_run
from findings.scale import MAX_RUN_FLOPS, TOKENS, WIDTHS, analyse, grid, measure, save_scaling

from slam_hf.command_line import run as run_script
from slam_hf.option_parser import OptionParser


FLOPS = 3e13
"""Training compute of the runs that are compared at equal compute."""

STEPS = 600
"""Training steps of the runs that are compared at equal steps, a quarter of those of the recipe."""

NATURAL = [{"path": "quickstart:corpus", "name": "sentences"}]

RUNS = {
    "base": Pretraining(),
    "natural": Pretraining(datasets=NATURAL),
    "padded": Pretraining(packing=False),
    "whole": Pretraining(steps=STEPS, cut_documents=False),
    "cut": Pretraining(steps=STEPS),
    "aligned": Alignment("base"),
    "twist": Pretraining(twist=True),
    "scratch": Pretraining(twist=False),
    "speech": Pretraining(flops=FLOPS),
    "interleaved": Pretraining("quickstart-interleaved.yaml", flops=FLOPS),
    "quickstart": Judged(aligns=False),
    "own": Judged(aligns=True),
}
"""Runs by name, in an order in which each one finds those that it needs. `base` is the quickstart recipe: natural
sentences and stories, packed, from random weights. Packing leaves the documents of `whole` as they are, and cuts some
of `cut`. `twist` and `scratch` have the architecture of a text LM: one starts from its weights, the other from random
ones. `speech` trains on units alone, and `interleaved` on speech, on text and on both in turn. `quickstart` is the
model of this package, and `own` learns from what it says itself."""

FINDINGS = {
    "stories": Finding("synthetic stories beside natural speech", "base", "natural"),
    "packing": Finding("packing, at equal time", "base", "padded"),
    "whole_documents": Finding("documents that stay whole, at equal time", "whole", "cut"),
    "alignment": Finding("preference alignment", "aligned", "base"),
    "twist": Finding("TWIST initialisation", "twist", "scratch"),
    "interleaving": Finding("interleaving with text, at equal compute", "interleaved", "speech"),
    "own_preferences": Finding("preferences among its own continuations", "own", "quickstart", OWN_MEASURES),
}


ALONE = {
    "own_preferences": "is measured in another way than the others",
    "scale": "compares sizes, and not two ways of training",
}
"""Findings that are reproduced alone, and why."""


def with_compute(run: Pretraining | Alignment | Judged, flops: float) -> Pretraining | Alignment | Judged:
    """The run with another compute, if it is limited by compute."""
    return replace(run, flops=flops) if isinstance(run, Pretraining) and run.flops is not None else run


def main() -> None:
    parser = OptionParser(doc=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/findings"), help="Folder of runs and report.")
    parser.add_argument(
        "--findings",
        nargs="+",
        choices=[*FINDINGS, "scale"],
        help=f"Findings to reproduce. Default: all that are possible, but for {' and '.join(ALONE)}.",
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="Training time of each run. Default: 3.")
    parser.add_argument("--seeds", type=int, help="Number of seeds. Default: 2, and 1 for `scale`.")
    parser.add_argument("--text_lm", help="Small text LM for TWIST initialisation: a Hub id or a folder.")
    parser.add_argument(
        "--text_lm_minutes",
        type=float,
        default=10,
        help="Training time of each run with its architecture. Default: 10.",
    )
    parser.add_argument(
        "--flops",
        type=float,
        default=FLOPS,
        help=f"Training compute of each run of `interleaving`. Default: {FLOPS:g}.",
    )
    parser.add_argument("--asr_model", help="Speech recogniser of `own_preferences`: a Hub id or a folder.")
    parser.add_argument("--judge_model", help="Text LM that judges in `own_preferences`: a Hub id or a folder.")
    parser.add_argument(
        "--judge_start_token", help="Token that the training texts of the judge begin with. Default: its bos_token."
    )
    parser.add_argument(
        "--num_prompts",
        type=int,
        default=64,
        help="Number of prompts in `own_preferences` for pairs, and as many others for scores.",
    )
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="Hidden sizes of the models of `scale`.")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=TOKENS, help="Training tokens of the runs of `scale`."
    )
    parser.add_argument(
        "--max_run_flops",
        type=float,
        default=MAX_RUN_FLOPS,
        help=f"Runs of `scale` with more training compute are left out. Default: {MAX_RUN_FLOPS:g}.",
    )
    parser.add_argument(
        "--next_flops",
        type=float,
        help="Training compute of the next model in `scale`. Default: 10 times that of its largest run.",
    )
    parser.add_argument("--jobs", type=int, default=1, help="Runs of `scale` at the same time. Default: 1.")
    args = parser.parse_args()
    if args.seeds is None:
        args.seeds = 1 if args.findings == ["scale"] else 2
    for name in (
        *("minutes", "seeds", "text_lm_minutes", "flops", "num_prompts"),
        *("widths", "tokens", "max_run_flops", "next_flops", "jobs"),
    ):
        value = getattr(args, name)
        if value is not None and np.min(value) <= 0:
            parser.error(f"--{name} must be positive, got {np.min(value)}.")
    judges = None
    if args.asr_model and args.judge_model:
        judges = Judges(args.asr_model, args.judge_model, args.judge_start_token, args.num_prompts)
    available = {Pretraining: args.text_lm, Judged: judges}
    possible = [
        name
        for name, finding in FINDINGS.items()
        if not RUNS[finding.better].needs_text_lm or available[type(RUNS[finding.better])] is not None
    ]
    for name in args.findings or ():
        if name in ALONE and len(args.findings) > 1:
            parser.error(f"The finding '{name}' {ALONE[name]}: reproduce it alone.")
        if name in FINDINGS and name not in possible:
            needed = "--asr_model and --judge_model" if name == "own_preferences" else "--text_lm"
            parser.error(f"The finding '{name}' needs {needed}.")
    chosen = args.findings or [name for name in possible if name not in ALONE]
    for package in ("matplotlib", "scipy"):
        if find_spec(package) is None:
            raise ImportError(f'The report needs {package}: pip install "slam-hf[plots]".')
    if chosen == ["scale"]:
        reproduce_scale(args)
        return

    findings = [FINDINGS[name] for name in chosen]
    needed_runs = {run for finding in findings for run in (finding.better, finding.worse)}
    runs = {name: with_compute(run, args.flops) for name, run in RUNS.items() if name in needed_runs}
    seeds = {name: range(1 if run == Judged(aligns=False) else args.seeds) for name, run in runs.items()}
    for seed in range(args.seeds):
        for name, run in runs.items():
            if seed in seeds[name]:
                minutes = args.text_lm_minutes if run.needs_text_lm else args.minutes
                complete_run(run, args.output_dir / f"{name}-{seed}", seed, minutes, args.text_lm, judges)
    folders = {name: [args.output_dir / f"{name}-{seed}" for seed in seeds[name]] for name in runs}
    comparisons = [compare(finding, folders) for finding in findings]
    save_report(args.output_dir, folders, comparisons)
    print((args.output_dir / "findings.md").read_text("utf-8"))


def reproduce_scale(args: argparse.Namespace) -> None:
    sized = grid(args.widths, args.tokens, args.max_run_flops)
    scaling = analyse(measure(args.output_dir, sized, args.seeds, args.jobs))
    save_scaling(args.output_dir, scaling, args.next_flops or 10 * max(run.flops for run in scaling.runs))
    print((args.output_dir / "scale.md").read_text("utf-8"))


if __name__ == "__main__":
    run_script(main, hint="Start the same command again to continue.")
