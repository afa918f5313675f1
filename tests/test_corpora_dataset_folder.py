import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slam_hf.corpora import dataset_folder
from slam_hf.corpora.dataset_card import SplitSummary
from slam_hf.corpora.dataset_folder import check_vacant, job_folder, publish_split, read_summary, write_split
from slam_hf.encoding.codec_identity import CodecDescription
from slam_hf.encoding.ledger import ChunkKey, ChunkRecord, Ledger
from slam_hf.encoding.recordings import Skipped, SkipReason
from slam_hf.encoding.sources import FilePart
from slam_hf.encoding.unit_rows import UNIT_ROW_SCHEMA


CODEC = CodecDescription("codec", None, "f" * 64, 500, 16_000, 25.0)


@pytest.fixture
def add_chunks(tmp_path):
    """Adds a chunk of an hour for each number of rows to the ledger of a split, each a part of its own."""

    def add_chunks(split, *nums_rows):
        ledger = Ledger(f"{job_folder(tmp_path, split)}/chunks")
        ledger.begin([])
        for number, num_rows in enumerate(nums_rows):
            rows = [
                {"id": f"{number}-{row}", "units": [row], "durations": [2], "num_frames": 2} for row in range(num_rows)
            ]
            skipped = [] if num_rows else [Skipped(f"{number}", SkipReason.SILENT, "all zeros")]
            seconds = 3600.0 if num_rows else 0.0
            record = ChunkRecord(1, True, seconds, num_rows, num_rows, 2 * num_rows, skipped)
            table = pa.Table.from_pylist(rows, schema=UNIT_ROW_SCHEMA)
            ledger.add(ChunkKey(number, 0), table, record)
        return ledger, [FilePart(None, 0, 1, 3600.0)] * len(nums_rows)

    return add_chunks


def finish_split(output_dir, split, ledger, parts):
    summary = write_split(output_dir, split, ledger, parts, has_pairs=False)
    publish_split(output_dir, split, CODEC)
    return summary


def read_ids(path):
    return pq.read_table(path)["id"].to_pylist()


def test_chunks_become_shards_in_order(tmp_path, add_chunks, monkeypatch):
    monkeypatch.setattr(dataset_folder, "SHARD_SECONDS", 2 * 3600.0)

    summary = finish_split(tmp_path, "train", *add_chunks("train", 1, 2, 0, 1, 0))

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

    summary = finish_split(tmp_path, "train", *add_chunks("train", 1))

    assert read_summary(tmp_path, "train") == summary
    assert [path.name for path in Path(job_folder(tmp_path, "train")).iterdir()] == ["summary.json"]


def test_leftovers_of_killed_runs_of_the_split_are_removed(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 1))
    leftovers = [tmp_path / "data" / f".{split}-00000-of-00001.parquet.{'0' * 32}" for split in ("train", "test")]
    for path in leftovers:
        path.touch()

    publish_split(tmp_path, "train", CODEC)

    assert [path.exists() for path in leftovers] == [False, True]


def test_the_card_has_all_finished_splits(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 3))
    add_chunks("validation", 1)
    finish_split(tmp_path, "test", *add_chunks("test", 2))

    card = (tmp_path / "README.md").read_text()

    assert "| test | 2 | 1.00 | 2 | 0.0 |\n| train | 3 | 1.00 | 3 | 0.0 |\n\n" in card


def test_a_split_without_a_row_is_an_error_but_has_its_report(tmp_path, add_chunks):
    with pytest.raises(ValueError, match=r"Nothing could be tokenised: 1 × silent. '.*/skipped/train.jsonl' has"):
        finish_split(tmp_path, "train", *add_chunks("train", 0))

    assert (tmp_path / "skipped" / "train.jsonl").exists()
    assert read_summary(tmp_path, "train") is None


def test_a_split_is_not_finished_while_chunks_are_missing(tmp_path, add_chunks):
    ledger, parts = add_chunks("train", 1, 2)

    with pytest.raises(ValueError, match="1 of 3 parts of the input are not encoded"):
        finish_split(tmp_path, "train", ledger, [*parts, FilePart(None, 0, 1, 1.0)])

    assert [path.name for path in tmp_path.iterdir()] == [".tokenization"]


def test_the_report_has_a_line_for_each_name_whatever_it_holds(tmp_path, add_chunks):
    ledger, parts = add_chunks("train", 1)
    names = ["a\u2028b\x85c.wav", "caf\udce9.wav", "\ud800"]
    skipped = [Skipped(name, SkipReason.UNREADABLE, "café") for name in names]
    (key,) = ledger.records
    ledger.add(key, ledger.read_rows(key), replace(ledger.records[key], skipped=skipped))

    finish_split(tmp_path, "train", ledger, parts)

    lines = (tmp_path / "skipped" / "train.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a\u2028b\x85c.wav", "caf\\udce9.wav", "\\ud800"]
    assert json.loads(lines[0])["detail"] == "café"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"split": "train"}'])
def test_a_damaged_summary_is_named(tmp_path, content):
    path = Path(job_folder(tmp_path, "train"), "summary.json")
    path.parent.mkdir(parents=True)
    path.write_text(content)

    with pytest.raises(ValueError, match=f"^'{path}' is damaged .*Remove it and start the same command again"):
        read_summary(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/train-00000-of-00001.parquet", None),
        ("data/train-00000-of-00001.parquet", b"PAR1"),
        ("data/train-00001-of-00002.parquet", b"PAR1"),
        ("skipped/train.jsonl", b"{"),
        ("skipped/train.jsonl", None),
    ],
)
def test_the_files_of_a_finished_split_are_checked(tmp_path, add_chunks, name, content):
    finish_split(tmp_path, "train", *add_chunks("train", 3))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ValueError, match=f"^'{tmp_path}/{name}' is not as .* Remove it and '.*/train/summary.json'"):
        publish_split(tmp_path, "train", CODEC)


def test_a_summary_of_an_earlier_version_names_no_files(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 3))
    path = Path(job_folder(tmp_path, "train"), "summary.json")
    summary = json.loads(path.read_text())
    del summary["files"]
    path.write_text(json.dumps(summary))

    publish_split(tmp_path, "train", CODEC)


@pytest.mark.parametrize(
    "name", ["README.md", "data/train-00000-of-00002.parquet", "data/train-mine", "skipped/train.jsonl"]
)
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()

    with pytest.raises(FileExistsError, match=f"^'{tmp_path}' holds files that no tokenisation .*: {name}. Choose"):
        check_vacant(tmp_path, "train")


def test_own_files_are_replaced(tmp_path, add_chunks):
    finish_split(tmp_path, "train", *add_chunks("train", 3))
    (tmp_path / "data" / "other.parquet").touch()

    for split in ("train", "test"):
        check_vacant(tmp_path, split)


def test_a_source_without_recordings_is_an_error(tmp_path, add_chunks):
    ledger, _ = add_chunks("train", 0)
    with pytest.raises(ValueError, match="^There are no recordings in the source.$"):
        finish_split(tmp_path, "train", ledger, [])
