"""Runs each stage once: a marker file records that it is done, how long it took and what it measured."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slam_hf.atomic_write import atomic_write


SCRIPTS = Path(__file__).parents[1]


class Stages:
    r"""
    Runs stages in a work folder and remembers, also after an interruption, which are done.

    Args:
        work_dir (`Path`):
            The folder; `done/<stage>.json` is the marker of a stage.
    """

    def __init__(self, work_dir: Path):
        self.folder = work_dir / "done"
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, stage: Callable[[], dict[str, Any] | None]) -> None:
        """Run a stage, unless it is done. What it returns is kept with its seconds of wall clock and of CPU."""
        if self.is_done(name):
            return
        print(f"{name}: started", flush=True)
        wall, cpu = time.time(), time.process_time()
        figures = stage() or {}
        seconds = {"wall_seconds": round(time.time() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        write_json(self.folder / f"{name}.json", seconds | figures)
        print(f"{name}: {seconds | figures}", flush=True)

    def is_done(self, name: str) -> bool:
        """Whether the marker of a stage is there."""
        return (self.folder / f"{name}.json").exists()

    def figures(self) -> dict[str, Any]:
        """What all stages measured, by stage."""
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is either complete or not there."""
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())


def run_script(name: str, **options: Any) -> None:
    """Run a script of the package with the options of its command line."""
    arguments = [text for option, value in options.items() for text in (f"--{option}", str(value))]
    subprocess.run([sys.executable, str(SCRIPTS / name), *arguments], check=True)
