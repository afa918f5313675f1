"""Keeps results as they are computed, so that an interrupted evaluation continues where it stopped."""

import json
import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)


class Journal:
    r"""
    Finished results by key. Each process appends to a file of its own, one JSON object per line, so that a process
    that is killed leaves at most an unfinished last line. Damaged lines are left out, with a warning: their
    results are computed again.

    The name of the folder must tell what the results depend on besides the key, such as the model. `results` is what
    earlier runs and this process have computed.
    """

    def __init__(self, folder: str | os.PathLike):
        folder = Path(folder)
        self.results: dict[str, Any] = {}
        for path in sorted(folder.glob("*.jsonl")):
            # What stands after the last newline is empty, or what a killed process did not finish.
            *lines, _ = path.read_bytes().split(b"\n")
            num_damaged = 0
            for line in lines:
                try:
                    self.results |= json.loads(line)
                except (TypeError, ValueError, RecursionError):
                    num_damaged += 1
            if num_damaged > 0:
                logger.warning(f"Damaged lines in '{path}': {num_damaged}. Their results are computed again.")
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{uuid.uuid4().hex}.jsonl"

    def add(self, results: Iterable[tuple[str, Any]]) -> None:
        """Keep finished results: pairs of a key and a plain value."""
        results = dict(results)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(results) + "\n")
        self.results |= results
