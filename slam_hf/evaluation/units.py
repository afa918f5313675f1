"""Units of a benchmark's utterances, from a tokenised folder or encoded from audio once for all models, and texts."""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from ..audio_files import AudioError, open_audio
from ..audio_utils import load_audio
from ..encoding.codec_identity import describe_codec
from ..encoding.ledger import Ledger
from ..encoding.listing import AUDIO_EXTENSIONS, list_audio_folder
from ..encoding.progress import JobProgress
from ..encoding.reading import PieceRules
from ..encoding.recordings import Recording, Skipped, SkipReason
from ..encoding.segmentation import Segmentation
from ..encoding.sources import Row, Source, file_source
from ..encoding.unit_rows import parse_piece_id
from ..encoding.worker import encode_parts
from ..fingerprints import hash_rows
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processes import get_process_state


MAX_UTTERANCE_SECONDS = 600.0
"""Longer recordings are skipped: they are not utterances of a benchmark, and a small file can decompress to days."""

STORIES_PER_PART = 8
"""About two minutes of speech: what is lost when an evaluation is interrupted."""


@dataclass
class Utterances:
    """By the name of an utterance: its deduplicated units, of shape `(units,)`, or its text, or why it was skipped;
    and the SHA-256 of its audio file, or of its units or text if there is no audio. A story that was joined from a
    prompt and an ending has the name of the ending, which begins at the index `starts` of its units."""

    units: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)


