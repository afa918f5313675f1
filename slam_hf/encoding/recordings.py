"""What goes into a corpus: recordings, and the reasons for which some are left out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


PAIR_CLIPS = ("prompt", "chosen", "rejected")
"""The recordings of a preference pair, whose ids are that of the pair with `/prompt`, `/chosen` and `/rejected`."""


class SkipReason(StrEnum):
    """Why a recording, or a piece of one, is not in the corpus."""

    MALFORMED = "malformed"
    WRONGLY_NAMED = "wrongly named"
    UNREADABLE = "unreadable"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    NOT_FINITE = "not finite"
    SILENT = "silent"
    TOO_SHORT = "too short"
    INCOMPLETE = "incomplete pair"


@dataclass(frozen=True)
class Recording:
    r"""
    A recording, or an excerpt of one.

    Args:
        id (`str`):
            Unique in its source. With a media fragment (`#t=start,end`) where it names an excerpt.
        audio (`str` or `dict`):
            Path of a file that libsndfile reads, or `{"bytes", "path"}`, the row of `datasets.Audio(decode=False)`.
        offset (`float`, *optional*, defaults to 0.0):
            Where the excerpt begins, in seconds.
        duration (`float`, *optional*):
            Length of the excerpt, in seconds. Defaults to what remains.
        text (`str`, *optional*):
            What is said.
        aligned_text (`list[dict]`, *optional*):
            `{"word", "start_time", "end_time"}` with times in seconds from the start of the excerpt.
    """

    id: str
    audio: str | dict[str, Any]
    offset: float = 0.0
    duration: float | None = None
    text: str | None = None
    aligned_text: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Skipped:
    """A recording or piece that is left out: the line that the skip report has for it."""

    id: str
    reason: SkipReason
    detail: str
