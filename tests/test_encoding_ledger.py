import os

import fsspec
import pyarrow as pa
import pytest

from slam_hf.encoding.ledger import ChunkKey, ChunkRecord, Ledger, PendingPart
from slam_hf.encoding.recordings import Skipped, SkipReason
from slam_hf.encoding.sources import FilePart
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


def test_half_written_chunks_are_not_found(tmp_path):
    (tmp_path / ".000000-00000.parquet.0123456789abcdef0123456789abcdef").write_bytes(b"PAR1")

    ledger = Ledger(tmp_path)
    ledger.refresh()

    assert ledger.records == {}


def flip_a_bit(content):
    return content[:150] + bytes([content[150] ^ 1]) + content[151:]


@pytest.mark.parametrize("damage", [flip_a_bit, lambda content: content[:-1], lambda content: b""])
def test_a_damaged_chunk_is_removed_and_pending(tmp_path, caplog, damage):
    for chunk in range(3):
        Ledger(tmp_path).add(ChunkKey(0, chunk), make_rows("a"), make_record(chunk + 1, is_last=chunk == 2))
    damaged = sorted(tmp_path.iterdir())[1]
    damaged.write_bytes(damage(damaged.read_bytes()))

    ledger = Ledger(tmp_path)
    ledger.refresh()

    assert ledger.pending(parts=[None]) == [PendingPart(ChunkKey(0, 1), first_row=1)]
    assert caplog.messages == [f"1 damaged chunk is encoded again, the first of which was '{damaged}'."]
    assert not damaged.exists()


def test_a_chunk_that_is_removed_while_the_folder_is_read_is_not_called_damaged(tmp_path, caplog, monkeypatch):
    Ledger(tmp_path).add(ChunkKey(0, 0), make_rows("a"), make_record(1, is_last=True))
    (path,) = tmp_path.iterdir()
    listed = Ledger(tmp_path)._list()
    path.unlink()
    ledger = Ledger(tmp_path)
    monkeypatch.setattr(ledger, "_list", lambda: listed)
    ledger.refresh()
    assert ledger.pending(parts=[None]) == [PendingPart(ChunkKey(0, 0), first_row=0)] and not caplog.messages


@pytest.mark.attack
def test_every_flipped_bit_is_noticed(tmp_path, record_property):
    Ledger(tmp_path).add(ChunkKey(0, 0), make_rows("a"), make_record(1, is_last=True))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    flipped = range(0, len(content), 7)
    for byte in flipped:
        path.write_bytes(content[:byte] + bytes([content[byte] ^ 1 << byte % 8]) + content[byte + 1 :])
        assert Ledger(tmp_path)._read_record(path.name, ChunkKey(0, 0), []) is None
    record_property("attack", f"chunks: {len(flipped)} flipped bits in one, all noticed")


def test_chunks_of_other_jobs_and_under_other_names_are_not_taken(tmp_path):
    Ledger(tmp_path, job="a").add(ChunkKey(0, 0), make_rows("a"), make_record(1, is_last=True))
    (path,) = tmp_path.iterdir()
    path.with_name(path.name.replace("000000-", "000001-")).write_bytes(path.read_bytes())

    other, own = Ledger(tmp_path, job="b"), Ledger(tmp_path, job="a")
    own.refresh()
    assert own.records.keys() == {ChunkKey(0, 0)}
    other.refresh()
    assert other.records == {}


def test_chunks_that_others_add_to_an_object_store_are_found(bucket_folder):
    rows, record = make_rows("a"), make_record(1, is_last=True)
    ledger, other = Ledger(bucket_folder), Ledger(bucket_folder)
    ledger.refresh()
    other.add(ChunkKey(0, 0), rows, record)
    ledger.refresh()
    assert ledger.records.keys() == {ChunkKey(0, 0)}

    # This one does not clear the list that the file system of this process has kept.
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    (name,) = store.ls(bucket_folder, detail=False)
    store.pipe_file(name.replace("000000-", "000001-"), b"PAR1")
    assert len(ledger._list()) == 2


def test_of_two_versions_of_a_chunk_the_first_counts(tmp_path):
    for id in ("b", "a", "c"):
        Ledger(tmp_path).add(ChunkKey(0, 0), make_rows(id), make_record(1, is_last=True))
    first = sorted(os.listdir(tmp_path))[0]

    ledger = Ledger(tmp_path)
    ledger.refresh()

    assert ledger.read_rows(ChunkKey(0, 0)).equals(pa.parquet.read_table(tmp_path / first).replace_schema_metadata())
    assert len(os.listdir(tmp_path)) == 3


def test_a_folder_that_was_moved_away_is_not_written_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="'.*/gone' was moved or removed while the job was running"):
        Ledger(tmp_path / "gone").add(ChunkKey(0, 0), make_rows("a"), make_record(1))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "2 of 2 parts of the input are not encoded, or not completely"),
        ([(0, 0, 2, True)], "1 of 2 parts"),
        ([(0, 0, 2, True), (1, 1, 1, True)], "1 of 2 parts"),
        ([(0, 0, 2, True), (1, 0, 0, False)], "1 of 2 parts"),
        ([(0, 0, 2, True), (1, 0, 0, True)], "Part 1 of the input has 1 rows, but .* has 0 of them"),
        ([(0, 0, 3, True), (1, 0, 1, True)], "'.*/000000-00000-.*' does not account for all rows of the input"),
    ],
)
def test_a_job_is_finished_when_every_row_is_accounted_for(tmp_path, chunks, message):
    parts = [FilePart(None, 0, 2, 2.0), FilePart(None, 2, 1, 1.0)]
    ledger = Ledger(tmp_path)
    for part, chunk, next_row, is_last in chunks:
        skipped = [Skipped("b", SkipReason.SILENT, "all zeros")]
        ledger.add(ChunkKey(part, chunk), make_rows("a"), make_record(next_row, is_last, skipped))

    with pytest.raises(ValueError, match=message):
        ledger.finished(parts)


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
