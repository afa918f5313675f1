import json
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import Dataset

from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.corpora.slamkit import from_slamkit, read_slamkit, to_slamkit, write_slamkit


FEATURES_FILE = Path(__file__).parent / "fixtures" / "librispeech-clips" / "features.jsonl"

RECORD = {"units": [1], "duration": [1], "file_name": "a"}


def test_published_features_become_rows():
    rows = list(read_slamkit(FEATURES_FILE))

    assert [row["id"] for row in rows] == ["../example_data/audio/audio2.flac", "../example_data/audio/audio1.flac"]
    assert [len(row["units"]) for row in rows] == [328, 288]
    assert [row["num_frames"] for row in rows] == [398, 352]
    assert rows[0]["units"][:4] == [3, 49, 7, 254]
    assert all(a != b for row in rows for a, b in pairwise(row["units"]))


def test_published_features_survive_a_dataset_to_the_byte(tmp_path):
    Dataset.from_list(list(read_slamkit(FEATURES_FILE)), UNIT_CORPUS_FEATURES).to_parquet(tmp_path / "units.parquet")

    write_slamkit(Dataset.from_parquet(str(tmp_path / "units.parquet")), tmp_path / "features.jsonl")

    assert (tmp_path / "features.jsonl").read_bytes() == FEATURES_FILE.read_bytes()


def test_rows_survive_slamkit():
    row = {
        "id": "é/1.wav#t=0,40",
        "units": [0, 499, 3],
        "durations": [1, 70, 2],
        "num_frames": 73,
        "text": "to be",
        "aligned_text": [{"word": "to", "start_time": 0.1, "end_time": 0.3}],
    }

    record = to_slamkit(row)

    assert record == {
        "units": [0, 499, 3],
        "duration": [1, 70, 2],
        "file_name": "é/1.wav#t=0,40",
        "text": "to be",
        "aligned_text": [["to", 0.1, 0.3]],
    }
    assert from_slamkit(json.loads(json.dumps(record))) == row


def test_units_that_were_not_deduplicated_are():
    row = from_slamkit({"units": [5, 5, 7, 5], "duration": [1, 1, 1, 1], "file_name": "a"})

    assert (row["units"], row["durations"], row["num_frames"]) == ([5, 7, 5], [2, 1, 1], 4)


def test_lines_end_at_line_feeds_only(tmp_path):
    texts = ["a\u2028b", "c\u2029\x85d", "e\x0b\x0cf"]
    lines = [json.dumps({**RECORD, "text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "features.jsonl").write_text("\r\n\n".join(lines), encoding="utf-8-sig", newline="")

    assert [row["text"] for row in read_slamkit(tmp_path / "features.jsonl")] == texts


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"units": [1], "file_name": "a"}, r"expected 'units', .* got \['units', 'file_name'\]"),
        ({"units": [1], "duration": [1], "file_name": "a", "speaker": 3}, "expected 'units', .* got .*'speaker'"),
        ({"units": [1, 2], "duration": [1], "file_name": "a"}, "2 units, but 1 durations"),
        ({"units": [-1], "duration": [1], "file_name": "a"}, "unit -1 of 1 frames"),
        ({"units": [65536], "duration": [1], "file_name": "a"}, "unit 65536 of 1 frames"),
        ({"units": [1], "duration": [0], "file_name": "a"}, "unit 1 of 0 frames"),
        ({"units": 1, "duration": [1], "file_name": "a"}, "'units' and 'duration' must be lists"),
        ({"units": ["1"], "duration": [1], "file_name": "a"}, "unit 1 of 1 frames"),
        ({"units": [1], "duration": [1.5], "file_name": "a"}, "unit 1 of 1.5 frames"),
        ({"units": [1, 1], "duration": [65535, 1], "file_name": "a"}, "a unit of 65,536 frames: at most 65,535"),
        ({**RECORD, "file_name": 5}, "'file_name' and 'text' must be text and 'aligned_text' a list, got 5"),
        ({**RECORD, "text": ["a"]}, "'file_name' and 'text' must be text"),
        ({**RECORD, "text": "\ud800"}, "'utf-8' codec can't encode"),
        ({**RECORD, "aligned_text": "a"}, "'file_name' and 'text' must be text and 'aligned_text' a list"),
        ({**RECORD, "aligned_text": [["a", 0]]}, r"expected \[word, start, end\] in 'aligned_text', got \['a', 0\]"),
        ({**RECORD, "aligned_text": [["a", 0, 1e30]]}, r"expected \[word, start, end\]"),
        ({**RECORD, "aligned_text": [["a", 10**400, 1]]}, r"expected \[word, start, end\]"),
        ({**RECORD, "aligned_text": [["a", float("nan"), 1]]}, r"expected \[word, start, end\]"),
        ([1], "expected 'units'"),
        (5, "expected 'units', .* got 5"),
    ],
)
def test_other_lines_are_an_error_that_names_them(tmp_path, record, message):
    path = tmp_path / "features.jsonl"
    path.write_text(json.dumps({"units": [1], "duration": [1], "file_name": "a"}) + "\n" + json.dumps(record) + "\n")

    with pytest.raises(ValueError, match=f"'.*/features.jsonl', line 2: {message}"):
        list(read_slamkit(path))
