"""An attack on the tokenisation: files that are damaged, lie, or are not files at all. None may stop the job, take its
memory, or be missing from both the rows and the report. A server that refuses a file stops the job, for it may give it
later.

```
pytest -m attack tests/test_hostile_audio.py
```
"""

import io
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset
from loopback_server import QuietHandler, serve
from test_encoding_manifest import HOSTILE_ROWS

from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.dataset_source import dataset_source
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.reading import Piece, PieceRules, read_pieces
from slam_hf.encoding.recordings import Recording
from slam_hf.encoding.sources import file_source
from slam_hf.encoding.unit_rows import parse_piece_id
from slam_hf.remote_files import AudioDownloadError


RATE = 16_000
FORMATS = [
    *("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "MAT4", "MAT5", "NIST", "PAF", "SVX"),
    *("VOC", "IRCAM", "HTK", "SDS", "AVR", "MPC2K", "PVF", "XI", "WVE"),
]
RATES = [*range(24), 100, 999, 3_999, 384_001, 10**6, 2**31 - 1, 2**31, 2**32 - 1]

JOB = """
import json, resource, sys
import slam_hf
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.sources import file_source

folder, codec, output = sys.argv[1:]
codec = slam_hf.HubertUnitCodec.from_pretrained(codec)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokenize_corpus(file_source(list_audio_folder(folder)), codec, output, num_workers=1)
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"grown": (max(peaks) - before) * 1024}))
"""


def encode(format: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8_000 if format == "WVE" else rate, format=format)
    return file.getvalue()


def patch(content: bytes, start: int, field: bytes) -> bytes:
    return content[:start] + field + content[start + len(field) :]


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """The content with some bytes of its header replaced, or a piece of it missing, doubled or zeroed."""
    content = bytearray(content)
    match random.integers(5):
        case 0:
            for position in random.integers(0, min(len(content), 200), size=random.integers(1, 9)):
                content[position] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        case 1:
            start = int(random.integers(0, min(len(content), 200) - 4))
            fields = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0"]
            content[start : start + 4] = fields[random.integers(4)]
        case 2:
            del content[int(random.integers(0, len(content))) :]
        case 3:
            start = int(random.integers(0, len(content)))
            content[start:start] = content[: int(random.integers(1, 4_000))]
        case 4:
            start = int(random.integers(0, len(content)))
            content[start : start + 500] = bytes(500)
    return bytes(content)


def lying_headers(samples: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Sampling rates and lengths that are not those of the audio."""
    wav, au, flac = (encode(format, samples) for format in ("WAV", "AU", "FLAC"))
    w64, mp3, caf, mat5 = (encode(format, samples) for format in ("W64", "MP3", "CAF", "MAT5"))
    for rate in RATES:
        yield f"rate-{rate}.wav", patch(wav, 24, struct.pack("<I", rate))
        yield f"rate-{rate}.au", patch(au, 16, struct.pack(">I", rate))
        field = ((rate & 0xFFFFF) << 4 | flac[20] & 0x0F).to_bytes(3, "big")  # 20 bits of STREAMINFO
        yield f"rate-{rate}.flac", patch(flac, 18, field)
    for rate in (float("nan"), float("inf"), 1e300, -1.0, 0.0, 0.5, 23.0):
        yield f"rate-{rate}.caf", patch(caf, 20, struct.pack(">d", rate))
        at = mat5.index(b"samplerate") + 16
        for offset in (0, 4, 8):
            yield f"rate-{rate}-{offset}.mat5", patch(mat5, at + offset, struct.pack("<d", rate))
    for length in (0, 1, 2**31 - 1, 2**31, 2**32 - 1):
        at = wav.index(b"data") + 4
        yield f"length-{length}.wav", patch(wav, at, struct.pack("<I", length))
        yield f"riff-{length}.wav", patch(wav, 4, struct.pack("<I", length))
        yield f"length-{length}.au", patch(au, 8, struct.pack(">I", length))
        yield f"offset-{length}.au", patch(au, 4, struct.pack(">I", length))
        yield f"length-{length}.flac", patch(flac, 22, struct.pack(">I", length))
        yield f"length-{length}-more.flac", patch(flac, 21, bytes([flac[21] | 0x0F]) + struct.pack(">I", length))
        yield f"length-{length}.w64", patch(w64, 16, struct.pack("<Q", length << 20))
        if b"Xing" in mp3 or b"Info" in mp3:
            at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
            yield f"length-{length}.mp3", patch(mp3, at, struct.pack(">I", length))
    for channels in (0, 1_024, 65_535):
        yield f"channels-{channels}.wav", patch(wav, 22, struct.pack("<H", channels))
        yield f"channels-{channels}.au", patch(au, 20, struct.pack(">I", channels))


def odd_content(samples: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """What is not audio, or holds none."""
    yield "empty.wav", b""
    yield "byte.flac", b"f"
    yield "text.mp3", b"hello\n" * 999
    yield "zeros.wav", bytes(10_000)
    yield "headerless.raw", samples.tobytes()
    yield "playlist.m4a", b"#EXTM3U\nhttp://127.0.0.1:1/secret\n"
    yield "nan.wav", encode("WAV", np.full(RATE, np.nan, np.float32))
    yield "silence.flac", encode("FLAC", np.zeros(600 * RATE, np.float32))
    yield "channels.wav", encode("WAV", np.zeros((RATE, 64), np.float32) + samples[:RATE, None])
    for name, head in {"mp4": b"\0\0\0\x20ftypisom", "webm": b"\x1a\x45\xdf\xa3", "wma": b"\x30\x26\xb2\x75"}.items():
        yield f"head.{name}", head + np.random.default_rng(0).bytes(5_000)
    for name in ("gz", "noextension"):
        yield f"other.wav.{name}", np.random.default_rng(1).bytes(1_000)


def make_hostile_folder(folder: Path, mutations: int) -> int:
    """Fill a folder with hostile files, good ones among them, and return how many there are."""
    random = np.random.default_rng(0)
    samples = (0.1 * random.standard_normal(RATE)).astype(np.float32)
    whole = {format: encode(format, samples) for format in FORMATS}
    files = {f"good.{format.lower()}": content for format, content in whole.items()}
    files |= dict(lying_headers(samples)) | dict(odd_content(samples))
    for number in range(mutations):
        for format, content in whole.items():
            files[f"mutated/{number}.{format.lower()}"] = mutate(content, random)
            magic = content[: random.integers(4, 40)]
            files[f"noise/{number}.{format.lower()}"] = magic + random.bytes(int(random.integers(0, 3_000)))
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    for format in ("wav", "au", "w64", "rf64"):
        path = folder / f"sparse.{format}"
        path.write_bytes(patch(whole[format.upper()], 40 if format == "wav" else 4, b"\xff\xff\xff\xff"))
        os.truncate(path, 2**33)
    (folder / "sparse-nothing.wav").touch()
    os.truncate(folder / "sparse-nothing.wav", 2**33)
    with open(os.fsencode(folder) + b"/caf\xe9.wav", "wb") as file:
        file.write(whole["WAV"])
    os.mkfifo(folder / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.wav"))
    (folder / "folder.wav").mkdir()
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dead.wav").symlink_to("nowhere.wav")
    (folder / "above").symlink_to(folder)
    (folder / ("long" * 60 + ".wav")).write_bytes(whole["WAV"])
    return len(files) + 11


@pytest.fixture
def hostile_folder(tmp_path):
    def make(mutations: int) -> set[str]:
        (tmp_path / "audio").mkdir()
        count = make_hostile_folder(tmp_path / "audio", mutations)
        listed = {item.id for item in list_audio_folder(tmp_path / "audio")}
        assert len(listed) == count
        return listed

    return make


def test_every_hostile_file_gives_pieces_or_is_reported(tmp_path, hostile_folder):
    listed = hostile_folder(mutations=0)
    items = []
    for recording in list_audio_folder(tmp_path / "audio"):
        is_file = isinstance(recording, Recording)
        items += read_pieces(recording, PieceRules(), RATE, 25.0) if is_file else [recording]

    assert {parse_piece_id(item.id)[0] for item in items} == listed
    assert {item.id for item in items if isinstance(item, Piece)} >= {f"good.{format.lower()}" for format in FORMATS}
    assert len(items) < len(listed) + 20  # one line, however long the silence


@pytest.mark.slow
@pytest.mark.attack
def test_every_hostile_file_is_in_the_rows_or_in_the_report(tmp_path, tiny_codec, hostile_folder, record_property):
    listed = hostile_folder(mutations=18)
    assert len(listed) >= 900
    tiny_codec.save_pretrained(tmp_path / "codec")

    command = [sys.executable, "-c", JOB, *(str(tmp_path / name) for name in ("audio", "codec", "corpus"))]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)

    assert finished.returncode == 0, finished.stderr[-3_000:]
    grown = json.loads(finished.stdout.splitlines()[-1])["grown"]
    assert grown < 2**30
    tables = [pq.read_table(path, columns=["id"]) for path in tmp_path.glob("corpus/data/*.parquet")]
    rows = {id for table in tables for id in table["id"].to_pylist()}
    reports = [path.read_text("utf-8") for path in tmp_path.glob("corpus/skipped/*.jsonl")]
    skipped = {json.loads(line)["id"] for report in reports for line in report.split("\n") if line}
    assert {parse_piece_id(id)[0] for id in rows | skipped} == listed
    assert rows >= {f"good.{format.lower()}" for format in FORMATS}
    figures = f"{len(listed)} files, {len(rows)} rows, {len(skipped)} reported, {grown >> 20} MiB more memory"
    record_property("attack", f"hostile audio: {figures}, every file accounted for in one run")


@pytest.mark.attack
def test_every_row_of_a_hostile_manifest_is_in_the_rows_or_in_the_report(tmp_path, tiny_codec, record_property):
    (tmp_path / "a.wav").write_bytes(encode("WAV", 0.1 * np.random.default_rng(0).standard_normal(RATE)))
    extreme = [
        {"path": "a.wav", "id": "late", "offset": 1e7},
        {"path": "a.wav", "id": "long", "duration": 1e7},
        {"path": "a.wav", "id": "#t=1.2.3,4"},
        {"path": "a.wav", "id": "nul \0 line \u2028", "text": "\0\u2028\ufffe \U0010ffff"},
        {"path": "a.wav", "id": "last", "aligned_text": [{"word": "", "start_time": 1e7, "end_time": 10**7}]},
        {"path": "n" * 5_000, "id": "name"},
        {"path": ".", "id": "folder"},
    ]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in HOSTILE_ROWS + extreme]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))

    source = file_source(read_manifest(tmp_path / "manifest.jsonl"))
    summary = tokenize_corpus(source, tiny_codec, tmp_path / "corpus", num_workers=0)

    assert summary.num_rows == 3
    assert summary.skipped == {"malformed": len(HOSTILE_ROWS), "empty": 1, "unreadable": 3}
    record_property("attack", f"hostile manifest: {len(lines)} rows, {summary.skipped}, every row accounted for")


@pytest.fixture
def server(monkeypatch):
    """A server on the loopback that has `/0.wav` to `/3.wav`, but answers as `statuses` says."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("slam_hf.remote_files.DOWNLOAD_WAITS", (0.0,))
    content = encode("WAV", (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32))

    class Handler(QuietHandler):
        def do_GET(self):
            status = self.server.statuses.get(self.path, 200)
            self.send_response(status)
            self.end_headers()
            if status == 200:
                self.wfile.write(content)

    with serve(Handler, statuses={}) as server:
        yield server


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_server_that_refuses_stops_the_job_and_starting_again_completes_it(tmp_path, tiny_codec, server, status):
    urls = [f"{server.url}/{number}.wav" for number in range(4)]
    source = dataset_source(Dataset.from_dict({"audio": urls}), chunk_seconds=1.0)
    server.statuses = {"/1.wav": 404, "/2.wav": status}

    with pytest.raises(AudioDownloadError, match=rf"/2\.wav': .* in 2 tries \(the server answers {status}\)"):
        tokenize_corpus(source, tiny_codec, tmp_path, num_workers=0)
    assert not list(tmp_path.glob("data/*"))

    del server.statuses["/2.wav"]
    summary = tokenize_corpus(source, tiny_codec, tmp_path, num_workers=0)

    assert (summary.num_rows, summary.skipped) == (3, {"unreadable": 1})
