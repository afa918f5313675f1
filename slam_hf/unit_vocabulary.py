"""The vocabulary: id 0 `<PAD>`, id 1 `<S>` (begin and end of sequence), unit *i*, written `<Un{i}>`, at id *i* + 2."""

import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any


PAD_TOKEN, BOUNDARY_TOKEN = SPECIAL_TOKENS = ("<PAD>", "<S>")
PAD_TOKEN_ID, BOUNDARY_TOKEN_ID = range(len(SPECIAL_TOKENS))
NUM_SPECIAL_TOKENS = len(SPECIAL_TOKENS)
UNIT_PATTERN = re.compile(r"<Un(0|[1-9][0-9]*)>")

MAX_UNITS = 65_536
"""Maximum number of units: a corpus stores them in 16 bits."""


def unit_string(units: Iterable[int]) -> str:
    """Units as text: `<Un3><Un49>`."""
    return "".join(f"<Un{unit}>" for unit in units)


def count_units(config: Mapping[str, Any]) -> int:
    """Number of units in a speech LM's `config.json`, which has `num_units` only if the vocabulary is padded."""
    return config.get("num_units") or config["vocab_size"] - NUM_SPECIAL_TOKENS


def check_num_units(num_units: int) -> None:
    """Raise a `ValueError` if a corpus cannot store this number of units."""
    if not isinstance(num_units, Integral) or isinstance(num_units, bool):
        raise ValueError(f"`num_units` must be a whole number, got {num_units!r}.")
    if num_units < 1:
        raise ValueError(f"`num_units` must be at least 1, got {num_units}.")
    if num_units > MAX_UNITS:
        raise ValueError(f"`num_units` must be at most {MAX_UNITS:,}, which a corpus can store, got {num_units:,}.")
