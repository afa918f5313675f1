"""The comparisons as a table, as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from .compare import Comparison, mean_with_interval, outcomes
from .runs import TASKS


def save_report(output_dir: Path, folders: Mapping[str, Sequence[Path]], comparisons: Sequence[Comparison]) -> None:
    r"""
    Write `findings.md`, `findings.json` and `findings.png`.

    Args:
        output_dir (`Path`):
            Where to write.
        folders (`Mapping[str, Sequence[Path]]`):
            The folders of the seeds by run.
        comparisons (`Sequence[Comparison]`):
            The findings.
    """
    scores = {
        run: {task: mean_with_interval(outcomes(seeds, task).mean(axis=0)) for task in TASKS}
        for run, seeds in folders.items()
    }
    (output_dir / "findings.md").write_text(_markdown(scores, comparisons))
    findings = [
        asdict(comparison) | {"verdicts": {change.task: change.verdict for change in comparison.differences}}
        for comparison in comparisons
    ]
    (output_dir / "findings.json").write_text(json.dumps({"scores": scores, "findings": findings}, indent=2) + "\n")
    _picture(comparisons).savefig(output_dir / "findings.png", dpi=150)


def _markdown(
    scores: Mapping[str, Mapping[str, tuple[float, tuple[float, float]]]], comparisons: Sequence[Comparison]
) -> str:
    lines = [f"| run | {' | '.join(TASKS)} |", "|---|" + "---|" * len(TASKS)]
    for run, by_task in scores.items():
        cells = (f"{value:.1%} [{low:.1%}, {high:.1%}]" for value, (low, high) in by_task.values())
        lines.append(f"| {run} | {' | '.join(cells)} |")
    lines += ["", f"| finding | {' | '.join(TASKS)} |", "|---|" + "---|" * len(TASKS)]
    for comparison in comparisons:
        cells = (
            "{:+.1f} [{:+.1f}, {:+.1f}]: {}".format(
                *(100 * number for number in (change.value, *change.interval)), change.verdict
            )
            for change in comparison.differences
        )
        lines.append(f"| {comparison.finding.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _picture(comparisons: Sequence[Comparison]) -> Figure:
    figure = Figure(figsize=(8, 1 + 0.9 * len(comparisons)), layout="constrained")
    axes = figure.subplots()
    for row, comparison in enumerate(comparisons):
        for number, change in enumerate(comparison.differences):
            height = row + 0.2 * (number - 1)
            axes.plot([100 * end for end in change.interval], [height] * 2, color=f"C{number}")
            label = change.task if row == 0 else None
            axes.plot(100 * change.value, height, "o", color=f"C{number}", label=label)
            axes.plot([100 * value for value in change.by_seed], [height] * len(change.by_seed), "|", color="black")
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="change of accuracy (points), with 95 % interval; a stroke is a seed")
    axes.set_yticks(range(len(comparisons)), [comparison.finding.name for comparison in comparisons])
    axes.invert_yaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.15), ncols=3, frameon=False)
    return figure
