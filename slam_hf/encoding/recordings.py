"""Recordings, and the reasons why some are left out of a corpus."""

import json
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ..audio_files import ByteRange


PAIR_CLIPS = ("prompt", "chosen", "rejected")
"""The recordings of a preference pair. Their ids are that of the pair with `/prompt`, `/chosen` and `/rejected`."""


class SkipReason(StrEnum):
    """Why a recording, or a piece of one, is left out of the corpus; why its words have no times; or why no pair was
    made of its continuations."""

    MALFORMED = "malformed"
    WRONGLY_NAMED = "wrongly named"
    UNREADABLE = "unreadable"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    NOT_FINITE = "not finite"
    SILENT = "silent"
    TOO_SHORT = "too short"
    INCOMPLETE = "incomplete pair"
    NO_TEXT = "no text"
    UNKNOWN_CHARACTERS = "characters unknown"
    SHORTER_THAN_TEXT = "too short for its text"
    TOO_LONG = "too long"
    NO_RECORDING = "audio missing"
    NOT_JUDGED = "no two continuations with a score"
    NONE_GOOD = "no continuation good enough"
    NONE_BAD = "no continuation bad enough"
    TIE = "equally good continuations"
    NOT_SAMPLED = "not in the sample"


MAX_SECONDS = 1e7
"""No recording is longer than 115 days."""


@dataclass(frozen=True)
class Recording:
    r"""
    A recording, or an excerpt of one.

    Args:
        id (`str`):
            Unique in its source. The id of an excerpt has a media fragment (`#t=start,end`).
        audio (`str`, [`ByteRange`] or `dict`):
            Path or URL of an audio file; a part of a file, such as a member of a tar archive; or `{"bytes", "path"}`,
            a value of `datasets.Audio(decode=False)`.
        offset (`float`, *optional*, defaults to 0.0):
            Start of the excerpt, in seconds.
        duration (`float`, *optional*):
            Length of the excerpt, in seconds. Defaults to the rest of the recording.
        text (`str`, *optional*):
            Transcript.
        aligned_text (`list[dict]`, *optional*):
            The words of the transcript, `{"word", "start_time", "end_time"}`, with times in seconds from the start of
            the excerpt, or `None` where a word has no time.
        speaker, style (`str`, *optional*):
            Who speaks, and in which style.

    Raises:
        ValueError: a value cannot be stored in a row: text is not UTF-8, a time is not from 0 to 10^7 seconds, or
            the times of words run backwards.
    """

    id: str
    audio: str | ByteRange | dict[str, Any]
    offset: float = 0.0
    duration: float | None = None
    text: str | None = None
    aligned_text: list[dict[str, Any]] | None = None
    speaker: str | None = None
    style: str | None = None

    def __post_init__(self):
        _check_text("id", self.id)
        if not self.id:
            raise ValueError("'id' is empty")
        check_seconds("offset", self.offset)
        if self.duration == 0:
            raise ValueError("'duration' is 0")
        if self.duration is not None:
            check_seconds("duration", self.duration)
        for name in ("text", "speaker", "style"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        if self.aligned_text is not None:
            _check_words(self.aligned_text)


def read_labels(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """The speaker and the style of a recording, from the columns of a row that have them. A `ValueError` says that one
    is missing."""
    labels = {}
    for label, column in columns.items():
        value = row.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not value or not isinstance(value, str):
            raise ValueError(
                f"no {column!r}, the column of the {label}" if value is None else f"{column!r} is {value!r}"
            )
        labels[label] = value
    return labels


@dataclass(frozen=True)
class Skipped:
    """A recording or piece that is left out: a line of the skip report."""

    id: str
    reason: SkipReason
    detail: str

    def as_texts(self) -> dict[str, str]:
        """The values by name, with characters that are not UTF-8 escaped."""
        return {key: value.encode("utf-8", "backslashreplace").decode() for key, value in asdict(self).items()}


def skip_report(skipped: Sequence[Skipped]) -> bytes:
    """The content of a skip report: JSON lines, in ASCII because a name may hold line separators."""
    return "".join(json.dumps(item.as_texts()) + "\n" for item in skipped).encode()


def count_reasons(skipped: Sequence[Skipped]) -> dict[str, int]:
    """How many were left out for each reason, the most frequent one first."""
    return dict(Counter(str(item.reason) for item in skipped).most_common())


def list_reasons(counts: Mapping[str, int]) -> str:
    """The reasons in a sentence, such as "2 × silent, 1 × corrupt"."""
    return ", ".join(f"{count:,} × {reason}" for reason, count in counts.items())


def is_utf8(text: str) -> bool:
    """Whether a text can be stored: lone surrogates stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is {reprlib.repr(value)}, which is not text")
    if not is_utf8(value):
        raise ValueError(f"{name!r} is not UTF-8")


def check_seconds(name: str, value: Any) -> None:
    """Raise `ValueError` if a value is not a number of seconds from 0 to [`MAX_SECONDS`]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{name!r} is {reprlib.repr(value)}, which is not a number of seconds")


def _check_words(words: Any) -> None:
    keys = {"word", "start_time", "end_time"}
    if not isinstance(words, list) or not all(isinstance(word, dict) and keys <= word.keys() for word in words):
        raise ValueError("'aligned_text' is not a list of words with 'start_time' and 'end_time'")
    latest = 0.0
    for word in words:
        _check_text("word", word["word"])
        if None in (word["start_time"], word["end_time"]):
            continue
        check_seconds("start_time", word["start_time"])
        check_seconds("end_time", word["end_time"])
        if not latest <= word["start_time"] <= word["end_time"]:
            raise ValueError(f"the times of the word {reprlib.repr(word['word'])} run backwards")
        latest = word["start_time"]
