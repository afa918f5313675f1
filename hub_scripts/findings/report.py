"""Writes the comparisons as a table, as JSON and as a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .compare import Comparison, Measure, mean_with_interval


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_report(output_dir: Path, folders: Mapping[str, Sequence[Path]], comparisons: Sequence[Comparison]) -> None:
    r"""
    Write `findings.md`, `findings.json` and `findings.png`.

    Args:
        output_dir (`Path`):
            Where to write.
        folders (`Mapping[str, Sequence[Path]]`):
            One folder per seed for each run.
        comparisons (`Sequence[Comparison]`):
            The findings, all of the same measures.
    """
    measures = comparisons[0].finding.measures
    scores = {
        run: {name: mean_with_interval(measure.of_runs(seeds).mean(axis=0)) for name, measure in measures.items()}
        for run, seeds in folders.items()
    }
    (output_dir / "findings.md").write_text(_markdown(scores, comparisons, measures), "utf-8")
    findings = [
        {
            "finding": {name: getattr(comparison.finding, name) for name in ("name", "better", "worse")},
            "differences": list(map(asdict, comparison.differences)),
            "verdicts": {change.measure: change.verdict for change in comparison.differences},
        }
        for comparison in comparisons
    ]
    content = json.dumps({"scores": scores, "findings": findings}, indent=2) + "\n"
    (output_dir / "findings.json").write_text(content, "utf-8")
    _picture(comparisons).savefig(output_dir / "findings.png", dpi=150)


def _markdown(
    scores: Mapping[str, Mapping[str, tuple[float, tuple[float, float]]]],
    comparisons: Sequence[Comparison],
    measures: Mapping[str, Measure],
) -> str:
    lines = [f"| run | {' | '.join(measures)} |", "|---|" + "---|" * len(measures)]
    for run, by_measure in scores.items():
        cells = (_with_interval(*score, measures[name].format) for name, score in by_measure.items())
        lines.append(f"| {run} | {' | '.join(cells)} |")
    lines += ["", f"| finding | {' | '.join(measures)} |", "|---|" + "---|" * len(measures)]
    for comparison in comparisons:
        cells = (
            f"{_with_interval(change.value, change.interval, '+' + measures[change.measure].format)}: {change.verdict}"
            for change in comparison.differences
        )
        lines.append(f"| {comparison.finding.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with_interval(value: float, interval: tuple[float, float], format: str) -> str:
    low, high = interval
    return f"{value:{format}} [{low:{format}}, {high:{format}}]"


def _picture(comparisons: Sequence[Comparison]) -> "Figure":
    """A panel for each unit: accuracies in points, log-likelihoods in nats."""
    from matplotlib.figure import Figure

    measures = comparisons[0].finding.measures
    units = list(dict.fromkeys(measure.unit for measure in measures.values()))
    figure = Figure(figsize=(11, 1.4 + 0.9 * len(comparisons)), layout="constrained")
    panels = figure.subplots(1, len(units), sharey=True)
    for axes, unit in zip(panels, units, strict=True):
        names = [name for name, measure in measures.items() if measure.unit == unit]
        for number, name in enumerate(names):
            heights = [row + 0.2 * (number - (len(names) - 1) / 2) for row in range(len(comparisons))]
            changes = [change for of_one in comparisons for change in of_one.differences if change.measure == name]
            for height, change in zip(heights, changes, strict=True):
                axes.plot(change.interval, [height] * 2, color=f"C{number}")
                axes.plot(change.by_seed, [height] * len(change.by_seed), "|", color="black")
            axes.plot([change.value for change in changes], heights, "o", color=f"C{number}", label=name)
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set_xlabel(f"change in {unit}")
        axes.locator_params(axis="x", nbins=6)  # more labels would run into each other
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
    panels[0].set_yticks(range(len(comparisons)), [comparison.finding.name for comparison in comparisons])
    panels[0].invert_yaxis()
    figure.supxlabel("lines are 95 % intervals, strokes are seeds", fontsize="small")
    return figure
