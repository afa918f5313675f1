import errno
import inspect
import os
import socket
import sys
from contextlib import contextmanager

import pytest

from slam_hf.encoding.listing import list_audio_folder, list_librilight, list_librispeech
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason


@contextmanager
def recursion_limit(limit):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    yield
    sys.setrecursionlimit(before)


def depth():
    return len(inspect.stack(0))


@pytest.fixture
def make(tmp_path):
    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


def test_a_folder_is_listed_in_the_order_of_its_paths(make):
    root = make("b.wav", "a/2.FLAC", "a/1.mp3", "a-b/x.ogg")

    assert list_audio_folder(root) == [
        Recording("a-b/x.ogg", str(root / "a-b/x.ogg")),
        Recording("a/1.mp3", str(root / "a/1.mp3")),
        Recording("a/2.FLAC", str(root / "a/2.FLAC")),
        Recording("b.wav", str(root / "b.wav")),
    ]


def test_files_of_other_kinds_are_not_recordings(make):
    assert list_audio_folder(make("notes.txt", "table.csv", "cover.png", ".hidden.wav", ".git/a.wav")) == []


@pytest.mark.parametrize("name", ["clip.wav.part", "clip", "clip.flac~", "clip.raw"])
def test_files_that_are_not_named_as_audio_are_reported(make, name):
    detail = "its extension is not that of an audio format"

    assert list_audio_folder(make(name)) == [Skipped(name, SkipReason.WRONGLY_NAMED, detail)]


def test_names_that_are_not_utf8_are_reported(tmp_path):
    open(os.fsencode(tmp_path) + b"/caf\xe9.wav", "w").close()

    assert list_audio_folder(tmp_path) == [Skipped("caf\\xe9.wav", SkipReason.WRONGLY_NAMED, "the name is not UTF-8")]


def test_links_are_followed_but_not_in_circles(make, tmp_path_factory):
    root = make("a/1.wav")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "2.wav").touch()
    (root / "linked").symlink_to(elsewhere)
    (root / "a" / "back").symlink_to(root)

    assert [recording.id for recording in list_audio_folder(root)] == ["a/1.wav", "linked/2.wav"]


def test_what_is_not_a_regular_file_is_reported(make):
    root = make("a/1.wav", "2.wav")
    os.mkfifo(root / "a" / "pipe.wav")
    os.mkfifo(root / "a" / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.flac"))
    (root / "loop").symlink_to("loop")
    (root / "dead.wav").symlink_to("nowhere.wav")

    recordings = list_audio_folder(root)

    assert [item.id for item in recordings] == ["2.wav", "a/1.wav", "a/pipe.wav", "dead.wav", "loop", "socket.flac"]
    assert [(item.reason, item.detail) for item in recordings[2:]] == [
        (SkipReason.UNREADABLE, "not a regular file")
    ] * 4


def test_a_folder_that_cannot_be_read_is_reported(make, monkeypatch):
    root = make("a/1.wav", "b/2.wav")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    recording, skipped = list_audio_folder(root)

    assert recording.id == "a/1.wav"
    assert skipped == Skipped("b", SkipReason.UNREADABLE, "the folder: Permission denied")


def test_a_deep_folder_is_listed(make):
    root = make("a/b/c/1.wav")

    with recursion_limit(depth() + 60):
        for _ in range(100):
            (root / "up").mkdir()
            os.rename(root / "a", root / "up" / "a")
            os.rename(root / "up", root / "a")
        (recording,) = list_audio_folder(root)

    assert recording.id == "a/" * 101 + "b/c/1.wav"


def test_formats_that_libsndfile_does_not_read_are_listed(make):
    assert [item.id for item in list_audio_folder(make("a.m4a", "b.webm", "c.WMA"))] == ["a.m4a", "b.webm", "c.WMA"]


@pytest.mark.parametrize("list_recordings", [list_audio_folder, list_librispeech, list_librilight])
def test_a_missing_folder_is_an_error(tmp_path, list_recordings):
    with pytest.raises(NotADirectoryError, match="'.*/nowhere': no such folder of recordings"):
        list_recordings(tmp_path / "nowhere")


def test_librispeech_utterances_have_their_texts(make):
    root = make("dev-clean/84/121123/84-121123-0001.flac", "dev-clean/84/121123/84-121123-0000.flac")
    (root / "dev-clean/84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO\n84-121123-0001 DO YOU HEAR\n")

    assert list_librispeech(root) == [
        Recording("84-121123-0000", str(root / "dev-clean/84/121123/84-121123-0000.flac"), text="GO"),
        Recording("84-121123-0001", str(root / "dev-clean/84/121123/84-121123-0001.flac"), text="DO YOU HEAR"),
    ]


def test_a_librispeech_transcript_with_a_byte_order_mark_is_read(make):
    root = make("84/121123/84-121123-0000.flac")
    (root / "84/121123/84-121123.trans.txt").write_text("\ufeff84-121123-0000 GO\r\n", encoding="utf-8")

    assert list_librispeech(root) == [
        Recording("84-121123-0000", str(root / "84/121123/84-121123-0000.flac"), text="GO"),
    ]


@pytest.mark.parametrize(
    ("write", "detail"),
    [
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_bytes(b"84-121123-0000 CAF\xc9\n"), "the transcript: 'utf-8' codec can't decode"),
    ],
)
def test_a_librispeech_transcript_that_cannot_be_read_is_reported(make, write, detail):
    root = make("84/121123/84-121123-0000.flac")
    write(root / "84/121123/84-121123.trans.txt")

    skipped, recording = list_librispeech(root)

    assert (skipped.id, skipped.reason) == ("84/121123/84-121123.trans.txt", SkipReason.UNREADABLE)
    assert skipped.detail.startswith(detail)
    assert recording == Recording("84-121123-0000", str(root / "84/121123/84-121123-0000.flac"))


def test_librispeech_chapters_whose_names_are_not_utf8_are_reported(tmp_path):
    chapter = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(chapter)
    open(chapter + b"/84-121123-0000.flac", "w").close()
    with open(chapter + b"/84-121123.trans.txt", "w") as file:
        file.write("84-121123-0007 LOST\n")

    for item in list_librispeech(tmp_path):
        assert isinstance(item, Skipped)
        f"{item.id} {item.detail}".encode()  # does not raise


def test_librispeech_reports_what_does_not_fit_its_layout(make):
    root = make("84/121123/84-121123-0000.flac", "84/121123/174-121123-0000.flac", "84/121123/take 2.flac")
    (root / "84/121123/84-121123.trans.txt").write_text("84-121123-0007 LOST\n")
    misplaced = "not at <speaker>/<chapter>/<speaker>-<chapter>-<number>"

    assert list_librispeech(root) == [
        Skipped("84/121123/174-121123-0000.flac", SkipReason.WRONGLY_NAMED, misplaced),
        Recording("84-121123-0000", str(root / "84/121123/84-121123-0000.flac")),
        Skipped("84/121123/take 2.flac", SkipReason.WRONGLY_NAMED, misplaced),
        Skipped("84-121123-0007", SkipReason.UNREADABLE, "in the transcript of 84/121123, but there is no such file"),
    ]


def test_librilight_chapters_are_named_by_speaker_and_book(make):
    root = make("small/100/sea_fairies/01_64kb.flac", "small/100/sea_fairies/01_64kb.json", "small/stray.flac")

    assert list_librilight(root) == [
        Recording("small/100/sea_fairies/01_64kb", str(root / "small/100/sea_fairies/01_64kb.flac")),
        Skipped("small/stray.flac", SkipReason.WRONGLY_NAMED, "not at <speaker>/<book>/<name>"),
    ]
