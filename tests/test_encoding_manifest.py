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
        ({"path": "a.wav", "offset": -1.0}, "'offset' is -1.0, which is not a number of seconds"),
        ({"path": "a.wav", "offset": "start"}, "'offset' is 'start', which is not a number of seconds"),
        ({"path": "a.wav", "duration": [2]}, "'duration' is [2], which is not a number of seconds"),
        ({"path": "a.wav", "duration": 0}, "'duration' is 0"),
        ({"path": "a.wav", "text": ["go"]}, "'text' is ['go'], which is not text"),
        (
            {"path": "a.wav", "aligned_text": [["go", 0.0, 0.3]]},
            "'aligned_text' is not a list of words with 'start_time' and 'end_time'",
        ),
    ],
)
def test_malformed_rows_are_skipped(write, tmp_path, row, detail):
    skipped, recording = read_manifest(write("manifest.jsonl", row, {"path": "b.wav"}))

    assert skipped == Skipped("manifest.jsonl:1", SkipReason.MALFORMED, detail)
    assert recording.id == "b.wav"


WORD = {"word": "go", "start_time": 0.0, "end_time": 0.3}


def with_words(*words):
    return {"path": "a.wav", "aligned_text": [WORD | word for word in words]}


HOSTILE_ROWS = [
    "not JSON",
    "{",
    "null",
    "true",
    "[]",
    '"a.wav"',
    "[" * 100_000,
    '{"path": ' * 50_000,
    '{"path": "a.wav", "text": ' + "[" * 5_000 + "]" * 5_000 + "}",
    '{"path": "a.wav", "offset": ' + "9" * 5_000 + "}",
    '{"path": "a.wav", "id": ' + "9" * 5_000 + "}",
    '{"path": "a.wav", "offset": 1' + "0" * 400 + "}",
    '{"path": "a.wav", "duration": 1' + "0" * 400 + "}",
    '{"path": "a.wav", "offset": 1e308}',
    '{"path": "a.wav", "offset": 1e999}',
    '{"path": "a.wav", "duration": 1e308}',
    '{"path": "a.wav", "offset": NaN}',
    '{"path": "a.wav", "offset": Infinity}',
    '{"path": "a.wav", "duration": -Infinity}',
    {"path": "a.wav", "offset": -0.1},
    {"path": "a.wav", "duration": -1},
    {"path": "a.wav", "duration": 0.0},
    {"path": "a.wav", "offset": True},
    {"path": "a.wav", "offset": False},
    {"path": "a.wav", "duration": True},
    {"path": "a.wav", "offset": {}},
    {"path": "a.wav", "offset": []},
    {"path": "a.wav", "offset": "1,5"},
    {"path": "a.wav", "offset": "nan"},
    {"path": "a.wav", "duration": "inf"},
    {"path": None},
    {"path": 7},
    {"path": True},
    {"path": ["a.wav"]},
    {"path": {"bytes": "a"}},
    {"path": "a\0.wav"},
    {"path": "\0"},
    {"path": "a.wav", "id": ""},
    {"path": "a.wav", "id": True},
    {"path": "a.wav", "id": 1.5},
    {"path": "a.wav", "id": ["a"]},
    {"path": "a.wav", "text": 7},
    {"path": "a.wav", "text": False},
    {"path": "a.wav", "text": {"a": 1}},
    {"path": "a.wav", "text": "\ud800"},
    {"path": "a.wav", "text": "a \udcff b"},
    {"path": "a.wav", "aligned_text": "go"},
    {"path": "a.wav", "aligned_text": {"word": "go"}},
    {"path": "a.wav", "aligned_text": [None]},
    {"path": "a.wav", "aligned_text": [{"word": "go"}]},
    with_words({"word": None}),
    with_words({"word": 7}),
    with_words({"word": "\udfff"}),
    with_words({"start_time": None}),
    with_words({"start_time": "0.1"}),
    with_words({"start_time": True, "end_time": 2}),
    with_words({"end_time": 1e30}),
    with_words({"end_time": 10**30}),
    '{"path": "a.wav", "aligned_text": [{"word": "go", "start_time": 0, "end_time": NaN}]}',
    '{"path": "a.wav", "aligned_text": [{"word": "go", "start_time": 0, "end_time": 1e999}]}',
    with_words({"start_time": -0.5}),
    with_words({"start_time": 0.5}),
    with_words({"start_time": 1.0, "end_time": 1.5}, {}),
]


