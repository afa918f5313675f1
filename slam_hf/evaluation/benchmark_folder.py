"""Reads the folder of a benchmark of pairs: which utterances are pairs, and their units and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..fingerprints import hash_rows
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..tokenization_hubert_unit import UnitTokenizer
from .arguments import EvaluationArguments
from .benchmarks import Pair
from .tasks import TASKS, Modality, Task, pair_tasks
from .units import (
    Utterances,
    encode_files,
    encode_stories,
    join_units,
    list_audio,
    read_texts,
    read_tokenized,
)


@dataclass(frozen=True)
class BenchmarkFolder:
    """
    The pairs of a benchmark and, by name, the modality of each utterance, its audio file and its text, and what is
    wrong with texts that cannot be read. A tokenised benchmark has `utterances` in place of audio files.
    """

    pairs: list[Pair]
    modalities: dict[str, Modality]
    utterances: Utterances | None
    files: dict[str, Path]
    texts: Mapping[str, str]
    bad_texts: Mapping[str, str]

    @property
    def needs_codec(self) -> bool:
        """`bool`: Whether there is audio to encode."""
        return self.utterances is None and "speech" in self.modalities.values()

    def names(self, modality: Modality) -> list[str]:
        """`list[str]`: The utterances that are speech, or text."""
        return [name for name, other in self.modalities.items() if other == modality]


def read_benchmark(task: str, data: str) -> BenchmarkFolder:
    """
    Read the folder of a benchmark, without decoding audio.

    Raises:
        FileNotFoundError: the folder is missing, or an utterance in the modality that the task needs.
        ValueError: the task is not one of pairs, or the folder is not in its layout or damaged.
    """
    if task not in pair_tasks():
        raise ValueError(f"A benchmark of pairs can be {', '.join(pair_tasks())}, and '{task}' is none of them.")
    if not Path(data).is_dir():
        raise FileNotFoundError(f"The folder '{data}' of the benchmark {task} is not there.")
    needs_text = not TASKS[task].is_speech
    utterances, files, bad_texts = read_tokenized(data), {}, {}
    if utterances is not None:
        spoken, texts = utterances.hashes.keys(), utterances.texts
        names = spoken
    else:
        files = list_audio(data)
        texts, bad_texts = read_texts(data) if needs_text else ({}, {})
        spoken, names = files.keys(), files.keys() | texts.keys()
    pairs = TASKS[task].read_pairs(data, names)
    if needs_text and any(pair.prompt is None for pair in pairs):
        raise ValueError(
            f"'{data}' holds whole stories, but {task} needs parts of stories, as speech and as text: '{{n}}_mutual', "
            "'{n}_correct' and '{n}_incorrect'."
        )
    modalities = {
        name: TASKS[task].prompt if name == pair.prompt else TASKS[task].ending
        for pair in pairs
        for name in pair.names
    }
    there = {"speech": spoken, "text": texts.keys()}
    missing = [f"'{name}' as {modality}" for name, modality in modalities.items() if name not in there[modality]]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(f"'{data}': {len(missing)} utterances of {task} are missing: {some}.")
    return BenchmarkFolder(pairs, modalities, utterances, files, texts, bad_texts)


def gather_utterances(
    folder: BenchmarkFolder,
    task: Task,
    tokenizer: UnitTokenizer,
    codec: HubertUnitCodec | None,
    args: EvaluationArguments,
) -> Utterances:
    r"""
    Get the units and texts of a benchmark's utterances. If a story is speech from beginning to end, its prompt and
    ending are joined: as audio, before it is encoded, or as the units of a tokenised benchmark.

    Args:
        folder ([`BenchmarkFolder`]), task ([`Task`]):
            The benchmark.
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            The model's tokenizer. Texts that it would read as units are skipped.
        codec ([`HubertUnitCodec`], *optional*):
            The codec that encodes audio. Tokenised benchmarks and those of text need none.
        args ([`EvaluationArguments`]):
            How to encode, and where the units are kept.

    Raises:
        ValueError: a unit is not one of the model's.
    """
    names = folder.names("speech")
    if folder.utterances is not None:
        known = (folder.utterances.units, folder.utterances.skipped, folder.utterances.hashes)
        utterances = Utterances(*({name: part[name] for name in names if name in part} for part in known))
    elif not names:
        utterances = Utterances()
    else:
        files = {name: folder.files[name] for name in names}
        options = (codec, args.cache_dir, args.num_workers)
        stories = {
            name: (pair.prompt, name) for pair in folder.pairs for name in pair.sides if pair.prompt is not None
        }
        is_joined = task.is_speech and stories
        utterances = encode_stories(stories, files, *options) if is_joined else encode_files(files, *options)
    check_vocabulary(utterances, tokenizer.num_units)
    if folder.utterances is not None and task.is_speech:
        _join_stories(folder.pairs, utterances)
    for name in folder.names("text"):
        text = folder.texts[name].strip()
        utterances.texts[name], utterances.hashes[name] = text, hash_rows([text])
        if problem := folder.bad_texts.get(name) or _problem_of_text(text, tokenizer):
            utterances.skipped[name] = problem
    return utterances


def check_vocabulary(utterances: Utterances, num_units: int) -> None:
    """Raise a `ValueError` if an utterance has a unit that the model does not know."""
    for name, units in utterances.units.items():
        if len(units) > 0 and units.max() >= num_units:
            raise ValueError(
                f"{name!r} has the unit {units.max()}, but the model only knows 0 to {num_units - 1}: its units were "
                "made with another codec than the model was trained on."
            )


def _join_stories(pairs: Sequence[Pair], utterances: Utterances) -> None:
    units = utterances.units
    for pair in pairs:
        for name in pair.sides:
            if pair.prompt in units and name in units:
                units[name], utterances.starts[name] = join_units(units[pair.prompt], units[name])


def _problem_of_text(text: str, tokenizer: UnitTokenizer) -> str | None:
    if not text:
        return "its text is empty"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    wrong = next((id for id in ids if id not in tokenizer.text_ids), None)
    return None if wrong is None else f"its text holds {tokenizer.convert_ids_to_tokens(wrong)}, a token of speech"
