import json
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from slam_hf.encoding import sources
from slam_hf.encoding.dataset_source import open_dataset
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.source_arguments import SourceArguments, VoiceSourceArguments
from slam_hf.encoding.source_file import open_source, prepare_source
from slam_hf.encoding.sources import file_source


RATE = 8000


def write_noise(path, seconds=1.0, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)), RATE)


@pytest.fixture
def folder(tmp_path):
    """Five recordings of 1 to 5 seconds, and a file that is not named as audio."""
    for number in range(5):
        write_noise(tmp_path / "audio" / f"{number}.wav", seconds=1 + number, seed=number)
    (tmp_path / "audio" / "notes").touch()
    return tmp_path / "audio"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job" / "input.parquet"


@pytest.fixture
def no_probes(monkeypatch):
    """Fails where a file is opened to probe it."""

    def refuse(audio):
        raise AssertionError(f"{audio} was probed again")

    return lambda: monkeypatch.setattr(sources, "_probe", refuse)


def describe(source):
    """All that tasks see of a source."""
    parts = [(part.num_rows, part.seconds, list(part.read(0))) for part in source.parts]
    return parts, source.identity, source.chunk_seconds, source.has_pairs


def test_every_task_opens_the_parts_that_were_listed(folder, path):
    args = SourceArguments(str(folder), chunk_seconds=3.0)

    prepared, opened = prepare_source(path, args), open_source(path)

    assert describe(opened) == describe(prepared) == describe(file_source(list_audio_folder(folder), 3.0))
    assert [part.num_rows for part in opened.parts] == [2, 1, 1, 1, 1]
    assert [part.seconds for part in opened.parts] == [3.0, 3.0, 4.0, 5.0, 0.0]
    assert list(opened.parts[0].read(1)) == [[Recording("1.wav", str(folder / "1.wav"))]]
    skipped = Skipped("notes", SkipReason.WRONGLY_NAMED, "its extension is not that of an audio format")
    assert list(opened.parts[4].read(0)) == [[skipped]]


