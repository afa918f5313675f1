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

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from findings.compare import OWN_MEASURES, Finding, compare
from findings.report import save_report
from findings.runs import Alignment, Judged, Pretraining, RunArguments, check_positive, complete_run
from findings.scale import ScaleArguments, analyse, grid, measure, save_scaling

from slam_hf.command_line import parse_arguments
from slam_hf.command_line import run as run_script


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
    "speech": Pretraining(equal_compute=True),
    "interleaved": Pretraining("quickstart-interleaved.yaml", equal_compute=True),
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
    "twist": Finding("TWIST initialisation", "twist", "scratch", needs=("text_lm",)),
    "interleaving": Finding("interleaving with text, at equal compute", "interleaved", "speech"),
    "own_preferences": Finding(
        "preferences among its own continuations", "own", "quickstart", OWN_MEASURES, ("asr_model", "judge_model")
    ),
}

ALONE = {
    "own_preferences": "is measured in another way than the others",
    "scale": "compares sizes, and not two ways of training",
}
"""Findings that are reproduced alone, and why."""


@dataclass
class FindingsArguments:
    output_dir: Path = field(
        default=Path("outputs/findings"), metadata={"help": "Folder of runs and report. Default: outputs/findings."}
    )
    findings: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Findings to reproduce. Default: all that are possible, but for {' and '.join(ALONE)}.",
            "choices": [*FINDINGS, "scale"],
        },
    )
    seeds: int | None = field(default=None, metadata={"help": "Number of seeds. Default: 2, and 1 for `scale`."})

    def __post_init__(self):
        check_positive(self, "seeds")
        for name in self.findings or ():
            if name in ALONE and len(self.findings) > 1:
                raise ValueError(f"The finding '{name}' {ALONE[name]}: reproduce it alone.")


def main() -> None:
    args, run_args, scale_args = parse_arguments(__doc__, (FindingsArguments, RunArguments, ScaleArguments))
    for package in ("matplotlib", "scipy"):
        if find_spec(package) is None:
            raise ImportError(f'The report needs {package}: pip install "slam-hf[plots]".')
    if args.findings == ["scale"]:
        report = fit_scale(args.output_dir, args.seeds or 1, scale_args)
    else:
        report = compare_runs(args.output_dir, args.seeds or 2, choose(args.findings, run_args), run_args)
    print(report.read_text("utf-8"))


def fit_scale(output_dir: Path, seeds: int, args: ScaleArguments) -> Path:
    sized = grid(args.widths, args.tokens, args.max_run_flops)
    scaling = analyse(measure(output_dir, sized, seeds, args.jobs))
    save_scaling(output_dir, scaling, args.next_flops or 10 * max(run.flops for run in scaling.runs))
    return output_dir / "scale.md"


def choose(names: list[str] | None, args: RunArguments) -> list[Finding]:
    """The findings of these names, or all that are possible, but for those that are reproduced alone."""
    possible = [name for name, finding in FINDINGS.items() if all(getattr(args, need) for need in finding.needs)]
    for name in names or ():
        if name not in possible:
            needed = " and ".join(f"--{need}" for need in FINDINGS[name].needs)
            raise ValueError(f"The finding '{name}' needs {needed}.")
    names = names or [name for name in possible if name not in ALONE]
    return [FINDINGS[name] for name in names]


def compare_runs(output_dir: Path, seeds: int, findings: list[Finding], args: RunArguments) -> Path:
    needed = {name for finding in findings for name in (finding.better, finding.worse)}
    runs = {name: run for name, run in RUNS.items() if name in needed}
    # The model of this package is there already, and has one seed.
    folders = {
        name: [output_dir / f"{name}-{seed}" for seed in range(1 if name == "quickstart" else seeds)] for name in runs
    }
    for seed in range(seeds):
        for name, run in runs.items():
            if seed < len(folders[name]):
                complete_run(run, folders[name][seed], seed, args)
    save_report(output_dir, folders, [compare(finding, folders) for finding in findings])
    return output_dir / "findings.md"


if __name__ == "__main__":
    run_script(main, hint="Start the same command again to continue.")