def read_tokenized(folder: str | os.PathLike) -> Utterances | None:
    """Read a tokenised folder, such as one from `slam-hf tokenize`: Parquet files, in it or in `data/`,
    with the columns `id` (the path of the audio file), `units` and possibly `text`, and possibly the report of what
    was skipped. Returns `None` if there is no Parquet file.

    A `ValueError` says that two utterances have the same name, or names a file that is damaged.
    """
    folder = Path(folder)
    utterances = Utterances()
    paths = tokenized_files(folder)
    for path in paths:
        try:
            has_text = "text" in pq.read_schema(path).names
            columns = ["id", "units", "text"] if has_text else ["id", "units"]
            table = pq.read_table(path, columns=columns, page_checksum_verification=True)
            texts = table["text"].cast(pa.string()).to_pylist() if has_text else [None] * len(table)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"'{path}' is not a tokenised corpus, or damaged: {error}") from error
        for id, units, text in zip(table["id"].to_pylist(), table["units"].to_pylist(), texts, strict=True):
            name = utterance_name(id)
            if text is not None:
                utterances.texts[name] = text
            if name in utterances.hashes:
                raise ValueError(f"'{folder}' has two utterances {name!r}.")
            utterances.hashes[name] = hash_rows([units])
            if units:
                utterances.units[name] = np.array(units)
            else:
                utterances.skipped[name] = "no units"
    for path in sorted(folder.glob("skipped/*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            if not line:
                continue
            try:
                item = json.loads(line)
                name, reason = utterance_name(item["id"]), f"{item['reason']}: {item['detail']}"
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"'{path}' is damaged in line {number} ({error}).") from error
            utterances.skipped[name] = reason
            utterances.hashes[name] = hash_rows([[]])
    return utterances if paths else None


def tokenized_files(path: str | os.PathLike) -> list[Path]:
    """The Parquet files of a tokenised folder, in it or in `data/`, or the one that is named."""
    path = Path(path)
    return [path] if path.is_file() else sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def list_audio(folder: str | os.PathLike) -> dict[str, Path]:
    """The audio files below a folder, by the name of the utterance. A `ValueError` names two that differ only in their
    extension."""
    files: dict[str, Path] = {}
    for recording in list_audio_folder(folder):
        if isinstance(recording, Recording):
            name = utterance_name(recording.id)
            if name in files:
                raise ValueError(f"'{folder}' has two utterances {name!r}: {files[name]} and {recording.audio}.")
            files[name] = Path(recording.audio)
    return files


def utterance_name(path: str) -> str:
    """A path without the extension of an audio file."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in AUDIO_EXTENSIONS else path


def read_texts(folder: str | os.PathLike) -> tuple[dict[str, str], dict[str, str]]:
    """The texts of `{name}_mutual.txt`, `{name}_correct.txt` and `{name}_incorrect.txt` below a folder, by name, and
    what is wrong with those that are not UTF-8."""
    texts, skipped = {}, {}
    for path in sorted(Path(folder).rglob("*.txt")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name.endswith(("_mutual", "_correct", "_incorrect")):
            try:
                texts[name] = path.read_text("utf-8-sig")
            except UnicodeDecodeError as error:
                texts[name], skipped[name] = "", f"its text is not UTF-8 ({error.reason})"
    return texts, skipped


def join_units(prompt: np.ndarray, ending: np.ndarray) -> tuple[np.ndarray, int]:
    """The deduplicated units of two utterances, one after the other, and how many are of the first."""
    repeats = int(len(prompt) > 0 and len(ending) > 0 and prompt[-1] == ending[0])
    return np.concatenate([prompt, ending[repeats:]]), len(prompt)


def encode_files(
    files: Mapping[str, Path],
    codec: HubertUnitCodec,
    cache_dir: str | os.PathLike,
    num_workers: int = 2,
) -> Utterances:
    """Encode audio files, given by name, or take their units from a cache, where they are kept under the hash of the
    codec's weights and that of the file's content. `num_workers` is that of [`encode_parts`].

    Called in each process of `accelerate launch`, it divides the work among them. Started again after it was
    interrupted, it continues with the files that are missing; a damaged entry counts as missing. Files that are
    unreadable, empty, hold NaN, or are shorter than a frame or longer than 10 minutes are skipped.
    """
    hashes = hash_files(files)
    by_hash = {hashes[name]: path for name, path in files.items()}

    def make_source(missing: Iterable[str]) -> Source:
        return file_source([Recording(hash, str(by_hash[hash])) for hash in missing])

    utterances, _ = _encode(hashes, make_source, codec, cache_dir, num_workers)
    return utterances


def encode_stories(
    stories: Mapping[str, tuple[str, str]],
    files: Mapping[str, Path],
    codec: HubertUnitCodec,
    cache_dir: str | os.PathLike,
    num_workers: int = 2,
) -> Utterances:
    """Join the audio of prompts and endings, and encode each story in one piece, as [`encode_files`] does. `stories`
    has the two names in `files` by the name of the story. A unit that begins in the prompt belongs to the prompt."""
    hashes = hash_files(files)
    keys = {name: hash_rows([[hashes[part] for part in parts]]) for name, parts in stories.items()}
    by_key = {keys[name]: tuple(files[part] for part in parts) for name, parts in stories.items()}

    def make_source(missing: Iterable[str]) -> Source:
        items = [(key, by_key[key]) for key in missing]
        starts = range(0, len(items), STORIES_PER_PART)
        parts = [_StoryPart(tuple(items[start : start + STORIES_PER_PART]), codec.sampling_rate) for start in starts]
        return Source(parts, {})

    utterances, durations = _encode(keys, make_source, codec, cache_dir, num_workers)
    utterances.hashes = hashes
    for name in utterances.units:
        end_of_prompt = round(_seconds(by_key[keys[name]][0]) * codec.frame_rate)
        utterances.starts[name] = int((np.cumsum(durations[name]) - durations[name] < end_of_prompt).sum())
    return utterances


@dataclass(frozen=True)
class _StoryPart:
    """Stories by key, with the files that each is joined from, and the sampling rate in Hz to read them at."""

    stories: tuple[tuple[str, tuple[Path, ...]], ...]
    sampling_rate: int
    seconds: None = None

    @property
    def num_rows(self) -> int:
        return len(self.stories)

    def read(self, start: int) -> Iterator[Row]:
        for key, paths in self.stories[start:]:
            waveforms = []
            try:
                for path in paths:
                    waveforms.append(load_audio(path, self.sampling_rate))
            except AudioError as error:
                yield [Skipped(key, SkipReason(error.reason), f"{path.name}: {error.detail}")]
            except ValueError:
                yield [Skipped(key, SkipReason.NOT_FINITE, f"{path.name}: NaN or infinite samples")]
            else:
                content = io.BytesIO()
                waveform = np.concatenate(waveforms)
                soundfile.write(content, waveform, self.sampling_rate, format="WAV", subtype="FLOAT")
                yield [Recording(key, {"bytes": content.getvalue()})]


def _seconds(path: Path) -> float:
    with open_audio(path) as file:
        num_samples = file.num_samples
        return (sum(map(len, file.blocks())) if num_samples is None else num_samples) / file.sampling_rate


def _encode(
    hashes: dict[str, str],
    make_source: Callable[[Iterable[str]], Source],
    codec: HubertUnitCodec,
    cache_dir: str | os.PathLike,
    num_workers: int,
) -> tuple[Utterances, dict[str, np.ndarray]]:
    """The recordings whose hashes are given by name, and their durations. `make_source` makes the source of those that
    are not in the cache, by hash."""
    state, wanted = get_process_state(), set(hashes.values())
    folder = Path(cache_dir) / describe_codec(codec).weights
    encoded, skipped = _read_cache(folder, wanted)
    # All processes must find the same files missing, before one of them encodes any.
    state.wait_for_everyone()
    missing = sorted(wanted - encoded.keys() - skipped.keys())
    if missing:
        ledger = Ledger(folder / hashlib.sha256("".join(missing).encode()).hexdigest(), job=folder.name)
        # Every utterance with a frame is scored, short and silent ones too.
        segmentation = Segmentation(MAX_UTTERANCE_SECONDS, cut="fixed")
        rules = PieceRules(segmentation, min_seconds=1 / codec.frame_rate, min_peak_dbfs=-math.inf)
        rank, world_size = state.process_index, state.num_processes
        source = make_source(missing)
        with JobProgress(source.parts, Ledger(ledger.folder, ledger.job), disable=rank != 0):
            encode_parts(source, codec, rules, ledger, rank, world_size, num_workers)
        state.wait_for_everyone()
        encoded, skipped = _read_cache(folder, wanted)
        if lost := wanted - encoded.keys() - skipped.keys():
            raise ValueError(f"'{folder}' lacks the units of {len(lost)} files that were just encoded. Start again.")
    units, durations = ({name: encoded[of][i] for name, of in hashes.items() if of in encoded} for i in (0, 1))
    reasons = {name: skipped[of] for name, of in hashes.items() if of in skipped}
    return Utterances(units, reasons, hashes), durations


def _read_cache(
    folder: Path, hashes: Collection[str]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Units and durations, and why files were skipped, by hash."""
    encoded, skipped = {}, {}
    for part in sorted(folder.glob("*/")):
        ledger = Ledger(part, job=folder.name)
        ledger.refresh()
        for key, record in ledger.records.items():
            skipped |= {item.id: f"{item.reason}: {item.detail}" for item in record.skipped if item.id in hashes}
            rows = ledger.read_rows(key)
            for id, *row in zip(rows["id"].to_pylist(), rows["units"], rows["durations"], strict=True):
                if id in hashes:
                    encoded[id] = tuple(column.values.to_numpy() for column in row)
                elif parse_piece_id(id)[0] in hashes:
                    skipped[parse_piece_id(id)[0]] = f"longer than {MAX_UTTERANCE_SECONDS:g} s"
    return encoded, skipped


def hash_files(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of the content of files, by name."""

    def hash_file(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return dict(zip(files, pool.map(hash_file, files.values()), strict=True))
