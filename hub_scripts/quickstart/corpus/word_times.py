"""Gives the words of the corpus their times, and measures how good these are."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from slam_hf.corpora.word_times import UnalignableError

from .aligner import Aligner
from .tokenized import PAUSE_SECONDS


PAUSES = frozenset('^$,.;:!?—…"()“” ')
"""Phones of hibari that are not spoken."""

SOUND_LEVEL = 0.01
"""Where the level of a sentence, whose peak is 1, first rises to this, it begins to sound."""

TimedSentence = Callable[[str], list[tuple[str, float]]]


def align_rows(aligner: Aligner, rows: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows of a tokenised corpus with times of their words, and how many got none, by reason."""
    aligned, failures = [], Counter()
    for row in rows:
        words = None
        try:
            words = aligner.align(row["units"], row["durations"], row["text"])
        except UnalignableError as error:
            failures[str(error.reason)] += 1
        aligned.append({**row, "aligned_text": words})
    return aligned, failures


def word_errors(
    rows: Iterable[dict[str, Any]], documents: Iterable[Sequence[str]], time_phones: TimedSentence, lead: float
) -> dict[str, dict[str, float]]:
    r"""
    Compare the times of words with those of the voice.

    Args:
        rows (iterable of `dict`):
            Rows with times.
        documents (iterable of sequences of `str`):
            The sentences of each row.
        time_phones (`Callable[[str], list[tuple[str, float]]]`):
            Gives the voice's phones of a sentence, with their ends in seconds.
        lead (`float`):
            How much earlier than its phones a sentence sounds, in seconds.

    Returns:
        `dict`: what [`error_figures`] says of the starts of words and of their ends. The ends before pauses are left
        out: hibari counts a pause to the phone before it.
    """
    errors: dict[str, list[float]] = {"starts": [], "ends": []}
    for row, sentences in zip(rows, documents, strict=True):
        truth, offset = [], -lead
        for sentence in sentences:
            phones = time_phones(sentence)
            truth += [(start + offset, end + offset, pause) for start, end, pause in spoken_words(phones)]
            offset += phones[-1][1] + PAUSE_SECONDS
        words = row["aligned_text"] or []
        if len(words) != len(truth):  # the voice says a word as two
            continue
        errors["starts"] += [word["start_time"] - start for word, (start, _, _) in zip(words, truth, strict=True)]
        errors["ends"] += [
            word["end_time"] - end for word, (_, end, pause) in zip(words, truth, strict=True) if not pause
        ]
    return {name: error_figures(of_name) for name, of_name in errors.items()}


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
    """Figures of errors in seconds: their number, mean and median size and median in ms, and how many are small."""
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
    """How much earlier than their first phones sentences sound, in seconds: the median over sentences, each given as
    samples, their rate and the voice's phones."""
    leads = []
    for samples, sampling_rate, phones in speech:
        window = np.ones(sampling_rate // 100) / (sampling_rate // 100)
        level = np.sqrt(np.convolve(np.square(samples / np.abs(samples).max()), window, mode="same"))
        first_phone = spoken_words(phones)[0][0]
        leads.append(first_phone - float(np.argmax(level > SOUND_LEVEL)) / sampling_rate)
    return float(np.median(leads))
