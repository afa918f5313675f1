import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slam_hf.corpora import dataset_folder
from slam_hf.corpora.dataset_card import SplitSummary
from slam_hf.corpora.dataset_folder import finish_split, job_folder, publish_split, read_summary
from slam_hf.encoding.codec_identity import CodecDescription
from slam_hf.encoding.ledger import ChunkRecord, Ledger
from slam_hf.encoding.piece_batches import ChunkKey
from slam_hf.encoding.recordings import Skipped, SkipReason
from slam_hf.encoding.sources import FilePart
from slam_hf.encoding.unit_rows import UNIT_ROW_SCHEMA


CODEC = CodecDescription("codec", None, "f" * 64, 500, 16_000, 25.0)


@pytest.fixture
def add_chunks(tmp_path):
    """Adds a chunk of an hour for each number of rows to the ledger of a split, each a part of its own."""

    def add_chunks(split, *nums_rows):
        ledger = Ledger(job_folder(tmp_path, split) / "chunks")
        ledger.folder.mkdir(parents=True)
        for number, num_rows in enumerate(nums_rows):
            rows = [
                {"id": f"{number}-{row}", "units": [row], "durations": [2], "num_frames": 2} for row in range(num_rows)
            ]
            skipped = [] if num_rows else [Skipped(f"{number}", SkipReason.SILENT, "all zeros")]
            seconds = 3600.0 if num_rows else 0.0
            record = ChunkRecord(1, True, seconds, num_rows, num_rows, 2 * num_rows, skipped)
            table = pa.Table.from_pylist(rows, schema=UNIT_ROW_SCHEMA)
            ledger.add(ChunkKey(number, 0), table, record)
        return ledger, [FilePart((None,), 3600.0)] * len(nums_rows)

    return add_chunks


def read_ids(path):
    return pq.read_table(path)["id"].to_pylist()


def test_chunks_become_shards_in_order(tmp_path, add_chunks, monkeypatch):
    monkeypatch.setattr(dataset_folder, "SHARD_SECONDS", 2 * 3600.0)

    summary = finish_split(tmp_path, "train", *add_chunks("train", 1, 2, 0, 1, 0), CODEC, has_pairs=False)

    shards = sorted((tmp_path / "data").iterdir())
    assert [shard.name for shard in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert [read_ids(shard) for shard in shards] == [["0-0", "1-0", "1-1"], ["3-0"]]
    assert summary == SplitSummary(
        split="train",
        num_rows=4,
        num_units=4,
        num_frames=8,
        seconds=3 * 3600.0,
        num_bytes=summary.num_bytes,
        has_pairs=False,
        skipped={"silent": 2},
    )
    report = [json.loads(line) for line in (tmp_path / "skipped" / "train.jsonl").read_text().splitlines()]
    assert report == [{"id": number, "reason": "silent", "detail": "all zeros"} for number in ("2", "4")]


def test_a_finished_split_keeps_its_summary_and_not_its_chunks(tmp_path, add_chunks):
    assert read_summary(tmp_path, "train") is None

    summary = finish_split(tmp_path, "train", *add_chunks("train", 1), CODEC, has_pairs=False)

    assert read_summary(tmp_path, "train") == summary
    assert [path.name for path in job_folder(tmp_path, "train").iterdir()] == ["summary.json"]


def test_what_killed_runs_have_left_of_the_split_is_removed(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 1), CODEC, has_pairs=False)
    leftovers = [tmp_path / "data" / f".{split}-00000-of-00001.parquet.{'0' * 32}" for split in ("train", "test")]
    for path in leftovers:
        path.touch()

    publish_split(tmp_path, "train", CODEC)

    assert [path.exists() for path in leftovers] == [False, True]


def test_the_card_has_all_finished_splits(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 3), CODEC, has_pairs=False)
    add_chunks("validation", 1)
    finish_split(tmp_path, "test", *add_chunks("test", 2), CODEC, has_pairs=False)

    card = (tmp_path / "README.md").read_text()

    assert "| test | 2 | 1.00 | 2 | 0.0 |\n| train | 3 | 1.00 | 3 | 0.0 |\n\n" in card


def test_a_split_without_a_row_is_an_error_but_has_its_report(tmp_path, add_chunks):
    with pytest.raises(ValueError, match=r"Nothing could be tokenised: {'silent': 1}. '.*/skipped/train.jsonl' has"):
        finish_split(tmp_path, "train", *add_chunks("train", 0), CODEC, has_pairs=False)

    assert (tmp_path / "skipped" / "train.jsonl").exists()
    assert read_summary(tmp_path, "train") is None
