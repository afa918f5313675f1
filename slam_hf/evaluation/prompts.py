"""What a model continues: the beginnings of recordings, or of the documents of a tokenised corpus."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..audio_utils import load_audio
from ..fingerprints import hash_rows
from ..judging.continuations import cut_units, end_of_prompt
from ..pipeline_audio_to_audio import AudioToAudioPipeline
from .tasks import Task
from .units import hash_files, list_audio, tokenized_files


PAUSE_SECONDS, PAUSE_SEARCH_SECONDS = 0.1, 0.5
"""Length of the pause that a prompt without word times ends in, and how far from the wanted end it may be."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of an utterance: its deduplicated units, of shape `(units,)`, and its length in seconds."""

    units: np.ndarray
    seconds: float


@dataclass(frozen=True)
class RecordedPrompts:
    r"""
    The beginnings of recordings. If a recording has a file of the same name with the extension `.json` beside it, with
    `aligned_text`, a list of `{"word", "start_time", "end_time"}` in seconds, its prompt ends at the nearest end of a
    word. Shorter recordings are taken as a whole.

    Args:
        files (`dict[str, Path]`):
            The recordings by name.
        seconds (`float`):
            Wanted length of the prompts.
        end_at_pauses (`bool`, *optional*, defaults to `False`):
            Without word times: whether a prompt ends in the middle of the quietest tenth of a second, at most half a
            second away from the wanted end.
    """

    files: Mapping[str, Path]
    seconds: float
    end_at_pauses: bool = False

    @property
    def names(self) -> list[str]:
        return list(self.files)

    def hash(self) -> str:
        """SHA-256 of the names and contents of the recordings and of their word times."""
        alignments = {f"{name}.json": path.with_suffix(".json") for name, path in self.files.items()}
        alignments = {name: path for name, path in alignments.items() if path.is_file()}
        return hash_rows(hash_files(self.files | alignments).items())

    def read(self, names: Sequence[str], speak: AudioToAudioPipeline) -> tuple[dict[str, Prompt], dict[str, str]]:
        """The prompts by name, and what is wrong with recordings that cannot be read or are shorter than a frame. A
        `ValueError` names word times that cannot be read."""
        codec = speak.processor.audio_tokenizer
        prompts, skipped = {}, {}
        for name in names:
            try:
                waveform = load_audio(self.files[name], codec.sampling_rate)
            except ValueError as error:
                skipped[name] = f"{name}: {error}"
                continue
            waveform = self._cut(name, waveform, codec.sampling_rate)
            seconds = len(waveform) / codec.sampling_rate
            if seconds * codec.frame_rate < 1:
                skipped[name] = f"{name}: too short: {seconds:.3f} s"
            else:
                ids = speak.processor([waveform], codec.sampling_rate)["input_ids"][0]
                prompts[name] = Prompt(speak.tokenizer.decode_units(ids), seconds)
        return prompts, skipped

    def waveform(self, name: str, sampling_rate: int) -> np.ndarray:
        """A prompt of shape `(samples,)`, at a sampling rate in Hz."""
        return self._cut(name, load_audio(self.files[name], sampling_rate), sampling_rate)

    def _cut(self, name: str, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        alignment = self.files[name].with_suffix(".json")
        if alignment.is_file():
            end = end_of_prompt(_read_words(alignment), self.seconds)
        elif self.end_at_pauses:
            end = _nearest_pause(waveform, sampling_rate, self.seconds)
        else:
            end = self.seconds
        return waveform[: round(end * sampling_rate)]


@dataclass(frozen=True)
class TokenizedPrompts:
    r"""
    The beginnings of the documents of a tokenised corpus. With word times, a prompt ends at the nearest end of a word.
    Its units are those that end by then. Shorter documents are taken as a whole.

    Args:
        rows (`dict[str, dict]`):
            The documents by their `id`, with `units`, `durations` and possibly `aligned_text`.
        seconds (`float`):
            Wanted length of the prompts.
    """

    rows: Mapping[str, Mapping[str, Any]]
    seconds: float

    @property
    def names(self) -> list[str]:
        return list(self.rows)

    def hash(self) -> str:
        """SHA-256 of the documents."""
        return hash_rows(self.rows.items())

    def read(self, names: Sequence[str], speak: AudioToAudioPipeline) -> tuple[dict[str, Prompt], dict[str, str]]:
        """The prompts by name, and why there is none of the other documents."""
        frame_rate = speak.processor.audio_tokenizer.frame_rate
        prompts, skipped = {}, {}
        for name in names:
            row = self.rows[name]
            units, seconds = cut_units(row, self.seconds, frame_rate)
            if not units:
                skipped[name] = f"{name}: too short: no unit ends within {self.seconds:g} s"
            else:
                prompts[name] = Prompt(np.array(units), seconds)
        return prompts, skipped


Prompts = RecordedPrompts | TokenizedPrompts


def find_prompts(data: str | os.PathLike, task: Task, name: str, num_prompts: int, seconds: float) -> Prompts:
    r"""
    Find what a continuation task begins with: the correct stories of a StoryCloze folder with audio, or the documents
    of a tokenised corpus, a folder or a Parquet file.

    Args:
        data (`str` or `os.PathLike`), task ([`Task`]), name (`str`):
            The data, and the task with its name.
        num_prompts (`int`), seconds (`float`):
            Maximum number of prompts, the first ones, and their wanted length.

    Raises:
        ValueError: the stories are incomplete, a file is damaged, or there is neither audio nor a tokenised corpus.
    """
    files = list_audio(data) if Path(data).is_dir() else {}
    if files:
        pairs = task.read_pairs(os.fspath(data), files.keys())[:num_prompts]
        return RecordedPrompts({pair.correct: files[pair.correct] for pair in pairs}, seconds, task.end_at_pauses)
    rows: dict[str, dict[str, Any]] = {}
    for path in tokenized_files(data):
        try:
            names = set(pq.read_schema(path).names)
            if missing := {"id", "units", "durations"} - names:
                raise ValueError(
                    f"'{path}' has no {' and no '.join(sorted(missing))}, which tell where {seconds:g} seconds end: "
                    "take a tokenised corpus, or recordings."
                )
            columns = ["id", "units", "durations", *names & {"aligned_text"}]
            table = pq.read_table(path, columns=columns, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"'{path}' is not a tokenised corpus, or damaged: {error}") from error
        rows |= {row.pop("id"): row for row in table.slice(0, num_prompts - len(rows)).to_pylist()}
    if not rows:
        raise ValueError(
            f"'{data}' holds no audio, which the prompts of {name} are the beginnings of, and no tokenised corpus."
        )
    return TokenizedPrompts(rows, seconds)


def _read_words(alignment: Path) -> list[dict[str, Any]]:
    try:
        words = json.loads(alignment.read_text("utf-8-sig")).get("aligned_text", [])
        for word in words:
            if not 0 < float(word["end_time"]) < math.inf:
                raise ValueError(f"a word ends at {word['end_time']} s")
        return words
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{alignment}' is not a JSON object with `aligned_text`, a list of words with `end_time` in seconds "
            f"({error!r}): mend it or take it away."
        ) from error


def _nearest_pause(waveform: np.ndarray, sampling_rate: int, seconds: float) -> float:
    """The middle of the quietest pause near the wanted end, in seconds, or the end if the recording ends before."""
    pause, margin = (round(length * sampling_rate) for length in (PAUSE_SECONDS, PAUSE_SEARCH_SECONDS))
    wanted = round(seconds * sampling_rate)
    first = max(0, wanted - margin - pause // 2)
    energy = np.cumsum(np.square(waveform[first : wanted + margin + pause // 2], dtype=np.float64))
    if len(waveform) <= wanted or len(energy) <= pause:
        return seconds
    return (first + int((energy[pause:] - energy[:-pause]).argmin()) + 1 + pause // 2) / sampling_rate
