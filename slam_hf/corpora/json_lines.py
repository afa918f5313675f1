"""Files with a JSON value on each line."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any


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
        ValueError: a line is not JSON, or `parse` raised one. It names the file and the line.
    """
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(codecs.BOM_UTF8).strip()
        if line:
            try:
                yield parse(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"'{name}', line {number}: {error}") from error
