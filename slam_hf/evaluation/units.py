"""Units of a benchmark's utterances: from a tokenised folder, or encoded from audio once for all models."""

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..encoding.codec_identity import describe_codec
from ..encoding.ledger import Ledger
from ..encoding.listing import AUDIO_EXTENSIONS, list_audio_folder
from ..encoding.reading import PieceRules
from ..encoding.recordings import Recording
from ..encoding.segmentation import Segmentation
from ..encoding.sources import file_source
from ..encoding.unit_rows import parse_piece_id
from ..encoding.worker import encode_parts
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processes import get_process_state
from .fingerprints import hash_rows


MAX_UTTERANCE_SECONDS = 600.0
"""A longer file is not an utterance of a benchmark; a small one can decompress to days."""


@dataclass
class Utterances:
    """By the name of an utterance: its deduplicated units, of shape `(units,)`, or why it could not be encoded; and
    the SHA-256 of its audio file, or of its units where there is no audio."""

    units: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def read_tokenized(folder: str | os.PathLike) -> Utterances | None:
    """Read a folder that was tokenised, such as by `hub_scripts/tokenize_corpus.py`: Parquet files, in it or in
    `data/`, with the columns `id` (the path of the audio file) and `units`, and possibly the report of what was
    skipped. `None` where there is no Parquet file.

    A `ValueError` says that two utterances have the same name, or names a file that is damaged.
    """
    folder = Path(folder)
    utterances = Utterances()
    paths = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    for path in paths:
        try:
            table = pq.read_table(path, columns=["id", "units"], page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"'{path}' is not a tokenised corpus, or damaged: {error}") from error
        for id, units in zip(table["id"].to_pylist(), table["units"].to_pylist(), strict=True):
            name = utterance_name(id)
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


def list_audio(folder: str | os.PathLike) -> dict[str, Path]:
    """The audio files below a folder by the name of the utterance. A `ValueError` names two that differ in their
    extension only."""
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
    state = get_process_state()
    folder = Path(cache_dir) / describe_codec(codec).weights
    hashes = hash_files(files)
    by_hash = {hashes[name]: path for name, path in files.items()}
    units, skipped = _read_cache(folder, by_hash.keys())
    # All processes must find the same files missing, before one of them encodes any.
    state.wait_for_everyone()
    missing = {hash: str(by_hash[hash]) for hash in sorted(by_hash.keys() - units.keys() - skipped.keys())}
    if missing:
        source = file_source([Recording(hash, path) for hash, path in missing.items()])
        ledger = Ledger(folder / hashlib.sha256("".join(missing).encode()).hexdigest(), job=folder.name)
        # Every utterance with a frame is scored, short and silent ones too.
        segmentation = Segmentation(MAX_UTTERANCE_SECONDS, cut="fixed")
        rules = PieceRules(segmentation, min_seconds=1 / codec.frame_rate, min_peak_dbfs=-math.inf)
        rank, world_size = state.process_index, state.num_processes
        encode_parts(source, codec, rules, ledger, rank, world_size, num_workers)
        state.wait_for_everyone()
        units, skipped = _read_cache(folder, by_hash.keys())
        if lost := by_hash.keys() - units.keys() - skipped.keys():
            raise ValueError(f"'{folder}' lacks the units of {len(lost)} files that were just encoded. Start again.")
    return Utterances(
        units={name: units[hash] for name, hash in hashes.items() if hash in units},
        skipped={name: skipped[hash] for name, hash in hashes.items() if hash in skipped},
        hashes=hashes,
    )


def _read_cache(folder: Path, hashes: Collection[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Units, and why files were skipped, by hash."""
    units, skipped = {}, {}
    for part in sorted(folder.glob("*/")):
        ledger = Ledger(part, job=folder.name)
        ledger.refresh()
        for key, record in ledger.records.items():
            skipped |= {item.id: f"{item.reason}: {item.detail}" for item in record.skipped if item.id in hashes}
            rows = ledger.read_rows(key)
            for id, row in zip(rows["id"].to_pylist(), rows["units"], strict=True):
                if id in hashes:
                    units[id] = row.values.to_numpy()
                elif parse_piece_id(id)[0] in hashes:
                    skipped[parse_piece_id(id)[0]] = f"longer than {MAX_UTTERANCE_SECONDS:g} s"
    return units, skipped


def hash_files(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of the content of files, by name."""

    def hash_file(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return dict(zip(files, pool.map(hash_file, files.values()), strict=True))
