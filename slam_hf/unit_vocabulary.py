"""The vocabulary: id 0 `<PAD>`, id 1 `<S>` (begin and end of sequence), unit *i*, written `<Un{i}>`, at id *i* + 2."""

import re
from collections.abc import Iterable


PAD_TOKEN, BOUNDARY_TOKEN = SPECIAL_TOKENS = ("<PAD>", "<S>")
PAD_TOKEN_ID, BOUNDARY_TOKEN_ID = range(len(SPECIAL_TOKENS))
NUM_SPECIAL_TOKENS = len(SPECIAL_TOKENS)
UNIT_PATTERN = re.compile(r"<Un(0|[1-9][0-9]*)>")

MAX_UNITS = 65_536
"""Maximum number of units: a corpus stores them in 16 bits."""


def unit_string(units: Iterable[int]) -> str:
    """Units as text: `<Un3><Un49>`."""
    return "".join(f"<Un{unit}>" for unit in units)


def check_num_units(num_units: int) -> None:
    """Raises a `ValueError` unless there can be so many units."""
    if not 1 <= num_units <= MAX_UNITS:
        raise ValueError(
            f"`num_units` must be from 1 to {MAX_UNITS:,}, got {num_units:,}: a corpus stores 16-bit units."
        )
