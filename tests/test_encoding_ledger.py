import os

import pyarrow as pa
import pytest

from slam_hf.encoding.ledger import ChunkRecord, Ledger, to_parquet
from slam_hf.encoding.piece_batches import ChunkKey, PendingPart
from slam_hf.encoding.recordings import Skipped, SkipReason
from slam_hf.encoding.unit_rows import UNIT_ROW_SCHEMA


def make_rows(*ids):
    rows = [{"id": id, "units": [1, 2], "durations": [3, 4], "num_frames": 7} for id in ids]
    return pa.Table.from_pylist(rows, schema=UNIT_ROW_SCHEMA)


def make_record(next_row, is_last=False, skipped=()):
    return ChunkRecord(next_row, is_last, 0.28, 1, 2, 7, list(skipped))


def test_chunks_are_found_again_with_their_records(tmp_path):
    skipped = Skipped("b", SkipReason.SILENT, "all zeros")
    Ledger(tmp_path).add(ChunkKey(3, 1), make_rows("a"), make_record(2, skipped=[skipped]))

    ledger = Ledger(tmp_path)
    ledger.refresh()

    assert ledger.records == {ChunkKey(3, 1): make_record(2, skipped=[skipped])}
    rows = ledger.read_rows(ChunkKey(3, 1))
    assert rows.to_pylist() == make_rows("a").to_pylist()
    assert rows.schema.metadata == make_rows("a").schema.metadata


def test_what_is_half_written_is_not_found(tmp_path):
    (tmp_path / ".000000-00000.parquet.0123456789abcdef0123456789abcdef").write_bytes(b"PAR1")

    ledger = Ledger(tmp_path)
    ledger.refresh()

    assert ledger.records == {}


def test_pending_parts_continue_after_their_last_chunk(tmp_path):
    ledger = Ledger(tmp_path)
    for key, record in [
        (ChunkKey(0, 0), make_record(4, is_last=True)),
        (ChunkKey(1, 0), make_record(2)),
        (ChunkKey(1, 1), make_record(5)),
        (ChunkKey(3, 0), make_record(1)),
        (ChunkKey(3, 1), make_record(2, is_last=True)),
    ]:
        ledger.add(key, make_rows("a"), record)

    assert ledger.pending(parts=[None] * 4) == [
        PendingPart(ChunkKey(1, 2), first_row=5),
        PendingPart(ChunkKey(2, 0), first_row=0),
    ]


def test_chunks_that_were_written_again_are_the_same_file(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Ledger(tmp_path / folder).add(ChunkKey(0, 0), make_rows("x", "y"), make_record(2))

    (name,) = os.listdir(tmp_path / "a")
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("num_rows", [0, 2500])
def test_parquet_holds_all_rows(num_rows):
    rows = make_rows(*map(str, range(num_rows)))

    assert pa.parquet.read_table(pa.BufferReader(to_parquet(rows))).equals(rows)
