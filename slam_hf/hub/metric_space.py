"""Makes Spaces for metrics, which `evaluate.load` loads and the Hub shows, from the modules of the metrics."""

import ast
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import evaluate
import yaml
from evaluate.loading import import_main_class

from .. import metrics
from .markdown import TEMPLATES, Markdown


METRICS = Path(metrics.__file__).parent

GRADIO = "6.31.0"
"""The version of gradio that the demo was tested with."""


def metric_space(name: str, output_dir: str | os.PathLike, repo_id: str | None = None) -> Path:
    r"""
    Write the folder of a metric's Space: the module, its documentation, a demo and their requirements.

    Args:
        name (`str`):
            Name of the metric: a folder in `slam_hf/metrics`.
        output_dir (`str` or `os.PathLike`):
            The folder to write. `evaluate.load` can load it if it has the metric's name.
        repo_id (`str`, *optional*):
            The Space that it is published to. The example uses this name. Defaults to the metric's name.

    Returns:
        `Path` of the folder.

    Raises:
        ImportError: a package that the metric needs is not installed.
        ValueError: there is no such metric.
    """
    names = sorted(path.parent.name for path in METRICS.glob("*/__init__.py"))
    if name not in names:
        raise ValueError(f"There is no metric {name!r}: choose one of {', '.join(names)}.")
    output_dir, path = Path(output_dir), METRICS / name / f"{name}.py"
    try:
        metric = import_main_class(f"{metrics.__name__}.{name}.{name}")
    except ImportError as error:
        package = error.name.partition(".")[0]
        raise ImportError(f"The metric {name} needs {package}: pip install {package}.") from error
    output_dir.mkdir(parents=True, exist_ok=True)
    title = inspect.getmodule(metric).__doc__.strip().partition(":")[0].partition(",")[0].rstrip(".")
    app = TEMPLATES.get_template("metric_app.py.jinja").render(name=name, title=title)
    shutil.copyfile(path, output_dir / path.name)
    requirements = "".join(f"{package}\n" for package in list_requirements(path))
    (output_dir / "requirements.txt").write_text(requirements, encoding="utf-8")
    (output_dir / "app.py").write_text(app, encoding="utf-8")
    readme = _readme(metric(keep_in_memory=True), name, title, repo_id or name)
    (output_dir / "README.md").write_text(readme, encoding="utf-8")
    return output_dir


def list_requirements(module: Path) -> list[str]:
    """List the packages that a module imports, without the standard library."""
    imported = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    return sorted({name.split(".")[0] for name in imported} - sys.stdlib_module_names)


def _readme(metric: evaluate.Metric, name: str, title: str, repo_id: str) -> str:
    metadata = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "python_version": "3.11",
        "app_file": "app.py",
        "pinned": False,
        "tags": ["evaluate", "metric"],
        "description": " ".join(metric.description.split()),
    }
    text = metric.inputs_description.replace(f"slam_hf/metrics/{name}", repo_id)
    sections = re.split(r"^(Args|Returns|Example):\n", text, flags=re.MULTILINE)
    documented = dict(zip(sections[1::2], map(inspect.cleandoc, sections[2::2]), strict=True))
    return TEMPLATES.get_template("metric_space.md").render(
        metadata=Markdown(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip()),
        title=title,
        metric=metric,
        inputs=_list_items(documented["Args"]),
        outputs=_list_items(documented["Returns"]),
        example=documented["Example"],
    )


def _list_items(section: str) -> str:
    """Turn ``name (`type`):`` with an indented text into the items of a list in Markdown."""
    items = re.split(r"^(\S.*):\n", section, flags=re.MULTILINE)[1:]
    lines = []
    for heading, body in zip(items[::2], items[1::2], strict=True):
        names, _, kind = heading.partition(" (")
        lines.append(f"- `{names}` ({kind}: {' '.join(body.split())}")
    return "\n".join(lines)
