"""The published results and yours, as a Markdown table and as a plot."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..public_names import PREFIX
from .tasks import CONDITIONAL_SCORES, TASKS, pair_tasks


MINIATURE = "‡"
"""Marks a score on a small benchmark of this package, which has the form of the published one but not its items."""

FACTORS = {"T": 1e12, "B": 1e9, "M": 1e6, "K": 1e3}


@dataclass(frozen=True)
class Score:
    """
    A cell of the table. The value and its 95 % interval are as tables show them: in percent, if the scale of the task
    is 100. A miniature is a small benchmark of this package, and `dtype` is the type of the model's weights.
    `conditional` holds the [`CONDITIONAL_SCORES`] of the same items.
    """

    value: float
    interval: tuple[float, float] | None = None
    num_scored: int | None = None
    num_items: int | None = None
    is_miniature: bool = False
    dtype: str = "float32"
    conditional: Mapping[str, "Score"] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Row:
    """
    A model and its scores by task, with the hardware that it was trained on and the numbers of its parameters and
    training tokens as people write them: `"358M"`, `"1.4B + 5M"`, `"?"`. Ours are those that this package measured.
    """

    model: str
    compute: str
    parameters: str
    tokens: str
    scores: dict[str, Score] = field(default_factory=dict)
    is_ours: bool = False

    @property
    def name(self) -> str:
        """`str`: The model as tables show it."""
        return f"**{self.model}**" if self.is_ours else self.model


def read_summaries(paths: Iterable[str | os.PathLike]) -> list[Row]:
    r"""
    Read the summaries that `hub_scripts/evaluate_model.py` wrote, one row per model.

    Args:
        paths (iterable of `str` or `os.PathLike`):
            Files, or folders with them at any depth.

    Returns:
        `list[Row]` in the order of the paths.

    Raises:
        FileNotFoundError: there is no summary at a path.
        ValueError: a file is not a summary, or two summaries are of the same model and task.
    """
    rows: dict[str, Row] = {}
    files: dict[tuple[str, str], Path] = {}
    for path in paths:
        for file in summary_files(Path(path)):
            summary = read_summary(file)
            model, task = summary["model"], summary["task"]
            other = files.setdefault((model["weights"], task), file)
            if other is not file:
                raise ValueError(
                    f"'{file}' is the second summary of {task} for {model['name']}, after '{other}': pass one of them."
                )
            rows.setdefault(model["weights"], _make_row(model)).scores[task] = _make_score(summary)
    return list(rows.values())


def model_summaries(folder: Path) -> list[Path]:
    """The summaries that lie beside a model, in `evaluation` of its folder; none where it has not been evaluated."""
    return sorted(file for file in (folder / "evaluation").glob("*.json") if file.stem in TASKS)


def summary_files(path: Path) -> list[Path]:
    """The summaries below a folder, or the file that is one; `FileNotFoundError` where there are none."""
    files = sorted(file for file in path.rglob("*.json") if file.stem in TASKS) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"'{path}': there is no summary of an evaluation.")
    return files


def read_summary(file: Path) -> dict[str, Any]:
    """The summary of an evaluation, as [`save_evaluation`] wrote it; `ValueError` where a file is anything else."""
    try:
        summary = json.loads(file.read_text("utf-8"))
        _make_score(summary), _make_row(summary["model"]), summary["model"]["weights"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{file}' is not the summary of an evaluation ({error!r}): take it away, or evaluate the model again."
        ) from error
    return summary


def to_markdown(rows: Sequence[Row], tasks: Iterable[str] | None = None) -> str:
    r"""
    Make a Markdown table. A score that was measured by this package comes with its 95 % interval and, if items had to
    be skipped, with how many were scored. A score on a small benchmark has a mark, which a line below the table
    explains.

    Args:
        rows (sequence of [`Row`]):
            Models and their scores.
        tasks (iterable of `str`, *optional*):
            The tasks to show, in order. Defaults to those of speech alone.

    Returns:
        `str` without a newline at the end. It has no column for tasks without scores.
    """
    tasks = [name for name, task in TASKS.items() if task.is_speech] if tasks is None else tasks
    shown = [task for task in tasks if any(task in row.scores for row in rows)]
    header = ["Model", "Compute", "Parameters", "Tokens", *(TASKS[task].column for task in shown)]
    lines = [[row.name, row.compute, row.parameters, row.tokens, *map(row.scores.get, shown)] for row in rows]
    return _write_table(header, lines, num_texts=4)


def conditional_to_markdown(rows: Sequence[Row]) -> str | None:
    """Make a table of the [`CONDITIONAL_SCORES`], beside the published ones; `None` where there are none."""
    lines = [
        [row.name, TASKS[task].heading, score, *score.conditional.values()]
        for row in rows
        for task, score in row.scores.items()
        if score.conditional
    ]
    header = ["Model", "Benchmark", "log p(prompt and ending), as published"]
    return _write_table([*header, *CONDITIONAL_SCORES.values()], lines, num_texts=2) if lines else None


def save_plot(rows: Sequence[Row], path: str | os.PathLike) -> list[str]:
    r"""
    Draw the accuracies against the number of training tokens, in one panel per task. A line joins the checkpoints of a
    run.

    Args:
        rows (sequence of [`Row`]):
            Models and their scores.
        path (`str` or `os.PathLike`):
            The PNG file to write.

    Returns:
        `list[str]`: the models that are not in the plot, because their number of training tokens is not known.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('The plot needs matplotlib: pip install "slam-hf[plots]".') from error

    counts = {row: parse_count(row.tokens) for row in rows if not row.scores.keys().isdisjoint(pair_tasks())}
    plotted = {row: count for row, count in counts.items() if count is not None}
    tasks = [task for task in pair_tasks() if any(task in row.scores for row in plotted)]
    if not tasks:
        raise ValueError("There is nothing to draw: no model has both an accuracy and a number of training tokens.")
    figure = Figure(figsize=(5 * len(tasks), 5.5), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        points = {row: (count, row.scores[task].value) for row, count in plotted.items() if task in row.scores}
        for run in {_run(row) for row in points} - {None}:  # its checkpoints, as a curve
            curve = sorted(point for row, point in points.items() if _run(row) == run)
            axes.plot(*zip(*curve, strict=True), color="tab:red", linewidth=1)
        for row, (tokens, value) in points.items():
            score = row.scores[task]
            color = "tab:red" if row.is_ours else "tab:blue" if row.model.startswith("Slam") else "tab:gray"
            low, high = score.interval or (value, value)
            axes.errorbar(tokens, value, yerr=[[value - low], [high - value]], fmt="o", color=color, capsize=3)
            axes.annotate(
                row.model + (" (miniature)" if score.is_miniature else ""),
                points[row],
                textcoords="offset points",
                fontsize=7,
                color=color,
                **_place_label(row, points),
            )
        axes.set(xscale="log", xlabel="training tokens", ylabel="accuracy (%)", title=TASKS[task].heading)
        axes.margins(x=0.25)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return [row.model for row in counts if row not in plotted]


def _run(row: Row) -> str | None:
    """The run that a model is a checkpoint of."""
    run, _, step = row.model.rpartition("/")
    return run if run and step.startswith("checkpoint-") else None


def parse_count(text: str) -> float | None:
    """A number of tokens such as `"10.8B + ~158B"`, or `None` for `"?"`."""
    if text == "?":
        return None
    return sum(float(part.strip(" ~")[:-1]) * FACTORS[part.strip()[-1]] for part in text.split("+"))


def format_count(count: float | None) -> str:
    """A number as people write it, such as `"16.7B"`, and `"?"` for `None`."""
    if count is None:
        return "?"
    # Three digits round up what is just below.
    suffix, factor = next((item for item in FACTORS.items() if count >= 0.9995 * item[1]), ("K", FACTORS["K"]))
    return f"{count / factor:.3g}{suffix}"


def _place_label(row: Row, points: Mapping[Row, tuple[float, float]]) -> dict[str, Any]:
    """Puts a label to the right of its point, or to the left if there is no room, and away from a label nearby."""
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


def _make_row(model: dict[str, Any]) -> Row:
    parameters, tokens = format_count(model["num_parameters"]), format_count(model["training_tokens"])
    return Row(model["name"], "?", parameters, tokens, is_ours=True)


def _make_score(summary: dict[str, Any]) -> Score:
    task, results = TASKS[summary["task"]], summary["results"]

    def read(results: dict[str, Any], conditional: Mapping[str, Score]) -> Score:
        low, high = results[f"{task.result}_interval"]
        return Score(
            value=results[task.result] * task.scale,
            interval=(low * task.scale, high * task.scale),
            num_scored=summary["num_items"] - summary["num_skipped"],
            num_items=summary["num_items"],
            is_miniature=summary.get("data", {}).get("name", "").startswith(PREFIX),
            dtype=summary.get("settings", {}).get("dtype", "float32"),
            conditional=conditional,
        )

    return read(results, {name: read(results[name], {}) for name in CONDITIONAL_SCORES if name in results})


def _write_table(header: Sequence[str], lines: Sequence[Sequence[str | Score | None]], num_texts: int) -> str:
    """A Markdown table of texts, and of scores in the columns after the first `num_texts`, which may be missing."""
    cells = [[cell if isinstance(cell, str) else _format_score(cell) for cell in line] for line in lines]
    rules = ["---"] * num_texts + ["---:"] * (len(header) - num_texts)
    table = "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *cells))
    if any(isinstance(cell, Score) and cell.is_miniature for line in lines for cell in line):
        table += f"\n\n{MINIATURE} On a small benchmark that comes with slam-hf: not comparable with published scores."
    return table


def _format_score(score: Score | None) -> str:
    if score is None:
        return "—"
    interval = "" if score.interval is None else " [{:.3g}, {:.3g}]".format(*score.interval)
    counts = "" if score.num_scored == score.num_items else f" ({score.num_scored} of {score.num_items})"
    precision = "" if score.dtype == "float32" else f" ({score.dtype})"
    return f"{score.value:.4g}{interval}{counts}{precision}{f' {MINIATURE}' if score.is_miniature else ''}"
