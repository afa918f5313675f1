"""Fills the speech banks: what each voice says, and which sentences are held out."""

import random
from collections.abc import Iterator
from pathlib import Path

from .. import sentences
from ..speech_bank import Utterance, write_bank
from ..voices import VOICES, Voice
from . import game_dialogue, kokoro, recordings


RATES = (0.85, 0.92, 1.0, 1.0, 1.08, 1.15)

EVALUATED_VOICES = ("hibari", "piper-joe", "flite-awb", "flite-slt", "flite-rms")
"""Voices that read the held-out sentences."""

GAMES = {"amazon-queen": game_dialogue.amazon_queen, "steel-sky": game_dialogue.steel_sky}

TRAINING_HOURS = {
    "hibari": 0.6,
    "hibari-varied": 1.0,
    "flite-awb": 0.5,
    "flite-kal16": 0.3,
    "piper-joe": 0.4,
    kokoro.ENGLISH: 0.5,
    kokoro.ACCENTED: 0.5,
    "amazon-queen": 5.0,
    "steel-sky": 2.0,
} | dict.fromkeys(recordings.PROMPT_SPEAKERS, 0.25)
"""Hours of each bank that the teacher and the student hear, or all of it if it is shorter."""

TRAINING_SHARES = {
    "hibari": 8,
    "hibari-varied": 9,
    "flite-awb": 7,
    "flite-kal16": 5,
    "piper-joe": 7,
    kokoro.ENGLISH: 20,
    kokoro.ACCENTED: 12,
    "amazon-queen": 16,
    "steel-sky": 10,
    "en_US_f_Allison": 2,
} | dict.fromkeys(recordings.FOREIGN_SPEAKERS, 1)
"""Percentage of the student's training speech: many voices before many hours, clear speech before old games."""

UNSEEN_BANKS = (*(name for name, (_, hours) in VOICES.items() if not hours), "audiobooks")

BANKS = (*TRAINING_HOURS, *UNSEEN_BANKS)


def fill_bank(folder: Path, name: str, librispeech: Path) -> None:
    """Write the bank of a voice, unless it is there."""
    if (folder / f"{name}.jsonl").exists():
        return
    if name in VOICES:
        make_voice, hours = VOICES[name]
        write_bank(folder, name, _readings(name, make_voice(), for_training=hours > 0), hours or float("inf"))
    elif name in (kokoro.ENGLISH, kokoro.ACCENTED):
        voice = kokoro.kokoro_voice(name, folder)
        write_bank(folder, name, _readings(name, voice, for_training=True), TRAINING_HOURS[name])
    elif name in GAMES:
        write_bank(folder, name, GAMES[name]())
    elif name == "audiobooks":
        write_bank(folder, name, recordings.audiobook_clips(librispeech))
    else:
        write_bank(folder, name, recordings.telephone_prompts(name), TRAINING_HOURS[name])


def _readings(name: str, voice: Voice, for_training: bool) -> Iterator[Utterance]:
    held_out, training = sentences.split_held_out(sentences.wordnet_sentences(), sentences.NUM_HELD_OUT)
    for sentence in held_out if name in EVALUATED_VOICES else ():
        speech = voice(sentence, 1.0)
        yield Utterance(speech.samples, speech.sampling_rate, sentence, True, name, speech.phones)
    rng = random.Random(name)
    rng.shuffle(training)
    for sentence in training if for_training else ():
        speech = voice(sentence, rng.choice(RATES))
        yield Utterance(speech.samples, speech.sampling_rate, sentence, False, speech.speaker or name)
