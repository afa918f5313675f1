"""Files with a JSON value on each line."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from datasets.exceptions import DatasetGenerationError


class InvalidRowError(DatasetGenerationError, ValueError):
    """A row of a file is not what it should be. `load_dataset` passes it on, where it hides the text of others."""


def parse_json_lines(
    lines: Iterable[bytes], name: str, parse: Callable[[Any], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Parse JSON lines, such as those of a binary file: a text file would break lines at other characters too. A byte
    order mark and blank lines are passed over.

    `parse` makes a row of the value of a line. [`InvalidRowError`] names the file and the line that is not JSON or
    for which `parse` raised a `ValueError`.
    """
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(codecs.BOM_UTF8).strip()
        if line:
            try:
                yield parse(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InvalidRowError(f"'{name}', line {number}: {error}") from error
