"""What a tokenisation has done so far: its finished chunks."""

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .atomic_write import atomic_write
from .piece_batches import ChunkKey, PendingPart
from .recordings import Skipped, SkipReason
from .sources import Part


_CHUNK_NAME = re.compile(r"(\d{6,})-(\d{5,})\.parquet")
_RECORD_KEY = b"slam_hf.chunk"


@dataclass(frozen=True)
class ChunkRecord:
    """What the ledger has of a chunk besides its rows.

    `next_row` is the row of the part that the next chunk begins with, `seconds` the audio tokenised, `num_frames` its
    frames and `num_units` what they were merged into.
    """

    next_row: int
    is_last: bool
    seconds: float
    num_rows: int
    num_units: int
    num_frames: int
    skipped: list[Skipped]


class Ledger:
    r"""
    The finished chunks of a tokenisation, one Parquet file each with its [`ChunkRecord`] in the file's metadata: one
    rename makes the rows and the record of them appear together.

    Args:
        folder (`str` or `os.PathLike`):
            Where the chunks are.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.records: dict[ChunkKey, ChunkRecord] = {}

    def add(self, key: ChunkKey, rows: pa.Table, record: ChunkRecord) -> None:
        """Write a finished chunk."""
        metadata = {**rows.schema.metadata, _RECORD_KEY: json.dumps(asdict(record)).encode()}
        atomic_write(self._path(key), to_parquet(rows.replace_schema_metadata(metadata)))
        self.records[key] = record

    def refresh(self) -> None:
        """Learn of the chunks that other processes, or an earlier run, have finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [_CHUNK_NAME.fullmatch(entry.name) for entry in os.scandir(self.folder)]
        keys = sorted({ChunkKey(int(name[1]), int(name[2])) for name in names if name} - self.records.keys())
        with ThreadPoolExecutor() as pool:
            self.records |= dict(zip(keys, pool.map(self._read_record, keys), strict=True))

    def pending(self, parts: Sequence[Part]) -> list[PendingPart]:
        """What remains to be done, as far as this ledger knows."""
        pending = []
        for part in range(len(parts)):
            chunk, record = 0, None
            while ChunkKey(part, chunk) in self.records:
                record = self.records[ChunkKey(part, chunk)]
                chunk += 1
            if record is None or not record.is_last:
                pending.append(PendingPart(ChunkKey(part, chunk), 0 if record is None else record.next_row))
        return pending

    def _path(self, key: ChunkKey) -> Path:
        return self.folder / f"{key.part:06d}-{key.chunk:05d}.parquet"

    def read_rows(self, key: ChunkKey) -> pa.Table:
        """The rows of a chunk."""
        rows = pq.read_table(self._path(key))
        metadata = {name: value for name, value in rows.schema.metadata.items() if name != _RECORD_KEY}
        return rows.replace_schema_metadata(metadata)

    def _read_record(self, key: ChunkKey) -> ChunkRecord:
        record = json.loads(pq.read_schema(self._path(key)).metadata[_RECORD_KEY])
        skipped = [Skipped(item["id"], SkipReason(item["reason"]), item["detail"]) for item in record.pop("skipped")]
        return ChunkRecord(**record, skipped=skipped)


def to_parquet(table: pa.Table) -> bytes:
    """The table as the content of a Parquet file: a function of the table and of the pyarrow version."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, row_group_size=1000)
    return stream.getvalue().to_pybytes()
