"""What the cards have in common: their templates, and how they write names and figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from safetensors import safe_open

from ..evaluation.results_table import format_count
from ..training.run_record import Reference


HUB = "https://huggingface.co"

TEMPLATES = jinja2.Environment(  # noqa: S701 (Markdown, not HTML)
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def link(reference: Reference, kind: str = "") -> str:
    r"""
    Name a model or a dataset, with a link to it on the Hub.

    Args:
        reference ([`Reference`]):
            The model or dataset.
        kind (`str`, *optional*, defaults to `""`):
            `"datasets/"` for a dataset.
    """
    if reference.is_local:
        return f"`{reference.name}` (local)"
    if reference.url is not None:
        return f"[{reference.name}]({reference.url})"
    url = f"{HUB}/{kind}{reference.name}"
    if reference.revision is None:
        return f"[`{reference.name}`]({url})"
    return f"[`{reference.name}`]({url}/tree/{reference.revision}) (revision `{reference.revision[:7]}`)"


def format_duration(seconds: float) -> str:
    """Such as `"23 h 30 min"` or `"5 min 12 s"`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join([f"{number:,} {unit}" for number, unit in parts if number][:2]) or "0 s"


def format_number(number: float) -> str:
    """Whole numbers with all their digits, and others as rounded as people write them: `"1.4B"`."""
    return f"{number:,}" if isinstance(number, int) else format_count(number)


def format_value(value: Any) -> str:
    """A value of a recipe: numbers as people write them, names as code."""
    if isinstance(value, Mapping):
        return ", ".join(f"`{name}` {format_value(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose first row is the heading."""
    heading, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *body))


def count_parameters(folder: Path, prefix: str = "") -> int:
    r"""
    Number of values in the safetensors files of a folder, tied weights being in them once.

    Args:
        folder (`Path`):
            Folder of a model.
        prefix (`str`, *optional*, defaults to `""`):
            What the names of the tensors begin with.

    Raises:
        FileNotFoundError: there is no such file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"'{folder}' has no safetensors file: save the model with `save_pretrained`.")
    total = 0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 (no iterator)
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return total


TEMPLATES.filters |= {"link": link, "duration": format_duration, "value": format_value, "table": table}
