import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, load_dataset
from killed_jobs import read_files, run_two_at_once, start

from slam_hf.atomic_write import DiskFullError
from slam_hf.corpora.dataset_folder import write_split
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.dataset_source import dataset_source
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.sources import file_source
from slam_hf.folder_lock import FolderInUseError


FIXTURES = Path(__file__).parent / "fixtures"
RATE = 16_000


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


@pytest.fixture
def recordings(tmp_path):
    """A folder of eleven recordings of 1 to 6 seconds, and three that cannot be read."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(11):
        soundfile.write(folder / f"{number:02d}.flac", noise(1 + number / 2, seed=number), RATE)
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no audio " * 100)
    return folder


def tokenize(folder, codec, output_dir, num_workers=0, **arguments):
    source = file_source(list_audio_folder(folder), chunk_seconds=6.0)
    return tokenize_corpus(source, codec, output_dir, num_workers=num_workers, **arguments)


def test_the_units_are_those_of_the_reference(tiny_codec, tmp_path):
    reference = json.loads((FIXTURES / "hubert-25hz" / "reference.json").read_text())
    rows = [
        {"path": f"{name}.flac", "offset": start / RATE, "duration": (end - start) / RATE}
        for name, start, end in reference["clips"]
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))

    source = file_source(read_manifest(manifest, root=FIXTURES / "librispeech-clips"))
    summary = tokenize_corpus(source, tiny_codec, tmp_path / "units", num_workers=0)

    dataset = load_dataset(str(tmp_path / "units"), split="train", cache_dir=tmp_path / "cache")
    expected = reference["reference"]
    assert dataset["id"] == [
        "audio1.flac#t=0,3",
        "audio1.flac#t=3.75,5.0000625",
        "audio2.flac#t=1,8.0215625",
        "audio2.flac#t=0,0.5",
    ]
    assert dataset["units"] == [clip["units"] for clip in expected]
    assert dataset["durations"] == [clip["durations"] for clip in expected]
    assert dataset["num_frames"] == [len(clip["raw"]) for clip in expected]
    assert summary.num_units == sum(len(clip["units"]) for clip in expected)
    assert summary.num_frames == sum(len(clip["raw"]) for clip in expected)


def test_rows_are_in_the_order_of_the_input_and_the_rest_is_reported(tiny_codec, recordings, tmp_path):
    summary = tokenize(recordings, tiny_codec, tmp_path / "units")

    dataset = load_dataset(str(tmp_path / "units"), split="train", streaming=True)
    assert [row["id"] for row in dataset] == [f"{number:02d}.flac" for number in range(11)]
    report = [json.loads(line) for line in (tmp_path / "units" / "skipped" / "train.jsonl").read_text().splitlines()]
    assert report == [
        {"id": "empty.wav", "reason": "empty", "detail": "the file has no content"},
        {"id": "silence.wav", "reason": "silent", "detail": "all zeros"},
        {"id": "text.wav", "reason": "corrupt", "detail": "Format not recognised."},
    ]
    assert (summary.num_rows, summary.seconds) == (11, 38.5)
    assert summary.skipped == {"empty": 1, "silent": 1, "corrupt": 1}


def test_workers_and_batches_do_not_change_the_dataset(tiny_codec, recordings, tmp_path):
    tokenize(recordings, tiny_codec, tmp_path / "a")
    source = file_source(list_audio_folder(recordings), chunk_seconds=6.0)
    tokenize_corpus(source, tiny_codec, tmp_path / "b", num_workers=2)

    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test_pieces_with_context_have_the_frames_of_the_whole(tiny_codec, recordings, tmp_path):
    rules = PieceRules(Segmentation(2.0, cut="fixed", overlap_seconds=0.4, overlap="context"))
    tokenize(recordings, tiny_codec, tmp_path / "cut", rules=rules)
    tokenize(recordings, tiny_codec, tmp_path / "whole")

    def frames(folder):
        frames = {}
        for row in load_dataset(str(tmp_path / folder), split="train", streaming=True):
            frames.setdefault(row["id"].partition("#")[0], []).extend(np.repeat(row["units"], row["durations"]))
        return frames

    cut, whole = frames("cut"), frames("whole")
    assert {id: len(units) for id, units in cut.items()} == {id: len(units) for id, units in whole.items()}


def test_loaded_and_streamed_datasets_give_the_same_units(tiny_codec, recordings, tmp_path):
    paths = [str(path) for path in sorted(recordings.glob("*.flac"))]
    dataset = Dataset.from_dict({"audio": paths, "text": paths}).cast_column("audio", Audio())
    stream = dataset.to_iterable_dataset(num_shards=3)
    rows = {}
    for name, input in (("files", None), ("loaded", dataset), ("streamed", stream)):
        if input is None:
            tokenize(recordings, tiny_codec, tmp_path / name)
        else:
            tokenize_corpus(dataset_source(input, chunk_seconds=6.0), tiny_codec, tmp_path / name, num_workers=1)
        rows[name] = list(load_dataset(str(tmp_path / name), split="train", streaming=True))

    assert [row["text"] for row in rows["loaded"]] == [row["text"] for row in rows["streamed"]] == paths
    units = [[row["units"] for row in rows[name]] for name in rows]
    assert units[0] == units[1] == units[2]


def test_preference_pairs_are_unit_strings(tiny_codec, recordings, tmp_path):
    columns = {
        "prompt": [str(recordings / f"0{number}.flac") for number in (0, 1, 2)],
        "chosen": [str(recordings / f"0{number}.flac") for number in (3, 4, 5)],
        "rejected": [str(recordings / name) for name in ("06.flac", "silence.wav", "07.flac")],
        "prompt_text": ["a", "b", "c"],
    }
    tokenize(recordings, tiny_codec, tmp_path / "units")

    source = dataset_source(Dataset.from_dict(columns), has_pairs=True)
    summary = tokenize_corpus(source, tiny_codec, tmp_path / "pairs", num_workers=0)

    units = {row["id"]: row["units"] for row in load_dataset(str(tmp_path / "units"), split="train", streaming=True)}
    first, last = load_dataset(str(tmp_path / "pairs"), split="train", streaming=True)
    assert (first["id"], first["prompt_text"], first["chosen_text"]) == ("000000000", "a", None)
    assert first["prompt"] == "".join(f"<Un{unit}>" for unit in units["00.flac"])
    assert first["chosen"] == "".join(
        f"<Un{unit}>" for unit in units["03.flac"][units["03.flac"][0] == units["00.flac"][-1] :]
    )
    assert last["id"] == "000000002"
    assert summary.skipped == {"silent": 1, "incomplete pair": 1}


def test_pairs_are_the_same_in_any_number_of_chunks(tiny_codec, recordings, tmp_path):
    paths = [str(recordings / f"{number:02d}.flac") for number in range(11)] + [str(recordings / "silence.wav")]
    columns = {"prompt": paths, "chosen": paths[1:] + paths[:1], "rejected": paths[2:] + paths[:2]}
    for name, chunk_seconds in (("one", 300.0), ("many", 10.0)):
        source = dataset_source(Dataset.from_dict(columns), has_pairs=True, chunk_seconds=chunk_seconds)
        summary = tokenize_corpus(source, tiny_codec, tmp_path / name, num_workers=0)
        assert summary.num_rows + summary.skipped["incomplete pair"] == 12

    assert read_files(tmp_path / "one" / "data") == read_files(tmp_path / "many" / "data")
    reports = [(tmp_path / name / "skipped" / "train.jsonl").read_text().split("\n") for name in ("one", "many")]
    assert sorted(reports[0]) == sorted(reports[1])


def test_splits_share_a_folder_and_a_card(tiny_codec, recordings, tmp_path):
    tokenize(recordings, tiny_codec, tmp_path / "units")
    (recordings / "00.flac").unlink()
    tokenize(recordings, tiny_codec, tmp_path / "units", split="test")

    dataset = load_dataset(str(tmp_path / "units"), cache_dir=tmp_path / "cache")

    assert {name: len(split) for name, split in dataset.items()} == {"test": 10, "train": 11}


def test_a_finished_folder_is_not_touched(tiny_codec, recordings, tmp_path):
    summary = tokenize(recordings, tiny_codec, tmp_path / "units")
    before = read_files(tmp_path / "units")

    assert tokenize(recordings, tiny_codec, tmp_path / "units") == summary
    assert read_files(tmp_path / "units") == before


def test_other_options_and_changed_recordings_are_refused(tiny_codec, recordings, tmp_path):
    tokenize(recordings, tiny_codec, tmp_path / "units")

    for rules, message in (
        (PieceRules(min_seconds=1.5), "rules.min_seconds: was 0.1, is now 1.5"),
        (PieceRules(Segmentation(20.0)), "rules.segmentation.max_seconds: was 40.0, is now 20.0"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenize(recordings, tiny_codec, tmp_path / "units", rules=rules)
    (recordings / "00.flac").unlink()
    with pytest.raises(ValueError, match="source.files: was 14, is now 13"):
        tokenize(recordings, tiny_codec, tmp_path / "units")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_full_disk_stops_the_job_and_it_continues(tiny_codec, recordings, tmp_path, monkeypatch, num_workers):
    tokenize(recordings, tiny_codec, tmp_path / "expected")
    fsync, calls = os.fsync, []

    def full_after_four(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_four)
        with pytest.raises(DiskFullError, match="start the same command again to continue"):
            tokenize(recordings, tiny_codec, tmp_path / "units", num_workers)
    chunks = os.listdir(tmp_path / "units" / ".tokenization" / "train" / "chunks")
    assert len(chunks) == 3
    assert all(re.fullmatch(r"\d{6}-00000-[0-9a-f]{16}.parquet", chunk) for chunk in chunks)

    tokenize(recordings, tiny_codec, tmp_path / "units")

    assert read_files(tmp_path / "units") == read_files(tmp_path / "expected")


def run_and_die(folder, codec, output_dir, die_at):
    """Tokenise, and be killed before (`die_at` even) or after (odd) a file gets its name."""
    replace, calls = os.replace, []

    def replace_and_die(source, target):
        calls.append(target)
        if len(calls) == die_at // 2 and die_at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if len(calls) == die_at // 2 and die_at % 2 == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    tokenize(folder, codec, output_dir)


def test_a_job_that_is_killed_again_and_again_gives_the_same_dataset(tiny_codec, recordings, tmp_path):
    tokenize(recordings, tiny_codec, tmp_path / "expected")

    # The settings, then two chunks in each run, until what remains are the files of the finished dataset.
    for die_at in (2, 6, 7, 6, 7, 8, 6, 7, 8, 9):
        process = start(run_and_die, recordings, tiny_codec, tmp_path / "units", die_at)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    tokenize(recordings, tiny_codec, tmp_path / "units")

    assert read_files(tmp_path / "units") == read_files(tmp_path / "expected")


@pytest.mark.slow
@pytest.mark.attack
def test_a_job_that_is_killed_at_random_gives_the_same_dataset(tiny_codec, recordings, tmp_path, record_property):
    started = time.monotonic()
    tokenize(recordings, tiny_codec, tmp_path / "expected", num_workers=2)
    duration = time.monotonic() - started
    random.seed(0)

    kills = 0
    for attempt in range(25):
        output_dir = tmp_path / f"units-{attempt}"
        for _ in range(2):
            process = start(tokenize, recordings, tiny_codec, output_dir, 2)
            process.join(timeout=random.uniform(0, duration))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        tokenize(recordings, tiny_codec, output_dir, num_workers=2)

        assert read_files(output_dir) == read_files(tmp_path / "expected")
    assert kills >= 20
    record_property("attack", f"tokenising: {kills} runs killed at random moments, 25 corpora, the same bytes")


def tokenize_slowly(folder, codec, output_dir):
    encode = codec.encode
    codec.encode = lambda *arguments: time.sleep(0.2) or encode(*arguments)
    tokenize(folder, codec, output_dir)


def test_a_second_job_is_refused_while_the_first_is_running(tiny_codec, recordings, tmp_path):
    tokenize(recordings, tiny_codec, tmp_path / "expected")

    process = start(tokenize_slowly, recordings, tiny_codec, tmp_path / "units")
    while not list((tmp_path / "units").glob(".tokenization/train/chunks/*")):
        time.sleep(0.01)
    for split in ("train", "test"):
        with pytest.raises(
            FolderInUseError, match=f"Another job is writing to '{tmp_path}/units' .process {process.pid}"
        ):
            tokenize(recordings, tiny_codec, tmp_path / "units", split=split)
    process.kill()
    process.join()
    tokenize(recordings, tiny_codec, tmp_path / "units")

    assert read_files(tmp_path / "units") == read_files(tmp_path / "expected")


@pytest.mark.slow
@pytest.mark.attack
def test_two_jobs_at_once_lose_no_rows(tiny_codec, recordings, tmp_path, record_property):
    tokenize(recordings, tiny_codec, tmp_path / "expected")
    random.seed(0)
    refused = 0
    for attempt in range(14):
        output_dir = tmp_path / f"units-{attempt}"
        refused += run_two_at_once(tokenize, recordings, tiny_codec, output_dir, 2)

        assert read_files(output_dir) == read_files(tmp_path / "expected")
    assert refused >= 7
    record_property("attack", f"tokenising: 14 pairs of jobs at once, {refused} refused, 0 rows lost")


def test_an_output_that_is_moved_away_while_it_is_written_ends_the_job(tiny_codec, recordings, tmp_path, monkeypatch):
    tokenize(recordings, tiny_codec, tmp_path / "expected")
    encode, calls = tiny_codec.encode, []

    def encode_and_move(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            (tmp_path / "units").rename(tmp_path / "moved")
        return encode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_codec, "encode", encode_and_move)
        with pytest.raises(FileNotFoundError, match="units/.tokenization/train/chunks' was moved or removed"):
            tokenize(recordings, tiny_codec, tmp_path / "units")
    tokenize(recordings, tiny_codec, tmp_path / "units")
    tokenize(recordings, tiny_codec, tmp_path / "moved")

    for name in ("units", "moved"):
        assert read_files(tmp_path / name) == read_files(tmp_path / "expected")


def test_an_output_that_is_moved_away_before_its_end_is_not_finished(tiny_codec, recordings, tmp_path, monkeypatch):
    def move_and_finish(output_dir, *arguments):
        (tmp_path / "units").rename(tmp_path / "moved")
        return write_split(output_dir, *arguments)

    monkeypatch.setattr("slam_hf.corpora.job.write_split", move_and_finish)
    with pytest.raises(ValueError, match="6 of 6 parts of the input are not encoded.*Start the same command again"):
        tokenize(recordings, tiny_codec, tmp_path / "units")

    assert not list((tmp_path / "units").rglob("*.parquet"))


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"PAR1" * 99])
def test_damaged_chunks_are_encoded_again(tiny_codec, recordings, tmp_path, damage, caplog):
    tokenize(recordings, tiny_codec, tmp_path / "expected")
    process = start(run_and_die, recordings, tiny_codec, tmp_path / "units", 10)
    process.join()
    chunks = sorted((tmp_path / "units").glob(".tokenization/train/chunks/*.parquet"))
    for chunk in chunks[:2]:
        chunk.write_bytes(damage(chunk.read_bytes()))

    tokenize(recordings, tiny_codec, tmp_path / "units")

    assert "2 damaged chunks are encoded again" in caplog.text
    assert read_files(tmp_path / "units") == read_files(tmp_path / "expected")


DAMAGES = [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: b'{"codec": 1, "split": []}',
    lambda content: b"\xff" + content[1:],
    lambda content: content[:60] + b"\xff" + content[61:],
    lambda content: None,  # removed
]


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("is_finished", [False, True])
def test_no_damage_to_the_state_or_the_output_loses_rows(
    tiny_codec, recordings, tmp_path, is_finished, record_property
):
    tokenize(recordings, tiny_codec, tmp_path / "expected")
    expected = read_files(tmp_path / "expected")
    if is_finished:
        shutil.copytree(tmp_path / "expected", tmp_path / "before")
    else:
        start(run_and_die, recordings, tiny_codec, tmp_path / "before", 12).join()
    outcomes = Counter()
    for name in read_files(tmp_path / "before"):
        for damage in DAMAGES:
            output_dir = tmp_path / "units"
            shutil.copytree(tmp_path / "before", output_dir)
            content = damage((output_dir / name).read_bytes())
            (output_dir / name).write_bytes(content) if content is not None else (output_dir / name).unlink()
            try:
                tokenize(recordings, tiny_codec, output_dir)
                outcomes["mended"] += 1
                assert read_files(output_dir) == expected, name
            except ValueError as error:
                outcomes["refused"] += 1
                assert name in str(error) or Path(name).parent.name in str(error)
            shutil.rmtree(output_dir)
    assert outcomes.total() >= 30
    assert outcomes["mended"] > outcomes["refused"] or is_finished
    kind = "finished" if is_finished else "begun"
    figures = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    record_property("attack", f"tokenising: {outcomes.total()} damaged states of {kind} jobs, {figures}, 0 rows lost")


def test_files_of_others_are_left_alone(tiny_codec, recordings, tmp_path):
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "README.md").write_text("mine")

    with pytest.raises(FileExistsError, match="README.md. Choose another folder, or move them away"):
        tokenize(recordings, tiny_codec, tmp_path / "units")

    assert (tmp_path / "units" / "README.md").read_text() == "mine"


@pytest.mark.parametrize("split", ["", "..", "a/b", "train-1", "train[:10]"])
def test_a_split_needs_a_name_of_letters_and_digits(tiny_codec, recordings, tmp_path, split):
    with pytest.raises(ValueError, match="A split needs a name of letters and digits"):
        tokenize(recordings, tiny_codec, tmp_path / "units", split=split)