def test_what_a_manifest_says_is_kept(tmp_path, path):
    words = [{"word": "go", "start_time": 0.0, "end_time": 0.25}]
    rows = [
        {"path": "a.wav", "offset": 0.5, "duration": 1.5, "text": "go on \0 \u2028", "aligned_text": words},
        {"path": "a.wav", "offset": 0.25, "id": "second", "aligned_text": []},
        {"path": "../a.wav"},
        {"path": "missing.wav"},
        {"path": "https://127.0.0.1:9/a.wav", "offset": -1},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_noise(tmp_path / "a.wav", seconds=3)

    prepare_source(path, SourceArguments(str(tmp_path / "manifest.jsonl"), "manifest"))

    (part,) = open_source(path).parts
    assert part.seconds == 1.5 + 2.75
    audio, missing = str(tmp_path / "a.wav"), str(tmp_path / "missing.wav")
    assert [row[0] for row in part.read(0)] == [
        Recording("a.wav#t=0.5,2", audio, 0.5, 1.5, "go on \0 \u2028", words),
        Recording("second", audio, 0.25, aligned_text=[]),
        Skipped("manifest.jsonl:3", SkipReason.WRONGLY_NAMED, "the path '../a.wav' leads out of the root folder"),
        Recording("missing.wav", missing),
        Skipped("manifest.jsonl:5", SkipReason.MALFORMED, "'offset' is -1, which is not a number of seconds"),
    ]


def test_parts_are_sent_to_another_process_with_one_table(tmp_path, path):
    rows = [{"path": f"{number}.wav", "text": "go on " * 20} for number in range(300)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare_source(path, SourceArguments(str(tmp_path / "manifest.jsonl"), "manifest", chunk_seconds=1.0))
    parts = open_source(path).parts

    pickled = pickle.dumps(parts)

    assert len(parts) == 300
    assert len(pickled) < 2 * len(pickle.dumps(parts[0].listing))
    assert [list(part.read(0)) for part in pickle.loads(pickled)] == [list(part.read(0)) for part in parts]


def test_names_that_are_not_utf8_are_kept(tmp_path, path):
    root = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(root)
    write_noise(tmp_path / "a.wav")
    shutil.move(tmp_path / "a.wav", root)
    open(os.fsencode(root) + b"/\xe9.wav", "w").close()

    prepare_source(path, SourceArguments(root))

    (part,) = open_source(path).parts
    assert [row[0] for row in part.read(0)] == [
        Recording("a.wav", os.path.join(root, "a.wav")),
        Skipped("\\xe9.wav", SkipReason.WRONGLY_NAMED, "the name is not UTF-8"),
    ]


def test_paths_hold_in_any_working_folder(folder, path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    prepare_source(path, SourceArguments("audio"))
    monkeypatch.chdir(path.parent)

    assert next(open_source(path).parts[0].read(0)) == [Recording("0.wav", str(folder / "0.wav"))]


@pytest.mark.parametrize("layout", ["folder", "manifest", "webdataset"])
def test_the_same_input_is_not_probed_again(folder, path, no_probes, layout):
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "0.wav", "0.wav")
    (folder / "manifest.jsonl").write_text('{"path": "0.wav"}\n{"path": "1.wav"}')
    source = {"manifest": folder / "manifest.jsonl"}.get(layout, folder)
    before = prepare_source(path, SourceArguments(str(source), layout))
    content = path.read_bytes()
    no_probes()

    after = prepare_source(path, SourceArguments(str(source), layout))

    assert describe(after) == describe(before)
    assert path.read_bytes() == content


def test_files_that_were_only_touched_or_moved_are_the_same_input(folder, path, no_probes):
    before = prepare_source(path, SourceArguments(str(folder)))
    os.utime(folder / "0.wav", (0, 0))
    shutil.move(folder, folder.with_name("moved"))
    moved = folder.with_name("moved")

    after = prepare_source(path, SourceArguments(str(moved)))

    assert after.identity == before.identity
    assert [part.num_rows for part in after.parts] == [part.num_rows for part in before.parts]
    assert next(open_source(path).parts[0].read(0)) == [Recording("0.wav", str(moved / "0.wav"))]
    no_probes()
    prepare_source(path, SourceArguments(str(moved)))


def add(folder):
    write_noise(folder / "new.wav")


def remove(folder):
    (folder / "0.wav").unlink()


def lengthen(folder):
    write_noise(folder / "0.wav", seconds=2)


def replace_samples(folder):
    write_noise(folder / "0.wav", seed=7)


def change_length_in_header(folder):
    content = bytearray((folder / "0.wav").read_bytes())
    content[40:44] = (100).to_bytes(4, "little")
    (folder / "0.wav").write_bytes(content)


@pytest.mark.parametrize("change", [add, remove, lengthen, replace_samples, change_length_in_header])
def test_another_input_is_refused(folder, path, change):
    prepare_source(path, SourceArguments(str(folder)))
    content = path.read_bytes()
    change(folder)

    with pytest.raises(ValueError, match=r"input\.parquet' was written for another input.*\n.*identity\..*: was .*"):
        prepare_source(path, SourceArguments(str(folder)))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("layout", "detail"),
    [
        ("librispeech", r" \(the first of \d+: '0\.wav', not at <speaker>/.*\)"),
        ("librilight", r" \(the first of \d+: '0\.wav', not at <speaker>/.*\)"),
        ("webdataset", ""),
    ],
)
def test_a_source_without_recordings_leaves_the_folder_to_the_right_one(folder, path, layout, detail):
    with pytest.raises(ValueError, match=rf"^'.*' has no recordings for `layout {layout}`{detail}\.$"):
        prepare_source(path, SourceArguments(str(folder), layout))

    assert not path.exists()
    assert sum(part.num_rows for part in prepare_source(path, SourceArguments(str(folder))).parts) > 0


def test_other_arguments_are_refused(folder, path):
    prepare_source(path, SourceArguments(str(folder)))

    with pytest.raises(ValueError, match=r"chunk_seconds: was 300\.0, is now 9\.0"):
        prepare_source(path, SourceArguments(str(folder), chunk_seconds=9.0))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_is_opened_by_its_name(folder, path, streaming):
    pairs = {clip: [str(folder / "0.wav")] for clip in ("prompt", "chosen", "rejected")}
    Dataset.from_dict(pairs).to_parquet(folder.parent / "pairs" / "train.parquet")
    args = SourceArguments(str(folder.parent / "pairs"), "preference_pairs", streaming=streaming)

    prepared = prepare_source(path, args)

    assert describe(open_source(path)) == describe(prepared) == describe(open_dataset(args))
    assert prepared.has_pairs
    Dataset.from_dict({clip: 2 * audio for clip, audio in pairs.items()}).to_parquet(
        folder.parent / "pairs" / "train.parquet"
    )
    for open_again in (lambda: open_source(path), lambda: prepare_source(path, args)):
        with pytest.raises(ValueError, match="The dataset '.*pairs' has changed since the job began"):
            open_again()


def test_a_missing_or_damaged_file_is_named(folder, path):
    with pytest.raises(FileNotFoundError, match=r"input\.parquet': the input of the job has not been listed"):
        open_source(path)
    prepare_source(path, SourceArguments(str(folder)))
    for content in (b"", b"PAR1", path.read_bytes()[:-9], path.read_bytes()[100:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"input\.parquet' is damaged .* Remove it and start"):
            open_source(path)


def test_a_missing_input_leaves_no_file(tmp_path, path):
    for args in (SourceArguments(str(tmp_path / "nowhere")), SourceArguments(str(tmp_path / "no.jsonl"), "manifest")):
        with pytest.raises((ValueError, NotADirectoryError), match="no such|No such"):
            prepare_source(path, args)
    assert not path.exists()


def test_rows_are_written_in_groups(folder, path, monkeypatch):
    monkeypatch.setattr(sources, "ROWS_AT_ONCE", 2)
    args = SourceArguments(str(folder), chunk_seconds=4.0)

    assert describe(prepare_source(path, args)) == describe(file_source(list_audio_folder(folder), 4.0))


@pytest.mark.parametrize(
    ("layout", "column", "name"),
    [
        ("folder", "folder", "audio/ann/1.wav"),
        ("librispeech", "folder", "train/7/3/7-3-0001.flac"),
        ("librilight", "folder", "small/7/book/1.flac"),
        ("manifest", "who", "1.wav"),
        ("webdataset", "who", "1.wav"),
        ("dataset", "who", "1.wav"),
    ],
)
def test_every_layout_gives_the_speaker(tmp_path, path, layout, column, name):
    speaker = "ann" if column == "who" or layout == "folder" else "7"
    root = tmp_path / "root"
    write_noise(root / name)
    source = str(root)
    if layout == "manifest":
        source += "/manifest.jsonl"
        (root / "manifest.jsonl").write_text(json.dumps({"path": name, "who": "ann", "how": 3}) + "\n")
    if layout == "webdataset":
        source += "/shard.tar"
        (root / "1.json").write_text(json.dumps({"who": "ann", "how": 3}))
        with tarfile.open(source, "w") as archive:
            archive.add(root / "1.json", "1.json")
            archive.add(root / name, name)
    if layout == "dataset":
        source = str(root / "data")
        Dataset.from_dict({"audio": [str(root / name)], "who": ["ann"], "how": [3]}).to_parquet(
            root / "data" / "train.parquet"
        )
    style = {"style_column": "how"} if column == "who" else {}
    prepare_source(path, VoiceSourceArguments(source, layout, speaker_column=column, **style))
    recordings = [item for part in open_source(path).parts for row in part.read(0) for item in row]
    found = [(item.speaker, item.style) for item in recordings if isinstance(item, Recording)]
    assert found == [(speaker, "3" if style else None)]


def test_a_speaker_that_changed_makes_another_input(tmp_path, path):
    write_noise(tmp_path / "1.wav")
    manifest = tmp_path / "manifest.jsonl"
    args = VoiceSourceArguments(str(manifest), "manifest", speaker_column="who")
    manifest.write_text(json.dumps({"path": "1.wav", "who": "ann"}))
    prepare_source(path, args)
    manifest.write_text(json.dumps({"path": "1.wav", "who": "ben"}))
    with pytest.raises(ValueError, match="written for another input"):
        prepare_source(path, args)


@pytest.mark.parametrize("row", [{}, {"who": None}, {"who": ""}, {"who": 1.5}, {"who": True}, {"who": ["ann"]}])
def test_a_recording_without_a_speaker_is_reported(tmp_path, path, row):
    write_noise(tmp_path / "1.wav")
    rows = [{"path": "1.wav", "who": "ann"}, {"path": "1.wav", "id": "other", **row}]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    prepare_source(path, VoiceSourceArguments(str(tmp_path / "manifest.jsonl"), "manifest", speaker_column="who"))
    _, (skipped,) = (row for part in open_source(path).parts for row in part.read(0))
    assert skipped.reason == SkipReason.MALFORMED
    assert "'who'" in skipped.detail
