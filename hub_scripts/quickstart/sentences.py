"""English sentences that Debian carries: the examples in WordNet, and the King James Bible."""

import random
import re
import subprocess
from pathlib import Path


WORDNET = Path("/usr/share/wordnet")
"""Where Debian's `wordnet-base` (3.0) keeps the database."""

NUM_HELD_OUT = 80
"""Sentences of WordNet that every voice reads and no training sees."""

_PLAIN = re.compile(r"[A-Za-z' ,.?!;\-]+")


def wordnet_sentences() -> list[str]:
    """Example sentences of 6 to 24 words, each once, in a fixed random order."""
    sentences = set()
    for part_of_speech in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part_of_speech}").read_text(encoding="latin1").splitlines():
            for example in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                example = re.sub(r"\s+", " ", example).strip(" ;:,-")
                if _PLAIN.fullmatch(example) and 6 <= len(example.split()) <= 24:
                    sentences.add(_as_sentence(example))
    return _shuffled(sentences)


def bible_sentences() -> list[str]:
    """Clauses of 6 to 24 words of the King James Bible, each once, in a fixed random order."""
    verses = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True).stdout
    clauses = set()
    for verse in verses.splitlines():
        text = re.sub(r"^\S+ ", "", verse)
        for clause in re.split(r"(?<=[.;:?!]) ", text):
            clause = clause.strip(" ;:,-").replace("[", "").replace("]", "")
            if _PLAIN.fullmatch(clause) and 6 <= len(clause.split()) <= 24:
                clauses.add(_as_sentence(clause))
    return _shuffled(clauses)


def split_held_out(sentences: list[str], count: int) -> tuple[list[str], list[str]]:
    """The first `count` sentences of 8 to 16 words, which nothing may be trained on, and the others."""
    held_out = [sentence for sentence in sentences if 8 <= len(sentence.split()) <= 16][:count]
    excluded = set(held_out)
    return held_out, [sentence for sentence in sentences if sentence not in excluded]


def normalize(text: str) -> str:
    """Lower-case words separated by single spaces, without punctuation."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def _as_sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _shuffled(sentences: set[str]) -> list[str]:
    ordered = sorted(sentences)
    random.Random(0).shuffle(ordered)
    return ordered
