"""Mixes the speech and the text of an utterance, word by word (*Scaling Analysis of Interleaved Speech-Text Language
Models*, arXiv 2504.02398)."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np

from ..tokenization_speech_text import SpeechTextTokenizer


InterleavingMethod = Literal["poisson", "span", "random"]

METHODS: tuple[str, ...] = get_args(InterleavingMethod)

TOLERANCE = 1e-3
"""Overlap of two words, in seconds, that is a rounding error."""


def draw_speech_words(
    num_words: int,
    generator: np.random.Generator,
    method: InterleavingMethod = "poisson",
    span_length: float = 10,
    share: float = 0.3,
) -> np.ndarray:
    r"""
    Draw which words of an utterance are speech.

    Args:
        num_words (`int`):
            Number of words.
        generator (`np.random.Generator`):
            Source of randomness.
        method (`str`, *optional*, defaults to `"poisson"`):
            - `"poisson"`: spans begin at random words and have lengths from a Poisson distribution. They neither
              overlap nor adjoin. There are as many as it takes until `share` of the words, rounded up, are speech.
            - `"span"`: each word begins a span of `span_length` words with probability `share`.
            - `"random"`: each word is speech with probability 0.5.
        span_length (`float`, *optional*, defaults to 10):
            Words of a span, for `"poisson"` on average.
        share (`float`, *optional*, defaults to 0.3):
            Share of the words that are speech, or for `"span"` the probability that a span begins.

    Returns:
        `np.ndarray` of shape `(num_words,)`, bool.
    """
    if method == "random":
        return generator.random(num_words) < 0.5
    if method == "span":
        begins = generator.random(num_words) < share
        return np.convolve(begins, np.ones(int(span_length)))[:num_words] > 0.5
    if method == "poisson":
        return _draw_poisson_spans(num_words, generator, span_length, share)
    raise ValueError(f"The method of interleaving can be {', '.join(METHODS)}, got {method!r}.")


def _draw_poisson_spans(
    num_words: int, generator: np.random.Generator, mean_length: float, share: float
) -> np.ndarray:
    # To draw a start and a length until the span fits can take forever where little room is left. Each start is drawn
    # with the probability that a span fits there, and then a length that does: the same distribution.
    lengths = np.arange(num_words + 1)
    logs = lengths * math.log(mean_length) - mean_length - np.array([math.lgamma(length + 1) for length in lengths])
    up_to = np.cumsum(np.exp(logs)) - math.exp(-mean_length)  # probability of 1 to this many words
    is_speech = np.zeros(num_words, dtype=bool)
    while is_speech.sum() < math.ceil(share * num_words):
        taken = np.flatnonzero(is_speech)
        next_taken = np.append(taken, num_words + 1)[np.searchsorted(taken, lengths[:-1])]
        room = next_taken - 1 - lengths[:-1]  # a word stays between two spans
        room[is_speech | np.append(False, is_speech[:-1])] = 0
        # The end of the utterance cuts the last span.
        fits = np.where((next_taken > num_words) & (room > 0), -math.expm1(-mean_length), up_to[np.maximum(room, 0)])
        if fits.sum() <= 0:
            break
        start = generator.choice(num_words, p=fits / fits.sum())
        length = np.searchsorted(up_to, generator.random() * fits[start], side="right")
        is_speech[start : start + min(length, room[start])] = True
    return is_speech


def interleave_words(
    words: Sequence[Mapping[str, Any]],
    is_speech: Sequence[bool],
    units: Sequence[int],
    durations: Sequence[int],
    seconds_per_frame: float,
) -> list[str | Sequence[int]]:
    r"""
    Put the words of an utterance together as spans of text and of speech.

    Args:
        words (sequence of `Mapping`):
            The words as they are written, with the space before them, and their times in seconds: `word`,
            `start_time` and `end_time`.
        is_speech (sequence of `bool`):
            Which of them are speech.
        units, durations (sequence of `int`):
            The units of the whole utterance, deduplicated, and their durations in frames.
        seconds_per_frame (`float`):
            Duration of a frame.

    Returns:
        `list`: text (`str`) and units (a part of `units`) in turn. The units of a span are those that end between the
        beginning of its first word and the end of its last one.
    """
    ends = np.cumsum(durations) * seconds_per_frame
    spans: list[str | Sequence[int]] = []
    for speech, run in groupby(zip(words, is_speech, strict=True), key=lambda pair: bool(pair[1])):
        run = [word for word, _ in run]
        if speech:
            first, last = bisect_left(ends, run[0]["start_time"]), bisect_right(ends, run[-1]["end_time"])
            spans.append(units[first:last])
        else:
            spans.append("".join(word["word"] for word in run))
    return spans


def interleaved_string(spans: Sequence[str | Sequence[int]], tokenizer: SpeechTextTokenizer) -> str:
    """Spans as text, each after the token of its modality: `<text>She put<speech><Un3><Un49><text> back.`"""
    return "".join(
        f"{tokenizer.text_token}{span}"
        if isinstance(span, str)
        else f"{tokenizer.speech_token}{tokenizer.unit_string(span)}"
        for span in spans
    )


def find_problem(words: Sequence[Mapping[str, Any]] | None, seconds: float) -> str | None:
    """Why an utterance of so many seconds cannot be interleaved by the times of its words, or `None`."""
    if not words:
        return "no times of words"
    if any(word["word"] is None or not word["word"].strip() for word in words):
        return "an empty word"
    times = np.array([[word["start_time"], word["end_time"]] for word in words], dtype=float)
    if not np.isfinite(times).all():
        return "a word without times"
    if (np.diff(times.flatten()) < -TOLERANCE).any():
        return "words that overlap or run backwards"
    if times[0, 0] < -TOLERANCE or times[-1, 1] > seconds + TOLERANCE:
        return "times beyond the audio"
    return None
