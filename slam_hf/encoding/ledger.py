"""Keeps the finished chunks of a job."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_write import atomic_write
from ..folders import open_folder
from ..remote_files import local_path
from .recordings import Skipped, SkipReason
from .sources import Part, share_parts


logger = logging.getLogger(__name__)

_CHUNK_NAME = re.compile(r"(\d{6,})-(\d{5,})-([0-9a-f]{16})\.parquet")
_RECORD_KEY = b"slam_hf.chunk"


class ChunkKey(NamedTuple):
    """Numbers of a part and of a chunk in it."""

    part: int
    chunk: int


class PendingPart(NamedTuple):
    """A part of the input, from its first row that has not been encoded."""

    next_chunk: ChunkKey
    first_row: int


@dataclass(frozen=True)
class ChunkRecord:
    """What the ledger knows of a chunk besides its rows.

    `next_row` is the row of the part that the next chunk begins with, and `seconds` the length of the encoded audio.
    Its `num_frames` frames were merged into `num_units` units.
    """

    next_row: int
    is_last: bool
    seconds: float
    num_rows: int
    num_units: int
    num_frames: int
    skipped: list[Skipped]


class Ledger:
    """The finished chunks of a job. A Parquet file has the rows of a chunk and, in its metadata, the [`ChunkRecord`]:
    both appear together. Its name has the hash of its content, which shows damage: a damaged chunk is removed and
    encoded again. Chunks of a job of another name count as damaged. If two tasks encode the same chunk, they write the
    same file, or, where their units differ, two files, of which the first counts."""

    def __init__(self, folder: str | os.PathLike, job: str = ""):
        self.folder = os.fspath(folder)
        self.job = job
        self.records: dict[ChunkKey, ChunkRecord] = {}
        self._files = open_folder(folder)
        self._names: dict[ChunkKey, str] = {}

    def begin(self, parts: Sequence[Part], rank: int = 0, world_size: int = 1) -> list[PendingPart]:
        """Create the folder, and find what is missing of one task's share of the parts. The shares of all tasks are
        all parts, and the tasks do not communicate."""
        share = share_parts(parts, rank, world_size)
        if local_path(self.folder) is not None:  # an object store has no folders
            self._files.makedirs("", exist_ok=True)
        self.refresh(share)
        return [item for item in self.pending(parts) if item.next_chunk.part in share]

    def add(self, key: ChunkKey, rows: pa.Table, record: ChunkRecord) -> None:
        """Write a finished chunk. `FileNotFoundError`: the folder is gone, and the earlier chunks with it."""
        if local_path(self.folder) is not None and not self._files.isdir(""):
            raise FileNotFoundError(f"'{self.folder}' was moved or removed while the job was running. Start again.")
        metadata = {_RECORD_KEY: json.dumps({"job": self.job, "key": key, **asdict(record)}).encode()}
        content = to_parquet(rows.replace_schema_metadata(metadata))
        name = f"{key.part:06d}-{key.chunk:05d}-{_hash(content)}.parquet"
        atomic_write(self._path(name), content)
        self.records[key], self._names[key] = record, name

    def remove(self) -> None:
        """Remove the chunks, once their rows are elsewhere."""
        with suppress(FileNotFoundError):
            self._files.rm("", recursive=True)

    def refresh(self, parts: Container[int] | None = None) -> None:
        """Read which chunks other processes, or an earlier run, have finished, in all parts or in some."""
        names = {}
        for match in filter(None, map(_CHUNK_NAME.fullmatch, self._list())):
            key = ChunkKey(int(match[1]), int(match[2]))
            if key not in self.records and (parts is None or key.part in parts):
                names[match[0]] = key
        damaged: list[str] = []
        with ThreadPoolExecutor() as pool:
            records = list(pool.map(partial(self._read_record, damaged=damaged), names, names.values()))
        if damaged:
            logger.warning(
                f"{len(damaged)} damaged {'chunks are' if len(damaged) > 1 else 'chunk is'} encoded again, the first "
                f"of which was '{self._path(min(damaged))}'."
            )
        for (name, key), record in zip(names.items(), records, strict=True):
            if record is not None and key not in self.records:
                self.records[key], self._names[key] = record, name

    def pending(self, parts: Sequence[Part]) -> list[PendingPart]:
        """The parts that are not finished, as far as this ledger has read."""
        pending = []
        for part in range(len(parts)):
            keys = self._finished(part)
            last = self.records[keys[-1]] if keys else None
            if last is None or not last.is_last:
                pending.append(PendingPart(ChunkKey(part, len(keys)), 0 if last is None else last.next_row))
        return pending

    def finished(self, parts: Sequence[Part]) -> list[ChunkKey]:
        """The chunks of a job that is done, in order, as the folder has them now. A `ValueError` says that chunks are
        missing, or that rows are neither in a chunk nor among what it skipped."""
        self.refresh()
        if pending := self.pending(parts):
            raise ValueError(
                f"{len(pending)} of {len(parts)} parts of the input are not encoded, or not completely, in "
                f"'{self.folder}'. Start the same command again to continue."
            )
        keys = []
        for number, part in enumerate(parts):
            next_row = 0
            for key in self._finished(number):
                record = self.records[key]
                if record.num_rows + len(record.skipped) < record.next_row - next_row:
                    raise ValueError(
                        f"'{self._path(self._names[key])}' does not account for all rows of the input. Remove it."
                    )
                next_row = record.next_row
                keys.append(key)
            if part.num_rows not in (None, next_row):
                raise ValueError(
                    f"Part {number} of the input has {part.num_rows} rows, but '{self.folder}' has {next_row} of them."
                )
        return keys

    def _finished(self, part: int) -> list[ChunkKey]:
        """The chunks of a part up to the first that is missing."""
        keys: list[ChunkKey] = []
        while (key := ChunkKey(part, len(keys))) in self.records:
            keys.append(key)
        return keys

    def read_rows(self, key: ChunkKey) -> pa.Table:
        """The rows of a chunk."""
        content = pa.BufferReader(self._files.cat_file(self._names[key]))
        return pq.read_table(content, page_checksum_verification=True).replace_schema_metadata(None)

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _list(self) -> list[str]:
        """The names of the files, in order."""
        try:
            return sorted(os.path.basename(path) for path in open_folder(self.folder).ls("", detail=False))
        except FileNotFoundError:
            return []

    def _read_record(self, name: str, key: ChunkKey, damaged: list[str]) -> ChunkRecord | None:
        """The record of a chunk, or `None` if the file is gone, or damaged, or of another chunk. Then its name is
        added to `damaged`, and it is removed at once, because another task may be about to write it again."""
        record = None
        with suppress(FileNotFoundError):  # another process has removed it: damaged, or at the end of the job
            record = self._parse(self._files.cat_file(name), name, key)
            if record is None:
                self._files.rm_file(name)
                damaged.append(name)
        return record

    def _parse(self, content: bytes, name: str, key: ChunkKey) -> ChunkRecord | None:
        if not name.endswith(f"-{_hash(content)}.parquet"):
            return None
        record = json.loads(pq.read_schema(pa.BufferReader(content)).metadata[_RECORD_KEY])
        if (record.pop("job"), record.pop("key")) != (self.job, list(key)):
            return None
        skipped = [Skipped(item["id"], SkipReason(item["reason"]), item["detail"]) for item in record.pop("skipped")]
        return ChunkRecord(**record, skipped=skipped)


def to_parquet(table: pa.Table) -> bytes:
    """The table as the content of a Parquet file: a function of the table and of the pyarrow version."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, row_group_size=1000, write_page_checksum=True)
    return stream.getvalue().to_pybytes()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
