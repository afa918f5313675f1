import json
import os
import tarfile

import fsspec
import numpy as np
import pytest
import soundfile
from datasets import load_dataset
from loopback_hub import run_with_hub
from loopback_server import QuietHandler, serve

from slam_hf import remote_files
from slam_hf.audio_files import ByteRange
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.folder_files import list_files
from slam_hf.encoding.listing import list_audio_folder, list_librilight, list_librispeech
from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import open_source, prepare_source
from slam_hf.encoding.sources import file_source
from slam_hf.remote_files import AudioDownloadError


RATE = 16_000


@pytest.fixture
def folder(tmp_path):
    """A chapter of LibriSpeech with three utterances, and files that are not recordings."""
    chapter = tmp_path / "corpus" / "103" / "1240"
    chapter.mkdir(parents=True)
    for number in range(3):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(RATE + 4000 * number)
        soundfile.write(chapter / f"103-1240-{number:04d}.flac", waveform, RATE)
    (chapter / "103-1240.trans.txt").write_text("103-1240-0000 ONE\n103-1240-0001 TWO\n")
    (chapter / "notes").write_text("?")
    (chapter / ".hidden.flac").write_text("?")
    return tmp_path / "corpus"


@pytest.fixture
def uploaded(folder, bucket_folder):
    """The same folder in an object store."""
    fsspec.filesystem("s3").put(f"{folder}/", bucket_folder, recursive=True)
    return bucket_folder


@pytest.mark.parametrize("list_recordings", [list_audio_folder, list_librispeech, list_librilight])
def test_an_object_store_is_listed_as_a_folder_is(folder, uploaded, list_recordings):
    local, remote = list_recordings(folder), list_recordings(uploaded)

    assert len(local) == 4
    assert [vars(item) | {"audio": None} for item in remote] == [vars(item) | {"audio": None} for item in local]
    recordings = [item for item in remote if isinstance(item, Recording)]
    assert recordings[0].audio == f"{uploaded}/103/1240/103-1240-0000.flac"


def test_the_url_of_a_local_folder_is_its_path(folder):
    assert list_audio_folder(f"file://{folder}") == list_audio_folder(folder)


def test_a_folder_that_is_nowhere_is_an_error(object_store):
    for root in (f"{object_store}/nowhere", "s3://no-such-bucket/folder"):
        with pytest.raises(NotADirectoryError, match=f"'{root}': no such folder of recordings"):
            list_audio_folder(root)
    with pytest.raises(ValueError, match="a web server has no list of its files. Name them in a manifest"):
        list_audio_folder("https://127.0.0.1/folder")


def test_a_file_system_that_is_not_known_is_an_error():
    with pytest.raises(OSError, match="Protocol not known: nosuch"):
        list_audio_folder("nosuch://folder")


def test_rows_of_a_manifest_are_below_its_url(folder, uploaded):
    chapter = f"{uploaded}/103/1240"
    rows = [
        {"path": "103-1240-0000.flac", "id": "a"},
        {"path": f"{chapter}/103-1240-0001.flac", "id": "b"},
        {"path": "https://127.0.0.1/c.flac", "id": "c"},
        {"path": "../1240/103-1240-0000.flac"},
        {"path": "/etc/passwd"},
        {"path": "file:///etc/passwd"},
        {"path": "local:///etc/passwd"},
        {"path": "zip://a.wav::file:///etc/a.zip"},
        {"path": "https://127.0.0.1/a.zip::file:///etc/passwd"},
        {"path": "simplecache::file:///etc/passwd"},
    ]
    fsspec.filesystem("s3").pipe_file(f"{chapter}/rows.jsonl", "\n".join(map(json.dumps, rows)).encode())

    items = read_manifest(f"{chapter}/rows.jsonl")
    rooted = read_manifest(f"{chapter}/rows.jsonl", root=chapter)

    urls = [f"{chapter}/103-1240-0000.flac", f"{chapter}/103-1240-0001.flac", "https://127.0.0.1/c.flac"]
    assert items[:3] == [Recording(id, url) for id, url in zip("abc", urls, strict=True)]
    assert rooted[:2] == items[:2]
    detail = "the URL 'https://127.0.0.1/c.flac' is not below the root folder"
    assert rooted[2] == Skipped("rows.jsonl:3", SkipReason.WRONGLY_NAMED, detail)
    assert {item.reason for item in items[3:]} == {SkipReason.WRONGLY_NAMED}
    assert [item.id for item in items[3:]] == [f"rows.jsonl:{number}" for number in range(4, 11)]


def units(source, codec, output_dir, num_workers):
    """Units of each recording, by the last part of its name."""
    tokenize_corpus(source, codec, output_dir, num_workers=num_workers)
    rows = load_dataset(str(output_dir), split="train", streaming=True)
    return {os.path.basename(row["id"]).removesuffix(".flac"): (row["units"], row["text"]) for row in rows}


