"""Short stories from the grammar in `stories.yaml`: five sentences each, with an outcome that decides the last."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml


Split = Literal["train", "validation", "benchmark"]

GRAMMAR = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

PRONOUNS = {"he": ("his", "him"), "she": ("her", "her")}

HEROES = [(name, pronoun) for pronoun, names in GRAMMAR["heroes"].items() for name in names]
"""Names of heroes, each with its pronoun."""

SCENARIOS = GRAMMAR["scenarios"]
"""What stories are about: sentences of an `opening` and an `event`, and for the outcomes `good` and `bad` those of a
`turn`, a `result` and an `ending`."""


@dataclass(frozen=True)
class Story:
    r"""
    A story.

    Args:
        scenario (`int`):
            What it is about.
        context (`tuple[str, ...]`):
            The four sentences before the ending.
        ending (`str`):
            The last sentence.
        wrong_ending (`str`):
            A last sentence of the same hero and scenario that contradicts the context: of the other outcome.
    """

    scenario: int
    context: tuple[str, ...]
    ending: str
    wrong_ending: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """`tuple[str, ...]`: All five."""
        return (*self.context, self.ending)


def split_of(scenario: int, hero: int) -> Split:
    r"""
    Where the stories of a hero in a scenario belong: a twelfth of all such pairs to the benchmarks, another to the
    validation split. As every sentence of a scenario names the hero, no sentence is in two splits.
    """
    return {0: "benchmark", 1: "validation"}.get((5 * scenario + hero) % 12, "train")


def generate_stories(count: int, split: Split, seed: int) -> list[Story]:
    r"""
    Draw different stories, whose outcomes alternate.

    Args:
        count (`int`):
            How many.
        split (`"train"`, `"validation"` or `"benchmark"`):
            Which heroes in which scenarios to draw from.
        seed (`int`):
            Seed of the draws.

    Returns:
        `list[Story]`
    """
    rng = random.Random(seed)
    pairs = [
        (scenario, hero)
        for scenario in range(len(SCENARIOS))
        for hero in range(len(HEROES))
        if split_of(scenario, hero) == split
    ]
    stories: dict[tuple[str, ...], Story] = {}
    while len(stories) < count:
        outcomes = ("good", "bad") if len(stories) % 2 == 0 else ("bad", "good")
        story = _tell(*rng.choice(pairs), *outcomes, rng)
        stories.setdefault(story.sentences, story)
    return list(stories.values())


def _tell(scenario: int, hero: int, outcome: str, other_outcome: str, rng: random.Random) -> Story:
    plot, slots = SCENARIOS[scenario], _fillers(hero, rng)
    steps = [plot["opening"], plot["event"], *plot[outcome].values(), plot[other_outcome]["ending"]]
    *context, ending, wrong_ending = (rng.choice(sentences).format(**slots) for sentences in steps)
    return Story(scenario, tuple(context), ending, wrong_ending)


def _fillers(hero: int, rng: random.Random) -> dict[str, Any]:
    name, pronoun = HEROES[hero]
    his, him = PRONOUNS[pronoun]
    chosen = {slot: rng.choice(words) for slot, words in GRAMMAR["slots"].items()}
    return {"name": name, "he": pronoun, "his": his, "him": him, **chosen}
