"""The published results and ours, as a Markdown table and as a picture."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


COLUMNS = {
    "sblimp": ("sBLIMP ↑", "accuracy", 100),
    "sstorycloze": ("sStoryCloze ↑", "accuracy", 100),
    "tstorycloze": ("tStoryCloze ↑", "accuracy", 100),
    "swuggy": ("sWUGGY in vocabulary ↑", "in_vocabulary_accuracy", 100),
    "salmon": ("SALMon ↑", "accuracy", 100),
    "genppl": ("GenPPL ↓", "genppl", 1),
    "auto_bleu": ("Auto-BLEU ↓", "auto_bleu", 100),
}
"""Heading of each task's column, the result that it shows, and what that is multiplied by."""

PLOTTED = ("sblimp", "sstorycloze", "tstorycloze")


@dataclass(frozen=True)
class Score:
    r"""
    A cell of the table.

    Args:
        value (`float`):
            In percent, but for GenPPL.
        interval (`tuple[float, float]`, *optional*):
            95 % interval.
        num_scored, num_items (`int`, *optional*):
            How many items it is over, and how many the benchmark has.
    """

    value: float
    interval: tuple[float, float] | None = None
    num_scored: int | None = None
    num_items: int | None = None


@dataclass(frozen=True, eq=False)
class Row:
    r"""
    A model and its scores.

    Args:
        model (`str`):
            Name.
        compute (`str`):
            What it was trained on; "?" where that is not known.
        parameters, tokens (`str`):
            Number of parameters and of training tokens, as people write them: `"358M"`, `"1.4B + 5M"`.
        scores (`dict[str, Score]`):
            Scores by task.
        is_ours (`bool`, *optional*, defaults to `False`):
            Whether this project has measured them.
    """

    model: str
    compute: str
    parameters: str
    tokens: str
    scores: dict[str, Score] = field(default_factory=dict)
    is_ours: bool = False


def read_summaries(paths: Iterable[str | os.PathLike]) -> list[Row]:
    r"""
    Read the summaries that `hub_scripts/evaluate_model.py` wrote, one row per model.

    Args:
        paths (iterable of `str` or `os.PathLike`):
            Files, or folders with them.

    Returns:
        `list[Row]` in the order of the paths.

    Raises:
        FileNotFoundError: there is no summary at a path.
        ValueError: two summaries are of the same model and task.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for file in summary_files(Path(path)):
            summary = json.loads(file.read_text("utf-8"))
            model, task = summary["model"], summary["task"]
            row = rows.setdefault(model["weights"], _make_row(model))
            if task in row.scores:
                raise ValueError(f"'{file}' is the second summary of {task} for {row.model}: pass one of them.")
            row.scores[task] = _make_score(summary)
    return list(rows.values())


def to_markdown(rows: Sequence[Row]) -> str:
    r"""
    Make a Markdown table. A score of ours has its 95 % interval beside it and, where items had to be skipped, how many
    were scored.

    Args:
        rows (sequence of [`Row`]):
            Models and their scores.

    Returns:
        `str` without a newline at the end. Tasks that no model has a score for are left out.
    """
    tasks = [task for task in COLUMNS if any(task in row.scores for row in rows)]
    lines = [["Model", "Compute", "Parameters", "Tokens", *(COLUMNS[task][0] for task in tasks)]]
    lines.append(["---"] * 4 + ["---:"] * len(tasks))
    for row in rows:
        name = f"**{row.model}**" if row.is_ours else row.model
        cells = [_format_score(row.scores[task]) if task in row.scores else "—" for task in tasks]
        lines.append([name, row.compute, row.parameters, row.tokens, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save_plot(rows: Sequence[Row], path: str | os.PathLike) -> None:
    r"""
    Draw the accuracies against the number of training tokens.

    Args:
        rows (sequence of [`Row`]):
            Models and their scores. Those whose number of tokens is not known are left out.
        path (`str` or `os.PathLike`):
            The PNG file to write.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('The plot needs matplotlib: pip install "slam-hf[plots]".') from error

    figure = Figure(figsize=(15, 5.5), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(PLOTTED)), PLOTTED, strict=True):
        points = {
            row: (tokens, row.scores[task].value)
            for row in rows
            if task in row.scores and (tokens := parse_count(row.tokens)) is not None
        }
        for row, (tokens, value) in points.items():
            color = "tab:red" if row.is_ours else "tab:blue" if row.model.startswith("Slam") else "tab:gray"
            low, high = row.scores[task].interval or (value, value)
            axes.errorbar(tokens, value, yerr=[[value - low], [high - value]], fmt="o", color=color, capsize=3)
            axes.annotate(
                row.model,
                points[row],
                textcoords="offset points",
                fontsize=7,
                color=color,
                **_place_label(row, points),
            )
        title = COLUMNS[task][0].removesuffix(" ↑")
        axes.set(xscale="log", xlabel="training tokens", ylabel="accuracy (%)", title=title)
        axes.margins(x=0.25)
    figure.savefig(path, dpi=150)


def parse_count(text: str) -> float | None:
    """A number of tokens such as `"10.8B + ~158B"`, or `None` for `"?"`."""
    if text == "?":
        return None
    factors = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    return sum(float(part.strip(" ~")[:-1]) * factors[part.strip()[-1]] for part in text.split("+"))


def format_count(count: float | None) -> str:
    """A number as people write it: `"16.7B"`; `"?"` for `None`."""
    if count is None:
        return "?"
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= 0.9995 * factor:  # what three digits round up
            return f"{count / factor:.3g}{suffix}"
    return f"{count / 1e3:.3g}K"


def _place_label(row: Row, points: Mapping[Row, tuple[float, float]]) -> dict[str, Any]:
    """To the right of a point unless another is there or the plot ends, and away from one just above or below."""
    tokens, value = points[row]
    values = [other for _, other in points.values()]
    near = [
        (math.log10(other_tokens / tokens), other - value)
        for other_row, (other_tokens, other) in points.items()
        if other_row is not row and abs(other - value) < 0.05 * (max(values) - min(values))
    ]
    is_last = tokens > 0.3 * max(tokens for tokens, _ in points.values())
    to_the_left = is_last or any(0.1 < decades < 1.2 for decades, _ in near)
    below = any(abs(decades) <= 0.3 and rise > 0 for decades, rise in near)
    return {"xytext": (-5 if to_the_left else 5, -9 if below else 3), "ha": "right" if to_the_left else "left"}


def summary_files(path: Path) -> list[Path]:
    """The summaries in a folder, or the file that is one; `FileNotFoundError` where there is none."""
    files = sorted(file for file in path.glob("*.json") if file.stem in COLUMNS) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"'{path}': there is no summary of an evaluation.")
    return files


def _make_row(model: dict[str, Any]) -> Row:
    parameters, tokens = format_count(model["num_parameters"]), format_count(model["training_tokens"])
    return Row(model["name"], "?", parameters, tokens, is_ours=True)


def _make_score(summary: dict[str, Any]) -> Score:
    _, measure, factor = COLUMNS[summary["task"]]
    low, high = summary["results"][f"{measure}_interval"]
    num_scored = summary["num_items"] - summary["num_skipped"]
    return Score(summary["results"][measure] * factor, (low * factor, high * factor), num_scored, summary["num_items"])


def _format_score(score: Score) -> str:
    text = f"{score.value:.4g}"
    if score.interval is not None:
        text += " [{:.3g}, {:.3g}]".format(*score.interval)
    if score.num_scored != score.num_items:
        text += f" ({score.num_scored} of {score.num_items})"
    return text
