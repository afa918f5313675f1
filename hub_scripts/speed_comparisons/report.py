"""Comparisons as tables, as JSON and as a picture."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import torch

from .turns import Comparison, describe_device


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison as a Markdown table."""
    print(f"\n{comparison.title}\n")
    heading = ["way", comparison.unit, f"× {comparison.baseline}", "by processor time"]
    heading += (["share of limit"] if comparison.limits else []) + list(comparison.notes)
    print(f"| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for way in comparison.turns:
        speeds = comparison.speeds(way)
        cells = [way, _spread(speeds, ",.1f"), _spread(comparison.ratios(way), ".2f")]
        cells.append(_spread(comparison.ratios(way, "processor_seconds"), ".2f"))
        if comparison.limits:
            cells.append(f"{statistics.median(speeds) / comparison.limits[way]:.1%}")
        cells += [column.get(way, "") for column in comparison.notes.values()]
        print(f"| {' | '.join(cells)} |")


def save_comparisons(comparisons: Mapping[str, Comparison], folder: Path) -> None:
    """Write `speed.json` and `speed.png`, a picture of the ratios."""
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    content = {"device": describe_device(device), **versions}
    content["comparisons"] = {name: asdict(comparison) for name, comparison in comparisons.items()}
    (folder / "speed.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('The picture needs matplotlib: pip install "slam-hf[plots]".')
        return
    num_bars = sum(len(comparison.turns) for comparison in comparisons.values())
    figure = Figure(figsize=(8, 0.8 + 0.7 * len(comparisons) + 0.35 * num_bars), layout="constrained")
    heights = [1 + len(comparison.turns) for comparison in comparisons.values()]
    panels = figure.subplots(len(comparisons), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, comparison) in zip(panels, comparisons.items(), strict=True):
        for way in comparison.turns:
            ratios = comparison.ratios(way)
            median = statistics.median(ratios)
            error = [[median - min(ratios)], [max(ratios) - median]]
            color = "tab:grey" if way == comparison.baseline else "tab:blue"
            bar = axes.barh(way, median, xerr=error, color=color)
            axes.bar_label(bar, [f"{median:.2f} ×"], padding=6)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(f"{name}: speed relative to {comparison.baseline}", loc="left", fontsize="medium")
    figure.suptitle(content["device"])
    figure.savefig(folder / "speed.png", dpi=150)


def _spread(values: Sequence[float], form: str) -> str:
    """The median of some values, and their range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
