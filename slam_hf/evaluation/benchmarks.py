r"""
Reads the layouts in which benchmarks are released: which utterances are pairs, and which of each is correct.

A reader takes the folder of a benchmark and the names of the utterances in it, and returns its pairs. It raises a
`FileNotFoundError` if something is missing, and a `ValueError` if a file or a name is not as expected or an item is
incomplete.
"""

import csv
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pair:
    """
    Two utterances by their paths in the benchmark's folder, without extension, and what the benchmark says about them,
    such as their `type` and `voice`. A good model finds the first more likely. If there is a `prompt`, the two are its
    endings.
    """

    correct: str
    incorrect: str
    labels: dict[str, Any]
    prompt: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """`tuple[str, ...]`: The prompt, if there is one, and the two."""
        return self.sides if self.prompt is None else (self.prompt, *self.sides)

    @property
    def sides(self) -> tuple[str, str]:
        """`tuple[str, str]`: The correct utterance and the incorrect one."""
        return self.correct, self.incorrect


def read_sblimp(folder: str | os.PathLike, names: Collection[str]) -> list[Pair]:
    r"""
    Read sBLIMP: `syntactic/dev` or `syntactic/test` of ZeroSpeech 2021 (arXiv 2011.11588), whose `gold.csv` has the
    columns `filename`, `id`, `voice`, `type`, `subtype` and `correct`. The pairs are in the order of their labels:
    type, subtype, id and voice.

    If a voice reads an item several times, its first correct reading is paired with its first incorrect one, and so
    on, as in the official evaluation.
    """
    return _read_gold(folder, names, item=("type", "subtype", "id", "voice"))


def read_swuggy(folder: str | os.PathLike, names: Collection[str]) -> list[Pair]:
    r"""
    Read sWUGGY: `lexical/dev` or `lexical/test` of ZeroSpeech 2021 (arXiv 2011.11588), whose `gold.csv` has the
    columns `filename`, `id`, `voice`, `frequency` and `correct`. The pairs are in the order of id and voice, which are
    their labels, with the `frequency` of the word (`int`, or `None` if the file gives none).
    """
    return _read_gold(folder, names, item=("id", "voice"), frequency=_count)


def read_storycloze(folder: str | os.PathLike, names: Collection[str]) -> list[Pair]:
    r"""
    Read sStoryCloze or tStoryCloze, possibly in subfolders. The pairs are in the order of their numbers. There are two
    layouts: that of TWIST (arXiv 2305.13009), with the whole stories `{n}_correct` and `{n}_incorrect`, and the
    cross-modal one of SIMS (arXiv 2504.02398), where these are endings, and `{n}_mutual` is the story before them.
    """
    has_prompts = any(name.endswith("_mutual") for name in names)
    pairs = _pair_by_name(
        folder, names, r"(?P<part>(?:.*/)?){n}_{side}", ("correct", "incorrect"), "mutual" if has_prompts else None
    )
    return [replace(pair, labels={}) for pair in pairs]


def read_salmon(folder: str | os.PathLike, names: Collection[str]) -> list[Pair]:
    r"""
    Read SALMon (arXiv 2409.07437), whose folders of parts hold `sample_{n}_0.wav`, which is correct, and
    `sample_{n}_1.wav`. The pairs are in the order of part, which is their label, and number.
    """
    return _pair_by_name(folder, names, r"(?P<part>[^/]+)/sample_{n}_{side}", sides=("0", "1"))


def _read_gold(
    folder: str | os.PathLike,
    names: Collection[str],
    item: Sequence[str],
    **more: Callable[[str], Any],
) -> list[Pair]:
    """The pairs of `gold.csv`. `item` are the columns that name an item, `more` others and what parses them."""
    parsers = {"filename": _not_empty, "correct": _flag, **dict.fromkeys(item, _not_empty), **more}
    path = Path(folder) / "gold.csv"
    sides = defaultdict(lambda: ([], []))
    for row in _read_rows(path, parsers):
        sides[tuple(row[column] for column in item)][row["correct"]].append(row)
    _check_complete(path, (("/".join(key), len(wrong) == len(right)) for key, (wrong, right) in sides.items()))
    pairs = [
        Pair(*(row["filename"].removesuffix(".wav") for row in pair), {name: pair[0][name] for name in (*item, *more)})
        for _, (wrongs, rights) in sorted(sides.items())
        for pair in zip(rights, wrongs, strict=True)
    ]
    absent = sorted({name for pair in pairs for name in pair.names} - set(names))
    if absent:
        raise FileNotFoundError(f"'{folder}': {len(absent)} utterances of gold.csv are missing: {_some(absent)}.")
    return pairs


def _read_rows(path: Path, parsers: Mapping[str, Callable[[str], Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file: the columns that have parsers, without empty lines."""
    if not path.is_file():
        raise FileNotFoundError(f"'{path}': no such file. Pass the folder of one split, with its gold.csv.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = sorted(parsers.keys() - set(reader.fieldnames))
            if missing:
                raise ValueError(f"there is no column {_some(missing)}")
            for row in reader:
                if any(value for value in row.values()):
                    yield {column: parse((row[column] or "").strip()) for column, parse in parsers.items()}
        except (csv.Error, ValueError) as error:
            raise ValueError(f"'{path}': {error} (line {reader.line_num}).") from error


def _pair_by_name(
    folder: str | os.PathLike, names: Collection[str], layout: str, sides: tuple[str, str], prompt: str | None = None
) -> list[Pair]:
    """Pairs labelled with the part of the benchmark that each is from. The first of `sides` is the correct one."""
    members = sides if prompt is None else (*sides, prompt)
    pattern = re.compile(layout.replace("{n}", r"(?P<number>\d+)").replace("{side}", f"(?P<side>{'|'.join(members)})"))
    matches = {name: pattern.fullmatch(name) for name in names}
    strays = sorted(name for name, match in matches.items() if match is None)
    if strays or not names:
        found = f"{len(strays)} are named otherwise: {_some(strays)}" if strays else "there are none"
        described = " and ".join(f"'{{n}}_{side}'" for side in members)
        raise ValueError(f"'{folder}': expected utterances whose names end in {described}; {found}.")
    items: dict[tuple[str, int, str], dict[str, str]] = defaultdict(dict)
    for name, match in matches.items():
        items[match["part"], int(match["number"]), match["number"]][match["side"]] = name
    complete = ((min(item.values()), len(item) == len(members)) for item in items.values())
    _check_complete(folder, complete, with_prompt=prompt is not None)
    return [
        Pair(*(item[side] for side in sides), {"part": part}, item.get(prompt))
        for (part, *_), item in sorted(items.items())
    ]


def _check_complete(source: str | os.PathLike, items: Iterable[tuple[str, bool]], with_prompt: bool = False) -> None:
    incomplete = sorted(name for name, is_complete in items if not is_complete)
    if incomplete:
        raise ValueError(
            f"'{source}': {len(incomplete)} items are not a pair of a correct and an incorrect utterance"
            f"{' with a prompt' if with_prompt else ''}: "
            f"{_some(incomplete)}. A benchmark is scored whole or not at all: get the rest of it."
        )


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("a value is missing")
    return value


def _flag(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"the column 'correct' must be 0 or 1, got {value!r}")
    return value == "1"


def _count(value: str) -> int | None:
    if not value:
        return None
    if not math.isfinite(float(value)):
        raise ValueError(f"{value!r} is not a number of words")
    return int(float(value))


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
