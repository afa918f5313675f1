import hashlib
import io
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile
from loopback_server import QuietHandler, serve

from slam_hf import load_audio, remote_files
from slam_hf.audio_files import AudioError, ByteRange, open_audio, open_file, probe_audio
from slam_hf.encoding.reading import PieceRules, read_pieces
from slam_hf.encoding.recordings import Skipped, SkipReason
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import open_source, prepare_source
from slam_hf.remote_files import AudioDownloadError, RangedFile, RemoteFileError, local_path, open_remote


RATE = 16_000


def ranged(content, block_bytes=4, requests=None):
    def fetch(first, end):
        if requests is not None:
            requests.append((first, end))
        return content[first:end]

    return RangedFile(fetch, len(content), block_bytes)


@pytest.mark.parametrize("buffer_bytes", [1, 3, 4, 5, 100])
def test_a_file_is_read_in_blocks(buffer_bytes):
    content = bytes(range(23))
    file = ranged(content)

    read = b"".join(iter(lambda: file.read(buffer_bytes), b""))

    assert read == content


def test_blocks_grow_while_a_file_is_read_in_order(monkeypatch):
    monkeypatch.setattr(remote_files, "MAX_BLOCK_BYTES", 8)
    requests = []
    file = ranged(bytes(40), requests=requests)

    file.read(25)
    file.seek(35)
    file.read(1)
    file.seek(-4, io.SEEK_END)
    file.read(9)
    file.seek(2)
    file.read(1)

    assert requests == [(0, 4), (4, 12), (12, 20), (20, 28), (35, 39), (39, 40), (2, 6)]


def test_a_window_is_a_file_of_its_own():
    window = ranged(bytes(range(20))).window(5, 8)

    assert window.read() == bytes(range(5, 13))
    assert (window.seek(-2, io.SEEK_END), window.read(9)) == (6, bytes([11, 12]))
    assert (window.seek(-99), window.read(1)) == (0, bytes([5]))
    assert ranged(bytes(range(20))).window(15, 99).read() == bytes(range(15, 20))
    assert ranged(bytes(20)).window(30, 5).read() == b""


def test_what_cannot_be_fetched_ends_a_file_and_is_kept():
    def fetch(first, end):
        if first:
            raise AudioDownloadError("no more")
        return bytes(end - first)

    file = RangedFile(fetch, 20, 4)

    assert file.read() == bytes(4)
    assert str(file.error) == "no more"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.wav", "a/b.wav"),
        ("file:///a/b.wav", "/a/b.wav"),
        ("local:///a/b.wav", "/a/b.wav"),
        ("https://host/b.wav", None),
        ("zip://a.wav::/b.zip", None),
    ],
)
def test_local_paths_are_told_from_urls(path, expected):
    assert local_path(path) == expected


def encode(samples, format="FLAC"):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=format)
    return file.getvalue()


class Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        content = server.files.get(self.path)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        first, end = int(first), int(last) + 1
        server.requests.append((first, end))
        status = server.statuses.get(len(server.requests))
        if status is None:
            status = 404 if content is None else 206 if server.gives_ranges else 200
        headers = {"ETag": f'"{server.version}"'}
        if status == 206 and first >= len(content):
            status, body = 416, b""
        elif status == 206:
            headers["Content-Range"] = f"bytes {first}-{min(end, len(content)) - 1}/{len(content)}"
            body = content[first:end]
        else:
            body = content if status == 200 else b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    """A web server on the loopback with `files`, which answers request number `n` with `statuses[n]`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(remote_files, "DOWNLOAD_WAITS", (0.0, 0.0))
    with serve(Handler, files={}, statuses={}, requests=[], gives_ranges=True, version=1) as server:
        yield server


WAVEFORM = 0.1 * np.random.default_rng(0).standard_normal(60 * RATE)


def test_an_excerpt_of_a_long_file_needs_its_range_only(server):
    server.files["/long.wav"] = encode(WAVEFORM, "WAV")
    expected = soundfile.read(io.BytesIO(server.files["/long.wav"]), dtype="float32")[0]

    with open_audio(f"{server.url}/long.wav") as file:
        excerpt = np.concatenate(list(file.blocks(offset=40.0, duration=2.0)))

    np.testing.assert_array_equal(excerpt, expected[40 * RATE : 42 * RATE])
    start = 44 + 40 * RATE * 2
    assert server.requests == [(0, 2**18), (start, start + 2**18)]


def test_the_length_is_in_the_first_block(server):
    server.files["/long.wav"] = content = encode(WAVEFORM, "WAV")

    probe = probe_audio(f"{server.url}/long.wav")

    assert tuple(probe) == (len(content), 60.0, hashlib.sha256(content[:4096]).hexdigest()[:16])
    assert server.requests == [(0, 2**16)]


@pytest.mark.parametrize("gives_ranges", [True, False])
@pytest.mark.parametrize("format", ["FLAC", "WAV", "OGG", "MP3"])
def test_remote_files_give_the_samples_of_local_ones(server, tmp_path, gives_ranges, format):
    server.gives_ranges = gives_ranges
    server.files["/a"] = content = encode(WAVEFORM[: 20 * RATE], format)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "tar").write_bytes(b"x" * 700 + content + b"x" * 9)

    expected = load_audio(tmp_path / "a", RATE)

    np.testing.assert_array_equal(load_audio(f"{server.url}/a", RATE), expected)
    np.testing.assert_array_equal(load_audio(ByteRange(str(tmp_path / "tar"), 700, len(content)), RATE), expected)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_file_whose_rest_is_refused_is_not_taken_for_a_short_one(server, status):
    server.files["/a.ogg"] = encode(WAVEFORM, "OGG")
    server.statuses = dict.fromkeys(range(2, 4), status)
    whole = load_audio(f"{server.url}/a.ogg", RATE)
    assert len(whole) == len(WAVEFORM)

    server.requests.clear()
    server.statuses = dict.fromkeys(range(2, 99), status)
    with pytest.raises(AudioDownloadError, match=rf"a\.ogg': could not be downloaded in 3 tries \(.*{status}\)"):
        load_audio(f"{server.url}/a.ogg", RATE)


def test_a_file_that_changes_while_it_is_read_is_not_mixed(server):
    server.files["/a.wav"] = encode(WAVEFORM, "WAV")

    with pytest.raises(AudioDownloadError, match="the file was changed while it was read"):  # noqa: SIM117
        with open_audio(f"{server.url}/a.wav") as file:
            server.version = 2
            list(file.blocks(offset=30.0))


def test_a_file_that_is_removed_while_it_is_read_is_unreadable(server):
    server.files["/a.wav"] = encode(WAVEFORM, "WAV")

    with pytest.raises(AudioError, match=r"a\.wav': it was removed while it was read"):  # noqa: SIM117
        with open_audio(f"{server.url}/a.wav") as file:
            del server.files["/a.wav"]
            list(file.blocks(offset=30.0))


def test_an_empty_remote_file_is_empty(server):
    server.files["/empty.wav"] = b""

    with pytest.raises(AudioError, match="the file has no content"):
        load_audio(f"{server.url}/empty.wav", RATE)


def test_a_missing_remote_file_is_final(server):
    with ExitStack() as stack, pytest.raises(RemoteFileError, match="no such file: the server answers 404"):
        open_remote(f"{server.url}/no.wav", "no.wav", stack)
    assert len(server.requests) == 1


def test_text_is_read_from_a_remote_file(server):
    server.files["/a.csv"] = b"path\n" + b"a.wav\n" * 100_000

    with open_file(f"{server.url}/a.csv", block_bytes=2**10) as file:
        assert file.read() == server.files["/a.csv"]


def test_web_addresses_in_a_manifest_are_probed_and_read(server, tmp_path):
    server.files["/long.wav"] = encode(WAVEFORM, "WAV")
    (tmp_path / "rows.csv").write_text(
        f"path,offset,duration,id\n{server.url}/long.wav,40,2,a\n{server.url}/long.wav,50,,b\n{server.url}/no.wav,,,c\n"
    )

    prepare_source(tmp_path / "source.parquet", SourceArguments(str(tmp_path / "rows.csv"), "manifest"))

    assert server.requests == [(0, 2**16)] * 2  # one for each file
    (part,) = open_source(tmp_path / "source.parquet").parts
    assert part.seconds == 2.0 + 10.0
    (excerpt,), (rest,), (gone,) = part.read(0)
    for recording, start, end in ((excerpt, 40, 42), (rest, 50, 60)):
        (piece,) = read_pieces(recording, PieceRules(), RATE, 25.0)
        np.testing.assert_allclose(piece.waveform, WAVEFORM[start * RATE : end * RATE], atol=1e-4)
    detail = "no such file: the server answers 404"
    assert list(read_pieces(gone, PieceRules(), RATE, 25.0)) == [Skipped("c", SkipReason.UNREADABLE, detail)]
