"""Which texts the corpus, the preference pairs and the benchmarks are read from, so that none is in two of them."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .. import sentences as natural_sentences
from .minimal_pairs import MinimalPair, generate_pairs
from .stories import Story, generate_stories


NUM_SENTENCES = {"train": 7_000, "validation": 200}
NUM_STORIES = {"train": 3_600, "validation": 100}
NUM_PREFERENCES = 1_000
NUM_CLOZES = 600
PAIRS_PER_PHENOMENON = 40


class Cloze(NamedTuple):
    """A story, and the ending of a story about something else."""

    story: Story
    foreign_ending: str


@dataclass(frozen=True)
class Texts:
    r"""
    All texts of the build.

    Args:
        sentences (`dict[str, list[str]]`):
            Natural sentences of the splits `train` and `validation`.
        stories (`dict[str, list[Story]]`):
            Stories of these splits.
        preferences (`list[Cloze]`):
            What the preference pairs are made of.
        clozes (`list[Cloze]`):
            What the story cloze benchmarks are made of.
        pairs (`list[MinimalPair]`):
            The grammar benchmark.
    """

    sentences: dict[str, list[str]]
    stories: dict[str, list[Story]]
    preferences: list[Cloze]
    clozes: list[Cloze]
    pairs: list[MinimalPair]

    def check_no_overlap(self) -> dict[str, int]:
        r"""
        Check that no sentence is in two of training text (preference pairs too), validation text and benchmarks.

        Returns:
            `dict`: how many different sentences each has.

        Raises:
            ValueError: a sentence is in two of them.
        """
        sentences = {
            "training": training_sentences(self.sentences["train"], self.stories["train"], self.preferences),
            "validation": _normalized([*self.sentences["validation"], *_story_sentences(self.stories["validation"])]),
            "benchmark": _normalized([*_cloze_sentences(self.clozes), *(text for p in self.pairs for text in p[2:])]),
        }
        for first, second in (("training", "validation"), ("training", "benchmark"), ("validation", "benchmark")):
            shared = sentences[first] & sentences[second]
            if shared:
                raise ValueError(f"{len(shared)} {first} sentences are {second} sentences too: {min(shared)!r}, ...")
        return {f"{name}_sentences": len(of_split) for name, of_split in sentences.items()}


def read_texts() -> Texts:
    """Choose the texts of the build, with the natural sentences that Debian carries."""
    return choose_texts(natural_sentences.wordnet_sentences(), natural_sentences.bible_sentences())


def choose_texts(wordnet: list[str], bible: list[str]) -> Texts:
    r"""
    Choose the texts of the build.

    Args:
        wordnet, bible (`list[str]`):
            Natural sentences to choose from: two of WordNet to one of the Bible. The sentences of WordNet that the
            codec is evaluated on are left out.

    Returns:
        [`Texts`]
    """
    _, wordnet = natural_sentences.split_held_out(wordnet, natural_sentences.NUM_HELD_OUT)
    mixed = [text for three in zip(wordnet[::2], wordnet[1::2], bible, strict=False) for text in three]
    natural = list({natural_sentences.normalize(text): text for text in mixed}.values())
    num_held_out = NUM_SENTENCES["validation"]
    sentences = {
        "train": natural[num_held_out : num_held_out + NUM_SENTENCES["train"]],
        "validation": natural[:num_held_out],
    }
    stories = {split: generate_stories(count, split, seed=0) for split, count in NUM_STORIES.items()}
    preferences = _make_clozes(_other_stories(stories["train"], NUM_PREFERENCES))
    excluded = training_sentences(sentences["train"], stories["train"], preferences)
    return Texts(
        sentences=sentences,
        stories=stories,
        preferences=preferences,
        clozes=_make_clozes(generate_stories(NUM_CLOZES, "benchmark", seed=0)),
        pairs=generate_pairs(PAIRS_PER_PHENOMENON, excluded | _normalized(sentences["validation"])),
    )


def training_sentences(natural: list[str], stories: list[Story], preferences: list[Cloze]) -> set[str]:
    """All sentences that a model may train on, normalised."""
    return _normalized([*natural, *_story_sentences(stories), *_cloze_sentences(preferences)])


def _other_stories(stories: list[Story], count: int) -> list[Story]:
    seen = {story.sentences for story in stories}
    drawn = generate_stories(2 * count, "train", seed=1)
    return [story for story in drawn if story.sentences not in seen][:count]


def _make_clozes(stories: list[Story]) -> list[Cloze]:
    rng = random.Random(0)
    return [
        Cloze(story, rng.choice([other.ending for other in stories if other.scenario != story.scenario]))
        for story in stories
    ]


def _story_sentences(stories: list[Story]) -> list[str]:
    return [sentence for story in stories for sentence in story.sentences]


def _cloze_sentences(clozes: list[Cloze]) -> list[str]:
    wrong = [ending for story, foreign_ending in clozes for ending in (story.wrong_ending, foreign_ending)]
    return _story_sentences([cloze.story for cloze in clozes]) + wrong


def _normalized(sentences: Iterable[str]) -> set[str]:
    return {natural_sentences.normalize(sentence) for sentence in sentences}
