"""Results kept as they are made, so that an interrupted evaluation continues where it was."""

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Journal:
    r"""
    Finished results by key. Each process appends to a file of its own, one JSON object a line, so that a process that
    is killed leaves at most an unfinished last line, which is not read.

    Args:
        folder (`str` or `os.PathLike`):
            Where the files are. What the results depend on beside the key, such as the model, must be in its name.

    Attributes:
        results (`dict`):
            What earlier runs, and this process, have finished.
    """

    def __init__(self, folder: str | os.PathLike):
        folder = Path(folder)
        self.results: dict[str, Any] = {}
        for path in sorted(folder.glob("*.jsonl")):
            with open(path, encoding="utf-8") as file:
                finished = (json.loads(line) for line in file if line.endswith("\n"))
                self.results |= {key: value for entry in finished for key, value in entry.items()}
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{uuid.uuid4().hex}.jsonl"

    def add(self, results: Iterable[tuple[str, Any]]) -> None:
        """Keep finished results, key and plain value."""
        results = dict(results)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(results) + "\n")
        self.results |= results
