"""The templates of the cards, and how names and figures are written in them.

The content of a card comes from files that others may have written, such as the `training_run.json` of a base model.
The templates therefore escape every string that is not [`Markdown`].
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData
from safetensors import safe_open

from ..checkpoint_files import check_content
from ..evaluation.results_table import format_count
from ..run_record import Reference


HUB = "https://huggingface.co"


class Markdown(str):
    """Text that is not escaped."""


def escape(value: Any) -> Markdown:
    """Escape a value to one line of plain text: no HTML, links, tables or code."""
    return value if isinstance(value, Markdown) else Markdown(re.sub(r"([\\`|\[\]])", r"\\\1", _one_line(value)))


def code(value: Any) -> Markdown:
    """Format a value as inline code."""
    text = re.sub(r"\\*\|", r"\\|", _one_line(value).replace("`", "'"))  # a bare | ends the cell of a table
    return Markdown(f"`{text}`")


def _one_line(value: Any) -> str:
    return " ".join(str(value).split()).replace("<", "&lt;").replace(">", "&gt;")


TEMPLATES = jinja2.Environment(  # noqa: S701 (`finalize` escapes: this is Markdown)
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    finalize=escape,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def front_matter(data: CardData) -> Markdown:
    """Format the metadata of a card as YAML."""
    return Markdown(data.to_yaml())


def link(reference: Reference, kind: str = "") -> Markdown:
    """Format the name of a model or, if `kind` is `"datasets/"`, a dataset, with a link to the Hub."""
    if reference.url is not None and re.fullmatch(r"https?://[^\s<>()]+", reference.url):
        return Markdown(f"[{escape(reference.name)}]({reference.url})")
    if not reference.is_on_hub:
        return Markdown(f"{code(reference.name)} (local)")
    url, revision = f"{HUB}/{kind}{reference.name}", reference.revision
    if revision is None or not re.fullmatch(r"[\w./-]+", revision):
        return Markdown(f"[{code(reference.name)}]({url})")
    return Markdown(f"[{code(reference.name)}]({url}/tree/{revision}) (revision {code(revision[:7])})")


def format_duration(seconds: float) -> str:
    """Format a duration, such as `"23 h 30 min"` or `"5 min 12 s"`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join([f"{number:,} {unit}" for number, unit in parts if number][:2]) or "0 s"


def format_number(number: float) -> str:
    """Format a number: integers with all their digits, others rounded, such as `"1.4B"`."""
    return f"{number:,}" if isinstance(number, int) else format_count(number)


def format_value(value: Any) -> Markdown:
    """Format a value of a recipe: strings are inline code."""
    if isinstance(value, Mapping):
        return Markdown(", ".join(f"{code(name)} {format_value(item)}" for name, item in value.items()))
    if isinstance(value, list | tuple):
        return Markdown(", ".join(map(format_value, value)))
    if isinstance(value, bool):
        return Markdown("yes" if value else "no")
    if isinstance(value, int):
        return Markdown(f"{value:,}")
    return Markdown(f"{value:g}") if isinstance(value, float) else code(value)


def table(rows: Iterable[Sequence[Any]]) -> Markdown:
    """Format rows as a table. The first row is the heading."""
    heading, *body = rows
    return Markdown(
        "\n".join(f"| {' | '.join(map(escape, row))} |" for row in (heading, ["---"] * len(heading), *body))
    )


def count_parameters(folder: Path, prefix: str = "") -> int:
    """
    Count the parameters in the safetensors files of a folder, or those whose names start with a prefix. Tied weights
    are stored, and counted, once.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"'{folder}' has no safetensors file: save the model with `save_pretrained`.")
    total = 0
    for file in files:
        check_content(file)
        with safe_open(file, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 (no iterator)
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return total


TEMPLATES.filters |= {"code": code, "markdown": Markdown, "link": link, "value": format_value, "table": table}
