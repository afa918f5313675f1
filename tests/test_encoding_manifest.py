import json

import pytest

from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason


@pytest.fixture
def write(tmp_path):
    def write(name, *rows):
        path = tmp_path / name
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    return write


def test_json_lines_name_recordings_and_excerpts(write, tmp_path):
    words = [{"word": "go", "start_time": 0.0, "end_time": 0.3}]
    manifest = write(
        "manifest.jsonl",
        {"path": "a.wav"},
        {"path": "b/c.flac", "offset": 1.5, "duration": 2.5, "id": "c1", "text": "go", "aligned_text": words},
        {"path": "b/c.flac", "offset": 4.0, "duration": 2.5},
        {"path": "b/c.flac", "offset": 6.5},
    )

    assert read_manifest(manifest) == [
        Recording("a.wav", str(tmp_path / "a.wav")),
        Recording("c1", str(tmp_path / "b/c.flac"), 1.5, 2.5, "go", words),
        Recording("b/c.flac#t=4,6.5", str(tmp_path / "b/c.flac"), 4.0, 2.5),
        Recording("b/c.flac#t=6.5", str(tmp_path / "b/c.flac"), 6.5),
    ]


@pytest.mark.parametrize(("name", "separator"), [("manifest.csv", ","), ("manifest.tsv", "\t")])
def test_tables_name_recordings_and_excerpts(write, tmp_path, name, separator):
    rows = [["path", "offset", "duration", "id"], ["a.wav", "", "", ""], ["b.wav", "0.5", "2", "utt 2"]]
    manifest = write(name, *(separator.join(row) for row in rows))

    assert read_manifest(manifest) == [
        Recording("a.wav", str(tmp_path / "a.wav")),
        Recording("utt 2", str(tmp_path / "b.wav"), 0.5, 2.0),
    ]


def test_paths_are_relative_to_the_root(write, tmp_path):
    manifest = write("manifest.jsonl", {"path": "a.wav"})

    assert read_manifest(manifest, root=tmp_path / "audio") == [Recording("a.wav", str(tmp_path / "audio/a.wav"))]


@pytest.mark.parametrize("path", ["../secret.wav", "/etc/passwd", "a/../../secret.wav", "link/secret.wav"])
def test_paths_do_not_leave_the_root(write, tmp_path, path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "link").symlink_to(tmp_path)
    manifest = write("manifest.jsonl", {"path": path})

    (skipped,) = read_manifest(manifest, root=tmp_path / "audio")

    detail = f"the path {path!r} leads out of the root folder"
    assert skipped == Skipped("manifest.jsonl:1", SkipReason.WRONGLY_NAMED, detail)


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("{'path': 'a.wav'}", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "no 'path'"),
        ({"file": "a.wav"}, "no 'path'"),
        ({"path": "a.wav", "offset": -1.0}, "'offset' is -1.0, no number of seconds"),
        ({"path": "a.wav", "offset": "start"}, "'offset' is 'start', no number of seconds"),
        ({"path": "a.wav", "duration": [2]}, "'duration' is [2], no number of seconds"),
        ({"path": "a.wav", "duration": 0}, "'duration' is 0"),
        ({"path": "a.wav", "text": ["go"]}, "'text' is ['go']"),
        (
            {"path": "a.wav", "aligned_text": [["go", 0.0, 0.3]]},
            "'aligned_text' is no list of words with 'start_time' and 'end_time'",
        ),
    ],
)
def test_malformed_rows_are_skipped(write, tmp_path, row, detail):
    skipped, recording = read_manifest(write("manifest.jsonl", row, {"path": "b.wav"}))

    assert skipped == Skipped("manifest.jsonl:1", SkipReason.MALFORMED, detail)
    assert recording.id == "b.wav"


def test_names_that_are_not_utf8_are_skipped(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"path\ncaf\xe9.wav\n")

    expected = Skipped("manifest.csv:2", SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    assert read_manifest(tmp_path / "manifest.csv") == [expected]


def test_a_table_without_paths_is_an_error(write):
    with pytest.raises(ValueError, match=r"expected a column 'path', got \['file'\]"):
        read_manifest(write("manifest.csv", "file", "a.wav"))


def test_other_files_are_no_manifests(write):
    with pytest.raises(ValueError, match=r"'.*/manifest.txt': expected a manifest that ends in .jsonl"):
        read_manifest(write("manifest.txt", "a.wav"))
