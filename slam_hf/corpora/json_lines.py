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
    r"""
    Parse JSON lines, with or without a byte order mark, passing over blank ones.

    Args:
        lines (iterable of `bytes`):
            The lines; a binary file is one. (A text file would break lines at other characters too.)
        name (`str`):
            The name of the file.
        parse (`Callable`):
            Makes a row of the value of a line.

    Yields:
        `dict`: a row per line.

    Raises:
        InvalidRowError: a line is not JSON, or `parse` raised a `ValueError`. It names the file and the line.
    """
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(codecs.BOM_UTF8).strip()
        if line:
            try:
                yield parse(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InvalidRowError(f"'{name}', line {number}: {error}") from error
