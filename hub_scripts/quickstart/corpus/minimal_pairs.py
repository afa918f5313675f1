"""Pairs of sentences that differ in one grammatical feature, in the manner of sBLIMP."""

import random
from collections.abc import Callable
from typing import NamedTuple

from ..sentences import normalize


NOUNS = [
    "boy",
    "girl",
    "teacher",
    "doctor",
    "farmer",
    "king",
    "friend",
    "brother",
    "sister",
    "student",
    "guest",
    "driver",
    "singer",
    "neighbour",
    "cat",
    "horse",
    "bird",
    "soldier",
    "painter",
    "dancer",
]
PLACES = [
    "in the garden",
    "at the station",
    "near the river",
    "by the window",
    "on the bridge",
    "behind the house",
    "at the table",
    "under the tree",
]
THINGS = [
    "book",
    "letter",
    "chair",
    "picture",
    "apple",
    "flower",
    "cup",
    "ticket",
    "window",
    "key",
    "garden",
    "song",
    "coat",
    "box",
    "stone",
    "road",
    "bottle",
    "lamp",
]
MEN = ["the king", "the boy", "the father", "my brother", "his uncle", "that man", "Tom", "Peter", "Henry", "Daniel"]
WOMEN = [
    "the queen",
    "the girl",
    "the mother",
    "my sister",
    "her aunt",
    "that woman",
    "Mary",
    "Anna",
    "Helen",
    "Alice",
]
STATES = ["hungry", "tired", "happy", "very old", "ready to leave", "quite strong", "late again", "rather quiet"]
ACTIONS = ["sing", "sleep", "wait", "work", "laugh", "smile", "dance", "run"]
IRREGULAR = (
    ("wrote", "written", "letter"),
    ("broke", "broken", "cup"),
    ("took", "taken", "key"),
    ("ate", "eaten", "apple"),
    ("gave", "given", "answer"),
    ("saw", "seen", "picture"),
    ("drove", "driven", "car"),
    ("chose", "chosen", "colour"),
    ("stole", "stolen", "money"),
    ("forgot", "forgotten", "name"),
    ("wore", "worn", "coat"),
    ("began", "begun", "work"),
)
REFLEXIVE = ["hurt", "saw", "helped", "washed", "blamed", "praised", "warned", "taught", "admired", "described"]
INTRANSITIVE = ["slept", "smiled", "arrived", "fell", "laughed", "vanished", "coughed", "cried"]
TRANSITIVE = ["found", "bought", "opened", "lost", "carried", "cleaned", "sold", "painted"]


class MinimalPair(NamedTuple):
    """A phenomenon, its subtype, and the sentence that is grammatical and the one that is not."""

    type: str
    subtype: str
    good: str
    bad: str


def generate_pairs(per_phenomenon: int, excluded: set[str], seed: int = 0) -> list[MinimalPair]:
    r"""
    Draw different pairs of each phenomenon.

    Args:
        per_phenomenon (`int`):
            How many pairs of each.
        excluded (`set[str]`):
            Normalised sentences that may not occur, such as those of the training text.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.

    Returns:
        `list[MinimalPair]`: the pairs, phenomenon by phenomenon.

    Raises:
        ValueError: a phenomenon has too few pairs.
    """
    pairs: list[MinimalPair] = []
    for make in PHENOMENA:
        rng = random.Random(f"{seed} {make.__name__}")
        drawn = {pair.good: pair for pair in (make(rng) for _ in range(20 * per_phenomenon))}
        allowed = [pair for pair in drawn.values() if excluded.isdisjoint(map(normalize, (pair.good, pair.bad)))]
        if len(allowed) < per_phenomenon:
            raise ValueError(f"{make.__name__} has no {per_phenomenon} different pairs outside the excluded text.")
        pairs += allowed[:per_phenomenon]
    return pairs


def _subject_verb_agreement(rng: random.Random) -> MinimalPair:
    noun, state, place = rng.choice(NOUNS), rng.choice(STATES), rng.choice(PLACES)
    (subject, good), (_, bad) = rng.sample(((noun, "is"), (f"{noun}s", "are")), 2)
    return _pair("subject_verb_agreement", "be", f"The {subject} {{}} {state} {place}.", good, bad)


def _attractor_agreement(rng: random.Random) -> MinimalPair:
    noun, other = rng.sample(NOUNS, 2)
    verb = rng.choice(ACTIONS)
    good, bad = rng.sample((verb, f"{verb}s"), 2)
    subject, attractor = (f"{noun}s", other) if good == verb else (noun, f"{other}s")
    sentence = f"The {subject} near the {attractor} {{}} every day."
    return _pair("subject_verb_agreement_attractor", "prepositional_phrase", sentence, good, bad)


def _determiner_agreement(rng: random.Random) -> MinimalPair:
    name, thing, verb = _person(rng), rng.choice(THINGS), rng.choice(TRANSITIVE)
    singular, plural = rng.choice((("this", "these"), ("that", "those")))
    (good, noun), (bad, _) = rng.sample(((singular, thing), (plural, _plural(thing))), 2)
    return _pair("determiner_noun_agreement", singular, f"{name} {verb} {{}} {noun}.", good, bad)


def _anaphor_agreement(rng: random.Random) -> MinimalPair:
    (people, good), (_, bad) = rng.sample(((MEN, "himself"), (WOMEN, "herself")), 2)
    sentence = f"{_capital(rng.choice(people))} {rng.choice(REFLEXIVE)} {{}} {rng.choice(PLACES)}."
    return _pair("anaphor_agreement", "gender", sentence, good, bad)


def _irregular_forms(rng: random.Random) -> MinimalPair:
    past, participle, thing = rng.choice(IRREGULAR)
    name = _person(rng)
    if rng.random() < 0.5:
        return _pair("irregular_forms", "past", f"{name} {{}} the {thing}.", past, participle)
    return _pair("irregular_forms", "participle", f"{name} has {{}} the {thing}.", participle, past)


def _argument_structure(rng: random.Random) -> MinimalPair:
    name, transitive, intransitive = _person(rng), rng.choice(TRANSITIVE), rng.choice(INTRANSITIVE)
    if rng.random() < 0.5:
        sentence = f"{name} {{}} the {rng.choice(THINGS)}."
        return _pair("argument_structure", "transitive", sentence, transitive, intransitive)
    sentence = f"{name} {{}} {rng.choice(PLACES)}."
    return _pair("argument_structure", "intransitive", sentence, intransitive, transitive)


def _word_order(rng: random.Random) -> MinimalPair:
    noun, thing, verb = rng.choice(NOUNS), rng.choice(THINGS), rng.choice(TRANSITIVE)
    good, bad = f"The {noun} {verb} the {thing}", f"{_capital(noun)} the {verb} {thing} the"
    return _pair("word_order", "determiner_noun", "{}.", good, bad)


PHENOMENA: tuple[Callable[[random.Random], MinimalPair], ...] = (
    _subject_verb_agreement,
    _attractor_agreement,
    _determiner_agreement,
    _anaphor_agreement,
    _irregular_forms,
    _argument_structure,
    _word_order,
)
"""Each makes pairs in which either word is as often the right one, so that no word gives the answer away."""


def _pair(type: str, subtype: str, sentence: str, good: str, bad: str) -> MinimalPair:
    return MinimalPair(type, subtype, sentence.format(good), sentence.format(bad))


def _person(rng: random.Random) -> str:
    return _capital(rng.choice(MEN + WOMEN))


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("x") else "s")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
