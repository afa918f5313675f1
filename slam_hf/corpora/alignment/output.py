"""Writes the result of an alignment: a manifest of the recordings, or their corpus with the words of each row."""

import json
import math
import os
from collections import defaultdict
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from ...atomic_write import atomic_write
from ...encoding.ledger import ChunkKey, Ledger, to_parquet
from ...encoding.reading import words_between
from ...encoding.recordings import Skipped, SkipReason
from ...encoding.unit_rows import parse_piece_id
from ...folders import open_folder
from ...remote_files import local_path
from ..schema import UNIT_CORPUS_FEATURES
from .word_times import timed_words


MANIFEST = "manifest.jsonl"


def list_shards(corpus: str, split: str) -> list[str]:
    """The shards of a split of a corpus, by their paths in its folder."""
    return sorted(open_folder(corpus).glob(f"data/{split}-*.parquet"))


def read_shard(corpus: str, name: str) -> pa.Table:
    """The rows of a shard. A `ValueError` says that it is damaged, or not of a tokenised corpus."""
    content = pa.BufferReader(open_folder(corpus).cat_file(name))
    try:
        table = pq.read_table(content, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{corpus}/{name}' is damaged: {str(error).splitlines()[0]}") from error
    if "id" not in table.column_names:
        raise ValueError(f"'{corpus}/{name}' is not a file of a tokenised corpus: it has no column `id`.")
    return table


def write_manifest(
    output_dir: str, audio_root: str, ledger: Ledger, keys: list[ChunkKey]
) -> tuple[int, list[Skipped]]:
    """Write a manifest of the recordings with their words. Returns how many recordings have words, and why the others
    have none."""
    lines, num_aligned, unaligned = [], 0, []
    for key in keys:
        for row in ledger.read_rows(key).to_pylist():
            num_aligned += row["aligned_text"] is not None
            if row["path"] is not None and local_path(row["path"]) is not None:
                row["path"] = os.path.relpath(os.path.realpath(row["path"]), audio_root)
            row["offset"] = row["offset"] or None
            lines.append(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")
        unaligned += ledger.records[key].skipped
    atomic_write(f"{output_dir}/{MANIFEST}", "".join(lines).encode())
    return num_aligned, unaligned


def write_corpus(
    output_dir: str, corpus: str, split: str, ledger: Ledger, keys: list[ChunkKey]
) -> tuple[int, list[Skipped], int]:
    """Write a split of a corpus with the words of each row, and its skip report. Returns how many rows have words, why
    the others have none, and the size of the split in memory, in bytes."""
    words, files = _RecordedWords(ledger, keys), open_folder(corpus)
    num_aligned, unaligned, num_bytes = 0, [], 0
    for name in list_shards(corpus, split):
        rows = read_shard(corpus, name).to_pylist()
        for row in rows:
            found = words.of(row["id"])
            if isinstance(found, Skipped):
                unaligned.append(found)
            else:
                num_aligned += 1
                row |= found
        aligned = pa.Table.from_pylist(rows, schema=UNIT_CORPUS_FEATURES.arrow_schema)
        num_bytes += aligned.nbytes
        atomic_write(f"{output_dir}/{name}", to_parquet(aligned))
    if files.exists(report := f"skipped/{split}.jsonl"):
        atomic_write(f"{output_dir}/{report}", files.cat_file(report))
    return num_aligned, unaligned, num_bytes


def write_card(output_dir: str, corpus: str, sizes: dict[str, int]) -> None:
    """Write the card of a corpus, if it has one, with the sizes of the splits that are aligned, in bytes."""
    if not open_folder(corpus).exists("README.md"):
        return
    card = DatasetCard(open_folder(corpus).cat_file("README.md").decode())
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    for info in infos.values():
        for split in info.splits.keys() & sizes.keys() if info.splits is not None else ():
            info.splits[split].num_bytes = sizes[split]
            info.dataset_size = sum(item.num_bytes for item in info.splits.values())
    infos.to_dataset_card_data(card.data)
    atomic_write(f"{output_dir}/README.md", str(card).encode())


class _Place(NamedTuple):
    """Where a recording is in the ledger, and which part of its file it is."""

    id: str
    offset: float
    end: float
    key: ChunkKey
    row: int


class _RecordedWords:
    """The words of recordings, and of pieces of them, by the ids of rows of a corpus."""

    def __init__(self, ledger: Ledger, keys: list[ChunkKey]):
        self._ledger = ledger
        self._places: defaultdict[str, list[_Place]] = defaultdict(list)
        for key in keys:
            rows = ledger.read_rows(key).select(["id", "offset", "duration"]).to_pylist()
            for number, row in enumerate(rows):
                end = math.inf if row["duration"] is None else row["offset"] + row["duration"]
                place = _Place(row["id"], row["offset"], end, key, number)
                self._places[parse_piece_id(row["id"])[0]].append(place)
        # The rows of a corpus are in the order of the recordings.
        self._read = lru_cache(maxsize=16)(lambda key: ledger.read_rows(key).to_pylist())

    def of(self, id: str) -> dict[str, Any] | Skipped:
        """`text` and `aligned_text` of a row, or why it has none."""
        source, start, end = parse_piece_id(id)
        places = [place for place in self._places[source] if place.id == id] or [
            place for place in self._places[source] if place.offset <= start < place.end
        ]
        if not places:
            return Skipped(id, SkipReason.NO_RECORDING, "no such recording in the source")
        place = places[0]
        row = self._read(place.key)[place.row]
        if row["aligned_text"] is None:
            failure = next(item for item in self._ledger.records[place.key].skipped if item.id == place.id)
            return Skipped(id, failure.reason, failure.detail)
        if place.id == id:
            return {"text": row["text"], "aligned_text": row["aligned_text"]}
        return _cut(id, row["aligned_text"], start - place.offset, math.inf if end is None else end - place.offset)


def _cut(id: str, words: list[dict[str, Any]], start: float, end: float) -> dict[str, Any] | Skipped:
    """The words of a piece, with times within it."""
    within = words_between(words, start, end)
    if not within:
        return Skipped(id, SkipReason.NO_TEXT, "no word in this piece")
    texts = [word["word"] for word in within]
    texts[0] = texts[0].lstrip()
    spans = [(max(0.0, word["start_time"]), min(end - start, word["end_time"])) for word in within]
    return {"text": "".join(texts), "aligned_text": timed_words(texts, spans)}
