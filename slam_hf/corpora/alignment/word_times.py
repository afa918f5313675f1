"""Words with their times, as the interleaver takes them, and the error of a text that cannot be aligned."""

from collections.abc import Sequence
from typing import Any

from ...encoding.recordings import SkipReason


class UnalignableError(ValueError):
    """A text that cannot be aligned with a recording. `reason` and `detail` say why."""

    def __init__(self, reason: SkipReason, detail: str):
        super().__init__(f"{reason} ({detail})")
        self.reason = reason
        self.detail = detail


def split_words(text: str) -> list[str]:
    r"""
    Split a text into words that give the text when they are joined: all but the first begin with a space.

    A part without letters and digits, such as a dash between spaces, belongs to the word before it, or to the first
    word. Consecutive white space counts as one space.

    Args:
        text (`str`):
            A transcript.

    Returns:
        `list[str]`, empty for a text without letters and digits.
    """
    words: list[str] = []
    pending = ""
    for part in text.split():
        part = f"{pending} {part}" if pending or words else part
        if any(map(str.isalnum, part)):
            words.append(part)
            pending = ""
        elif words:
            words[-1] += part
        else:
            pending = part
    return words


def timed_words(words: Sequence[str], spans: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """The value of `aligned_text`: words with the seconds when they start and end. These are rounded to microseconds,
    because sums of frames that stand for the same time differ in the last bits."""
    return [
        {"word": word, "start_time": round(start, 6), "end_time": round(end, 6)}
        for word, (start, end) in zip(words, spans, strict=True)
    ]
