import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.encoding.unit_rows import UNIT_ROW_SCHEMA
from slam_hf.evaluation.units import encode_files, list_audio, read_tokenized


@pytest.fixture
def folder(tmp_path, recordings):
    """Three clips of the recordings, of different lengths, one at another sampling rate and in stereo."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    soundfile.write(folder / "1_correct.wav", waveform[:16000], rate)
    soundfile.write(folder / "1_incorrect.flac", waveform[8000:40000], rate)
    stereo = np.repeat(waveform[20000:44050, None], 2, axis=1)
    soundfile.write(folder / "2_correct.wav", stereo, 22050)
    return folder


def encode(folder, codec, cache_dir, **kwargs):
    return encode_files(list_audio(folder), codec, cache_dir, num_workers=0, **kwargs)


def units_alone(codec, path):
    waveform, rate = soundfile.read(path, dtype="float32")
    assert rate == codec.sampling_rate
    return codec.deduplicate(codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0])[0].tolist()


def test_units_are_those_of_each_file_alone(folder, tiny_codec, tmp_path):
    utterances = encode(folder, tiny_codec, tmp_path / "cache")
    assert list(utterances.units) == ["1_correct", "1_incorrect", "2_correct"]
    for name in ("1_correct.wav", "1_incorrect.flac"):
        assert utterances.units[name.partition(".")[0]].tolist() == units_alone(tiny_codec, folder / name)


def test_another_sampling_rate_is_converted(folder, tiny_codec, tmp_path):
    # 24,050 samples at 22,050 Hz are 27.27 frames at 25 Hz.
    units = encode(folder, tiny_codec, tmp_path / "cache").units["2_correct"]
    assert 1 < len(units) <= 27


def test_a_file_that_is_too_long_for_an_utterance_is_skipped(folder, tiny_codec, tmp_path, monkeypatch):
    monkeypatch.setattr("slam_hf.evaluation.units.MAX_UTTERANCE_SECONDS", 1.5)

    utterances = encode(folder, tiny_codec, tmp_path / "cache")

    assert list(utterances.units) == ["1_correct", "2_correct"]
    assert utterances.skipped == {"1_incorrect": "longer than 1.5 s"}


def test_a_named_pipe_in_a_benchmark_does_not_block(folder, tiny_codec, tmp_path):
    os.mkfifo(folder / "3_correct.wav")

    assert list(encode(folder, tiny_codec, tmp_path / "cache").units) == ["1_correct", "1_incorrect", "2_correct"]


def test_a_second_model_encodes_nothing(folder, tiny_codec, tmp_path, monkeypatch):
    first = encode(folder, tiny_codec, tmp_path / "cache")
    monkeypatch.setattr(tiny_codec, "encode", None)
    second = encode(folder, tiny_codec, tmp_path / "cache")
    assert {name: units.tolist() for name, units in second.units.items()} == {
        name: units.tolist() for name, units in first.units.items()
    }


def test_the_cache_goes_by_content(folder, tiny_codec, tmp_path, monkeypatch):
    before = encode(folder, tiny_codec, tmp_path / "cache")
    (folder / "1_correct.wav").rename(folder / "3_correct.wav")
    (folder / "1_incorrect.flac").unlink()
    waveform, rate = soundfile.read(folder / "3_correct.wav", dtype="float32")
    soundfile.write(folder / "2_correct.wav", waveform[:12000], rate)  # another content under an old name

    lengths = []
    encode_batch = tiny_codec.encode
    monkeypatch.setattr(tiny_codec, "encode", lambda clips: lengths.append([*map(len, clips)]) or encode_batch(clips))
    after = encode(folder, tiny_codec, tmp_path / "cache")
    assert lengths == [[12000]]
    assert after.units["3_correct"].tolist() == before.units["1_correct"].tolist()
    assert after.units["2_correct"].tolist() == units_alone(tiny_codec, folder / "2_correct.wav")


def test_another_codec_has_units_of_its_own(folder, tiny_codec, tmp_path):
    encode(folder, tiny_codec, tmp_path / "cache")
    codebook = tiny_codec.codebook.clone()
    try:
        tiny_codec.codebook.copy_(codebook.flip(0))
        flipped = encode(folder, tiny_codec, tmp_path / "cache")
        assert flipped.units["1_correct"].tolist() == units_alone(tiny_codec, folder / "1_correct.wav")
    finally:
        tiny_codec.codebook.copy_(codebook)
    assert encode(folder, tiny_codec, tmp_path / "cache").units["1_correct"].tolist() == [
        49 - unit for unit in flipped.units["1_correct"].tolist()
    ]


def test_what_cannot_be_encoded_is_skipped_with_its_reason_and_not_tried_again(
    folder, tiny_codec, tmp_path, monkeypatch
):
    soundfile.write(folder / "short.wav", np.zeros(639, dtype=np.float32), 16000)
    soundfile.write(folder / "frame.wav", np.zeros(640, dtype=np.float32), 16000)
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    (folder / "corrupt.wav").write_bytes(b"RIFF, but no more")
    (folder / "empty.wav").touch()
    first = encode(folder, tiny_codec, tmp_path / "cache")
    monkeypatch.setattr(tiny_codec, "encode", None)
    for utterances in (first, encode(folder, tiny_codec, tmp_path / "cache")):
        assert len(utterances.units["frame"]) == 1
        assert {name: reason.partition(":")[0] for name, reason in utterances.skipped.items()} == {
            "short": "too short",
            "nan": "not finite",
            "corrupt": "corrupt",
            "empty": "empty",
        }
        assert utterances.skipped["short"] == "too short: 0.040 s"


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"PAR1" * 99])
def test_a_damaged_entry_of_the_cache_is_encoded_again(folder, tiny_codec, tmp_path, damage, caplog):
    first = encode(folder, tiny_codec, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").rglob("*.parquet")
    entry.write_bytes(damage(entry.read_bytes()))

    second = encode(folder, tiny_codec, tmp_path / "cache")

    assert "1 damaged chunk is encoded again" in caplog.text
    assert {name: units.tolist() for name, units in second.units.items()} == {
        name: units.tolist() for name, units in first.units.items()
    }


def test_an_entry_of_another_codec_is_not_taken(folder, tiny_codec, tmp_path, monkeypatch):
    encode(folder, tiny_codec, tmp_path / "cache")
    (cache,) = (tmp_path / "cache").iterdir()
    codebook = tiny_codec.codebook.clone()
    try:
        tiny_codec.codebook.copy_(codebook.flip(0))
        shutil.copytree(cache, tmp_path / "cache" / describe_codec(tiny_codec).weights)
        flipped = encode(folder, tiny_codec, tmp_path / "cache")
        assert flipped.units["1_correct"].tolist() == units_alone(tiny_codec, folder / "1_correct.wav")
    finally:
        tiny_codec.codebook.copy_(codebook)


def test_only_bad_files(tmp_path, tiny_codec):
    (tmp_path / "empty.wav").touch()
    utterances = encode(tmp_path, tiny_codec, tmp_path / "cache")
    assert (utterances.units, utterances.skipped) == ({}, {"empty": "empty: the file has no content"})


def test_names_must_be_unique(tmp_path):
    (tmp_path / "1_correct.wav").touch()
    (tmp_path / "1_correct.flac").touch()
    with pytest.raises(ValueError, match="has two utterances '1_correct'"):
        list_audio(tmp_path)


@pytest.mark.parametrize("subfolder", ["", "data"])
def test_tokenised_folder(tmp_path, subfolder):
    rows = [
        {"id": "a/1_correct.wav", "units": [3, 1], "durations": [1, 2], "num_frames": 3},
        {"id": "a/1_incorrect", "units": [7], "durations": [1], "num_frames": 1},
        {"id": "a/2_correct", "units": [], "durations": [], "num_frames": 0},
    ]
    (tmp_path / subfolder).mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=UNIT_ROW_SCHEMA)
    pq.write_table(table, tmp_path / subfolder / "train-00000-of-00001.parquet")
    (tmp_path / "skipped").mkdir()
    skipped = {"id": "a/2_incorrect.wav", "reason": "too short", "detail": "0.006 s"}
    (tmp_path / "skipped" / "train.jsonl").write_text(json.dumps(skipped) + "\n")
    utterances = read_tokenized(tmp_path)
    assert {name: units.tolist() for name, units in utterances.units.items()} == {
        "a/1_correct": [3, 1],
        "a/1_incorrect": [7],
    }
    assert utterances.skipped == {"a/2_correct": "no units", "a/2_incorrect": "too short: 0.006 s"}
    assert list(utterances.hashes) == ["a/1_correct", "a/1_incorrect", "a/2_correct", "a/2_incorrect"]


def test_names_with_line_separators_are_read(tmp_path):
    table = pa.Table.from_pylist([{"id": "a", "units": [1]}], schema=UNIT_ROW_SCHEMA)
    pq.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "skipped").mkdir()
    line = json.dumps({"id": "b\u2028c.wav", "reason": "silent", "detail": "all zeros"}, ensure_ascii=False)
    (tmp_path / "skipped" / "train.jsonl").write_text(line + "\n", encoding="utf-8")

    assert read_tokenized(tmp_path).skipped == {"b\u2028c": "silent: all zeros"}


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', '{"id": 3, "reason": "a", "detail": "b"}'])
def test_a_damaged_report_is_named(tmp_path, line):
    pq.write_table(pa.Table.from_pylist([], schema=UNIT_ROW_SCHEMA), tmp_path / "train.parquet")
    (tmp_path / "skipped").mkdir()
    good = json.dumps({"id": "b.wav", "reason": "silent", "detail": "all zeros"})
    (tmp_path / "skipped" / "train.jsonl").write_text(f"{good}\n\n{line}\n")

    with pytest.raises(ValueError, match=f"'{tmp_path}/skipped/train.jsonl' is damaged in line 3"):
        read_tokenized(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text"])
def test_a_damaged_shard_is_named(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)

    with pytest.raises(ValueError, match=f"'{tmp_path}/train.parquet' is not a tokenised corpus, or damaged"):
        read_tokenized(tmp_path)


def test_folder_that_is_not_tokenised(folder):
    assert read_tokenized(folder) is None


def test_a_column_of_texts_that_holds_other_things_is_refused(tmp_path):
    rows = {"id": ["1_correct"], "units": [[1, 2]], "text": [["One", "word", "each"]]}
    pq.write_table(pa.table(rows), tmp_path / "units.parquet")
    with pytest.raises(ValueError, match=r"units\.parquet' is not a tokenised corpus, or damaged: .*list"):
        read_tokenized(tmp_path)
    pq.write_table(pa.table(rows | {"text": ["One word."]}), tmp_path / "units.parquet")
    assert read_tokenized(tmp_path).texts == {"1_correct": "One word."}
