"""The miniature benchmarks in the layouts of sBLIMP and StoryCloze, and the preference pairs, as units."""

import csv
from collections.abc import Mapping
from pathlib import Path

from datasets import Features

from slam_hf.corpora.preference_pairs import make_pair
from slam_hf.corpora.schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES

from .minimal_pairs import MinimalPair
from .texts import Cloze
from .tokenized import Reader, write_rows


GOLD_COLUMNS = ("filename", "id", "voice", "type", "subtype", "transcription", "correct")

UTTERANCE = Features({name: UNIT_CORPUS_FEATURES[name] for name in ("id", "units")})
TRANSCRIBED = Features({name: UNIT_CORPUS_FEATURES[name] for name in ("id", "units", "text")})


def write_sblimp(folder: Path, pairs: list[MinimalPair], readers: Mapping[str, Reader]) -> int:
    r"""
    Write minimal pairs as `syntactic` of ZeroSpeech 2021 has them: a `gold.csv`, and the utterances that it names, as
    units.

    Args:
        folder (`Path`):
            Where to write.
        pairs (`list[MinimalPair]`):
            The pairs. A pair is an item of the benchmark.
        readers (`Mapping[str, Reader]`):
            The voices that read them, by name.

    Returns:
        `int`: pairs, each voice counted.
    """
    gold, rows = [], []
    for voice, reader in readers.items():
        for id, pair in enumerate(pairs):
            for correct, text in ((1, pair.good), (0, pair.bad)):
                filename = f"{voice}-{id:04d}-{correct}"
                gold.append((filename, id, voice, pair.type, pair.subtype, text, correct))
                rows.append(reader.row(filename, [text]))
    write_rows(folder / "units.parquet", rows, UTTERANCE)
    with open(folder / "gold.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(GOLD_COLUMNS)
        writer.writerows(gold)
    return len(gold) // 2


def write_storycloze(folder: Path, clozes: list[Cloze], reader: Reader) -> int:
    r"""
    Write `sstorycloze` (the wrong ending contradicts the story) and `tstorycloze` (it is of another story) in the
    cross-modal layout of SIMS: the story `{n}_mutual` and its endings `{n}_correct` and `{n}_incorrect`, each as units
    and as text.

    Args:
        folder (`Path`):
            Where to write the two folders.
        clozes (`list[Cloze]`):
            The stories.
        reader (`Reader`):
            Who reads them, each part by itself.

    Returns:
        `int`: pairs of each benchmark.
    """
    spoken, topic = [], []
    for number, (story, foreign_ending) in enumerate(clozes, start=1):
        context = reader.row(f"{number}_mutual", story.context, pause_after=True)
        correct, wrong, foreign = (
            reader.row(f"{number}_{name}", [ending])
            for name, ending in (
                ("correct", story.ending),
                ("incorrect", story.wrong_ending),
                ("incorrect", foreign_ending),
            )
        )
        spoken += [context, correct, wrong]
        topic += [context, correct, foreign]
    write_rows(folder / "sstorycloze" / "units.parquet", spoken, TRANSCRIBED)
    write_rows(folder / "tstorycloze" / "units.parquet", topic, TRANSCRIBED)
    return len(clozes)


def write_preferences(folder: Path, clozes: list[Cloze], reader: Reader) -> dict[str, int]:
    r"""
    Write preference pairs as SpokenSwag has them: the beginning of a story, its ending, and a worse one, which by
    turns contradicts the story and is of another. One in ten is in the validation split.

    Args:
        folder (`Path`):
            Where to write `train.parquet` and `validation.parquet`.
        clozes (`list[Cloze]`):
            The stories.
        reader (`Reader`):
            Who reads them, each part by itself.

    Returns:
        `dict`: pairs of each split.
    """
    pairs = [
        make_pair(
            f"preferences/{number:05d}",
            prompt=reader.row("", story.context),
            chosen=reader.row("", [story.ending]),
            rejected=reader.row("", [story.wrong_ending if number % 2 else foreign_ending]),
        )
        for number, (story, foreign_ending) in enumerate(clozes)
    ]
    num_held_out = len(pairs) // 10
    splits = {"train": pairs[num_held_out:], "validation": pairs[:num_held_out]}
    for split, part in splits.items():
        write_rows(folder / f"{split}.parquet", part, PREFERENCE_FEATURES)
    return {split: len(part) for split, part in splits.items()}