def test_the_units_do_not_depend_on_where_the_recordings_are(folder, uploaded, tiny_codec, tmp_path):
    chapter = folder / "103" / "1240"
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for number, text in enumerate(["ONE", "TWO", None]):
            archive.add(chapter / f"103-1240-{number:04d}.flac", f"103-1240-{number:04d}.flac")
            if text is not None:
                (tmp_path / "text").write_text(text)
                archive.add(tmp_path / "text", f"103-1240-{number:04d}.txt")
    fsspec.filesystem("s3").put(str(tmp_path / "shard.tar"), f"{uploaded}/shards/shard.tar")
    rows = [{"path": f"{uploaded}/103/1240/103-1240-{number:04d}.flac"} for number in range(3)]
    rows[0]["text"], rows[1]["text"] = "ONE", "TWO"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    sources = {
        "local": (str(folder), "librispeech"),
        "s3": (uploaded, "librispeech"),
        "manifest": (str(tmp_path / "rows.jsonl"), "manifest"),
        "tar": (str(tmp_path / "shard.tar"), "webdataset"),
        "s3 tar": (f"{uploaded}/shards", "webdataset"),
    }
    found = {}
    for name, (root, layout) in sources.items():
        state = f"{uploaded}/jobs/{name}.parquet" if name == "s3" else tmp_path / "jobs" / f"{name}.parquet"
        prepare_source(state, SourceArguments(root, layout))
        # A forked worker reads with connections of its own.
        found[name] = units(open_source(state), tiny_codec, tmp_path / name, num_workers=int(name == "s3"))

    assert found["local"].keys() == {"103-1240-0000", "103-1240-0001", "103-1240-0002"}
    assert [text for _, text in found["local"].values()] == ["ONE", "TWO", None]
    for name in sources:
        assert found[name] == found["local"], name


def test_an_object_that_changed_is_noticed(folder, uploaded, tmp_path):
    path = tmp_path / "source.parquet"
    prepare_source(path, SourceArguments(uploaded))
    store = fsspec.filesystem("s3")
    store.pipe_file(f"{uploaded}/new.flac", (folder / "103/1240/103-1240-0000.flac").read_bytes())

    with pytest.raises(ValueError, match="was written for another input"):
        prepare_source(path, SourceArguments(uploaded))
    store.rm(f"{uploaded}/new.flac")
    prepare_source(path, SourceArguments(uploaded))


def test_versions_differ_by_content(folder, uploaded):
    before = list_files(uploaded).versions
    name = "103/1240/103-1240-0000.flac"
    content = (folder / name).read_bytes()
    fsspec.filesystem("s3").pipe_file(f"{uploaded}/{name}", content[:-1] + bytes([content[-1] ^ 1]))

    after = list_files(uploaded).versions

    assert [key for key in before if before[key] != after[key]] == [name]


def test_an_object_that_is_gone_is_a_counted_skip(bucket_folder, tiny_codec, tmp_path):
    gone = [Recording("gone", f"{bucket_folder}/a.flac"), Recording("part", ByteRange(f"{bucket_folder}/b.tar", 0, 9))]

    with pytest.raises(ValueError, match=r"Nothing could be tokenised: 2 × unreadable"):
        tokenize_corpus(file_source(gone), tiny_codec, tmp_path / "units", num_workers=0)


HUB = """
import os, sys
from pathlib import Path
from huggingface_hub import create_repo, upload_file, upload_folder
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import open_source, prepare_source
from slam_hf.encoding.reading import PieceRules, read_pieces

folder, state = sys.argv[1:]
create_repo("user/recordings", repo_type="dataset")
upload_folder(folder_path=folder, repo_id="user/recordings", repo_type="dataset")
for root in (folder, "hf://datasets/user/recordings/corpus"):
    root = os.path.join(folder, "corpus") if root == folder else root
    Path(state).unlink(missing_ok=True)
    prepare_source(state, SourceArguments(root, "librispeech"))
    prepare_source(state, SourceArguments(root, "librispeech"))
    if root.startswith("hf://"):  # the job reads the commit that was listed
        name = "corpus/103/1240/103-1240-0000.flac"
        upload_file(path_or_fileobj=b"changed", path_in_repo=name, repo_id="user/recordings", repo_type="dataset")
    for part in open_source(state).parts:
        for (item,) in part.read(0):
            if hasattr(item, "audio"):
                (piece,) = read_pieces(item, PieceRules(), 16_000, 25.0)
                print(piece.id, piece.text, len(piece.waveform), piece.waveform.sum())
            else:
                print(item)
    print("end")
"""


def test_a_repository_on_the_hub_is_read_as_a_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [])
    code = HUB.replace("sys.argv[1:]", repr([str(folder.parent), str(tmp_path / "job" / "source.parquet")]))

    local, remote, _ = run_with_hub(code, tmp_path / "hub").split("end\n")

    assert local == remote
    assert len(local.splitlines()) == 4


class Refusing(QuietHandler):
    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()

    do_HEAD = do_GET


@pytest.fixture(params=["nobody listens", 403, 429, 503])
def refusing_store(request, monkeypatch):
    """An object store that refuses every request, or where nobody listens."""
    monkeypatch.setattr(remote_files, "DOWNLOAD_WAITS", (0.0,))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with serve(Refusing, status=request.param) as server:
        nowhere = "http://127.0.0.1:1"
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url if isinstance(request.param, int) else nowhere)
        fsspec.filesystem("s3").clear_instance_cache()
        yield
        fsspec.filesystem("s3").clear_instance_cache()


def test_an_object_store_that_refuses_stops_the_job(object_store, refusing_store, tmp_path):
    with pytest.raises(AudioDownloadError, match="'s3://recordings/a': could not be listed in 2 tries .* Start again"):
        prepare_source(tmp_path / "source.parquet", SourceArguments("s3://recordings/a"))
    (tmp_path / "rows.jsonl").write_text('{"path": "s3://recordings/a.flac"}')
    with pytest.raises(AudioDownloadError, match=r"'s3://recordings/a\.flac': could not be downloaded in 2 tries"):
        prepare_source(tmp_path / "source.parquet", SourceArguments(str(tmp_path / "rows.jsonl"), "manifest"))
    assert not (tmp_path / "source.parquet").exists()