@pytest.mark.parametrize("row", HOSTILE_ROWS)
def test_hostile_rows_are_malformed(write, row):
    skipped, recording = read_manifest(write("manifest.jsonl", row, {"path": "b.wav"}))

    assert (skipped.id, skipped.reason) == ("manifest.jsonl:1", SkipReason.MALFORMED)
    assert 0 < len(skipped.detail) < 200
    skipped.detail.encode()  # does not raise
    assert recording.id == "b.wav"


@pytest.mark.parametrize("row", [{"path": "\ud800.wav"}, {"path": "a.wav", "id": "\udcff"}])
def test_names_with_lone_surrogates_are_skipped(write, row):
    expected = Skipped("manifest.jsonl:1", SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    assert read_manifest(write("manifest.jsonl", row)) == [expected]


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("a.wav,1,2,x,more", "5 fields for 4 columns"),
        ("a.wav,1", "2 fields for 4 columns"),
        ("a.wav,1,2," + "x" * 140_000, "lines 2 to 2 are not a row: field larger than field limit (131072)"),
        ('a.wav,1,2,"go" on', "lines 2 to 2 are not a row: ',' expected after '\"'"),
        ("a.wav,1e308,2,go", "'offset' is 1e+308, which is not a number of seconds"),
        ("a.wav,nan,2,go", "'offset' is nan, which is not a number of seconds"),
        ("a.wav,True,2,go", "'offset' is 'True', which is not a number of seconds"),
        ("a\0.wav,1,2,go", "'path' holds a NUL character"),
        (b"a.wav,1,2,caf\xe9", "'text' is not UTF-8"),
    ],
)
def test_hostile_rows_of_tables_are_malformed(tmp_path, row, detail):
    row = row if isinstance(row, bytes) else row.encode()
    (tmp_path / "manifest.csv").write_bytes(b"path,offset,duration,text\n" + row + b"\nb.wav,,,\n")

    skipped, recording = read_manifest(tmp_path / "manifest.csv")

    assert skipped == Skipped("manifest.csv:2", SkipReason.MALFORMED, detail)
    assert recording.id == "b.wav"


def test_a_quotation_that_does_not_end_is_reported_with_what_it_swallowed(write):
    recording, skipped = read_manifest(write("manifest.csv", "path,text", "a.wav,go", 'b.wav,"go', "c.wav,go"))

    assert recording.id == "a.wav"
    detail = "lines 3 to 4 are not a row: unexpected end of data"
    assert skipped == Skipped("manifest.csv:4", SkipReason.MALFORMED, detail)


@pytest.mark.parametrize(("name", "separator"), [("manifest.csv", ", "), ("manifest.tsv", "\t ")])
def test_headers_and_values_are_stripped(tmp_path, name, separator):
    rows = [["path ", "offset", "duration ", "text"], ["a.wav ", " 0.5", "2 ", '"so, go"']]
    (tmp_path / name).write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")

    assert read_manifest(tmp_path / name) == [
        Recording("a.wav#t=0.5,2.5", str(tmp_path / "a.wav"), 0.5, 2.0, "so, go")
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"path": "a.wav"}\n', encoding="utf-8-sig")

    assert read_manifest(tmp_path / "manifest.jsonl") == [Recording("a.wav", str(tmp_path / "a.wav"))]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("manifest.csv", ["path,start,length", "a.wav,1,2"]),
        ("manifest.jsonl", [{"path": "a.wav", "start": 1}, {"path": "b.wav", "length": 2}]),
    ],
)
def test_columns_that_are_not_read_are_named(write, caplog, name, rows):
    recordings = read_manifest(write(name, *rows))

    assert all(isinstance(recording, Recording) for recording in recordings)
    assert f"{name}': not read: 'length', 'start'. The known columns are aligned_text, duration" in caplog.text


def test_known_columns_give_no_warning(write, caplog):
    read_manifest(write("manifest.jsonl", {"path": "a.wav", "offset": 0, "duration": 1, "id": 7, "text": ""}))

    assert caplog.text == ""


@pytest.mark.parametrize("header", ["path,path", "path,text,text", "", "Path", "file"])
def test_a_header_with_ambiguous_columns_is_an_error(write, header):
    with pytest.raises(ValueError, match=r"manifest\.csv': expected different columns and among them 'path', got \["):
        read_manifest(write("manifest.csv", header, "a.wav,b"))


def test_names_that_are_not_utf8_are_skipped(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"path\ncaf\xe9.wav\n")

    expected = Skipped("manifest.csv:2", SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    assert read_manifest(tmp_path / "manifest.csv") == [expected]


def test_other_files_are_not_manifests(write):
    with pytest.raises(ValueError, match=r"'.*/manifest.txt': expected a manifest that ends in .jsonl"):
        read_manifest(write("manifest.txt", "a.wav"))
