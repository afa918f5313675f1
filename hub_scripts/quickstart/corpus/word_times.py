"""Adds times to the words of the corpus, and measures their errors."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from slam_hf.corpora.alignment.word_times import UnalignableError

from .aligner import Aligner
from .tokenized import PAUSE_SECONDS


PAUSES = frozenset('^$,.;:!?—…"()“” ')
"""Phones of hibari that are not spoken."""

SOUND_LEVEL = 0.01
"""A sentence begins to sound where its level, relative to its peak, first rises above this."""

TimedSentence = Callable[[str], list[tuple[str, float]]]

WordBounds = tuple[float | None, float | None]
"""When a word starts and ends according to the voice, in seconds; `None` where that is not known."""


def align_rows(aligner: Aligner, rows: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows of a tokenised corpus with the times of their words, and how many rows got none, by reason."""
    aligned, failures = [], Counter()
    for row in rows:
        words = None
        try:
            words = aligner.align(row["units"], row["durations"], row["text"])
        except UnalignableError as error:
            failures[str(error.reason)] += 1
        aligned.append({**row, "aligned_text": words})
    return aligned, failures


def word_errors(rows: Iterable[dict[str, Any]], truths: Iterable[Sequence[WordBounds]]) -> dict[str, dict[str, float]]:
    """The [`error_figures`] of the starts and of the ends of words, compared with those of the voice."""
    errors: dict[str, list[float]] = {"starts": [], "ends": []}
    for row, truth in zip(rows, truths, strict=True):
        words = row["aligned_text"] or []
        if len(words) != len(truth):  # the voice says a word as two
            continue
        for word, (start, end) in zip(words, truth, strict=True):
            errors["starts"] += [word["start_time"] - start] if start is not None else []
            errors["ends"] += [word["end_time"] - end] if end is not None else []
    return {name: error_figures(of_name) for name, of_name in errors.items()}


def hibari_bounds(sentences: Sequence[str], time_phones: TimedSentence, lead: float) -> list[WordBounds]:
    """Bounds of the words of a document that hibari reads. Ends before pauses are left out: hibari counts a pause to
    the phone before it. A sentence begins to sound `lead` seconds before its first phone."""
    bounds: list[WordBounds] = []
    offset = -lead
    for sentence in sentences:
        phones = time_phones(sentence)
        words = spoken_words(phones)
        bounds += [(start + offset, None if pause else end + offset) for start, end, pause in words]
        offset += phones[-1][1] + PAUSE_SECONDS
    return bounds


def flite_bounds(
    sentence: str, phones: Sequence[tuple[str, float]], pronounce: Callable[[str], list[str]]
) -> list[WordBounds]:
    r"""
    Bounds of the words of a sentence that flite reads, which gives phones without saying of which words.

    Args:
        sentence (`str`):
            What it reads.
        phones (sequence of `(str, float)` pairs):
            Its phones, with their ends in seconds.
        pronounce (`Callable[[str], list[str]]`):
            Gives the phones of a word alone. Where its first or last phone differs in the sentence, the start or the
            end of the word is left out.
    """
    names, edges = [name for name, _ in phones], [0.0, *(end for _, end in phones)]
    words = [pronounce(word) for word in sentence.split()]
    matcher = SequenceMatcher(None, [name for word in words for name in word], names, autojunk=False)
    position = {a + k: b + k for a, b, size in matcher.get_matching_blocks() for k in range(size)}
    bounds: list[WordBounds] = []
    first = 0
    for word in words:
        start, end = position.get(first), position.get(first + len(word) - 1)
        bounds.append((None if start is None else edges[start], None if end is None else edges[end + 1]))
        first += len(word)
    return bounds


def spoken_words(phones: Sequence[tuple[str, float]]) -> list[tuple[float, float, bool]]:
    """Start and end of each word of a sentence in seconds, and whether a pause follows it."""
    words: list[tuple[float, float, bool]] = []
    start = None
    earlier = 0.0
    for phone, end in phones:
        if phone not in PAUSES:
            start = earlier if start is None else start
        elif start is not None:
            words.append((start, earlier, phone != " "))
            start = None
        earlier = end
    return words


def error_figures(errors: Sequence[float]) -> dict[str, float]:
    """Figures of errors in seconds: their number, the mean and median of their sizes and their median in ms, and the
    shares of small ones."""
    milliseconds = 1000 * np.array(errors)
    sizes = np.abs(milliseconds)
    return {
        "words": len(errors),
        "mean_ms": float(sizes.mean()),
        "median_ms": float(np.median(sizes)),
        "bias_ms": float(np.median(milliseconds)),
        "within_50_ms": float(np.mean(sizes <= 50.001)),
        "within_100_ms": float(np.mean(sizes <= 100.001)),
    }


def sound_lead(speech: Iterable[tuple[np.ndarray, int, list[tuple[str, float]]]]) -> float:
    """How many seconds before its first phone a sentence begins to sound: the median over sentences, each given as
    samples, sampling rate and the voice's phones."""
    leads = []
    for samples, sampling_rate, phones in speech:
        window = np.ones(sampling_rate // 100) / (sampling_rate // 100)
        level = np.sqrt(np.convolve(np.square(samples / np.abs(samples).max()), window, mode="same"))
        first_phone = spoken_words(phones)[0][0]
        leads.append(first_phone - float(np.argmax(level > SOUND_LEVEL)) / sampling_rate)
    return float(np.median(leads))
