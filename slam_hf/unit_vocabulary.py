"""The vocabulary: id 0 `<PAD>`, id 1 `<S>` (begin and end of sequence), unit *i*, written `<Un{i}>`, at id *i* + 2."""

import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np


PAD_TOKEN, BOUNDARY_TOKEN = SPECIAL_TOKENS = ("<PAD>", "<S>")
PAD_TOKEN_ID, BOUNDARY_TOKEN_ID = range(len(SPECIAL_TOKENS))
NUM_SPECIAL_TOKENS = len(SPECIAL_TOKENS)
UNIT_PATTERN = re.compile(r"<Un(0|[1-9][0-9]*)>")

UNIT_TOKENIZER, SPEECH_TEXT_TOKENIZER = "HubertUnitTokenizer", "SpeechTextTokenizer"
"""The `tokenizer_class` of models of units alone, and of text and units."""

MAX_UNUSED_ROWS = 0.1
"""Maximum share of the rows in a text LM's embedding that its tokenizer leaves unused. For Phi-2, it is 1.8 %."""

MAX_UNITS = 65_536
"""Maximum number of units: a corpus stores them in 16 bits."""


def unit_string(units: Iterable[int]) -> str:
    """Units as text: `<Un3><Un49>`."""
    return "".join(f"<Un{unit}>" for unit in units)


def holds_text(config: Mapping[str, Any]) -> bool:
    """
    Whether a speech LM's `config.json` describes a vocabulary of text and units, and not of units alone.

    The published format does not say. A model of units alone names no text LM, gives `num_units`, or has a much
    smaller vocabulary than the text LM. A model of text and units has extended the vocabulary of the text LM.
    """
    if config.get("tokenizer_class") in (UNIT_TOKENIZER, SPEECH_TEXT_TOKENIZER):
        return config["tokenizer_class"] == SPEECH_TEXT_TOKENIZER
    base, vocab_size = config.get("base_config") or {}, config.get("vocab_size")
    if config.get("num_units") is not None or not isinstance(base, Mapping) or not isinstance(vocab_size, int):
        return False  # wrong types are refused by the configuration class
    base_size = base.get("vocab_size")
    is_named = bool(base.get("_name_or_path") or config.get("base_model_name"))
    return is_named and not (isinstance(base_size, int) and vocab_size <= (1 - MAX_UNUSED_ROWS) * base_size)


def count_units(config: Mapping[str, Any]) -> int:
    """
    Number of units in the `config.json` of a model of units alone.

    Raises:
        ValueError: the vocabulary holds text too.
    """
    if holds_text(config):
        raise ValueError(
            f"the vocabulary of {config['vocab_size']:,} ids extends that of a text model by units. Load its "
            f"tokenizer with `AutoTokenizer` or `{SPEECH_TEXT_TOKENIZER}`. If it holds units alone, pass `num_units=`."
        )
    return config.get("num_units") or config["vocab_size"] - NUM_SPECIAL_TOKENS


def check_num_units(num_units: int) -> None:
    """Raise a `ValueError` if a corpus cannot store this number of units."""
    if not isinstance(num_units, Integral) or isinstance(num_units, bool):
        raise ValueError(f"`num_units` must be a whole number, got {num_units!r}.")
    if num_units < 1:
        raise ValueError(f"`num_units` must be at least 1, got {num_units}.")
    if num_units > MAX_UNITS:
        raise ValueError(f"`num_units` must be at most {MAX_UNITS:,}, which a corpus can store, got {num_units:,}.")


def check_units(units: np.ndarray, num_units: int, name: str) -> None:
    """Raise a `ValueError` unless the values of an array of shape `(units,)` are units."""
    _check_integers(units, num_units, name, "unit")


def check_ids(ids: np.ndarray, num_ids: int, name: str) -> None:
    """Raise a `ValueError` unless the values of an array of shape `(ids,)` are below `num_ids`."""
    _check_integers(ids, num_ids, name, "id")


def _check_integers(values: np.ndarray, count: int, name: str, kind: str) -> None:
    if values.ndim != 1 or (values.size > 0 and not np.issubdtype(values.dtype, np.integer)):
        raise ValueError(f"{name}: expected integers of shape ({kind}s,), got {values.dtype} of shape {values.shape}.")
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size > 0:
        raise ValueError(f"{name}: {kind} {wrong[0]} is outside this vocabulary of {kind}s 0 to {count - 1}.")
