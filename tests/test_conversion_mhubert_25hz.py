import dataclasses
import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from slam_hf import HubertUnitCodec
from slam_hf.conversion.mhubert_25hz import MHUBERT_25HZ, PublishedCodec, PublishedFile, cache_codec, published_codec


FIXTURES = Path(__file__).parent / "fixtures"


class RecordingHandler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """The fixtures on a server of this machine, which remembers what it was asked for."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    handler = functools.partial(RecordingHandler, directory=FIXTURES)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def published(server) -> PublishedCodec:
    def publish(name: str) -> PublishedFile:
        digest = hashlib.sha256((FIXTURES / name).read_bytes()).hexdigest()
        return PublishedFile(f"http://127.0.0.1:{server.server_port}/{name}", digest)

    return PublishedCodec(
        hubert=str(FIXTURES / "hubert-25hz"),
        hubert_revision="main",
        layer=3,
        kmeans=publish("hubert-25hz/kmeans.bin"),
        vocoder=publish("unit-hifigan/g_00500000"),
        vocoder_config=publish("unit-hifigan/config.json"),
    )


def test_parts_are_downloaded_and_converted_once(server, published, tiny_codec, tmp_path):
    folder = cache_codec(published, tmp_path)
    assert sorted(server.requests) == [
        "/hubert-25hz/kmeans.bin",
        "/unit-hifigan/config.json",
        "/unit-hifigan/g_00500000",
    ]
    assert list(tmp_path.iterdir()) == [folder]
    codec = HubertUnitCodec.from_pretrained(folder)
    for name, tensor in tiny_codec.state_dict().items():
        assert torch.equal(codec.state_dict()[name], tensor), name

    server.requests.clear()
    assert cache_codec(published, tmp_path) == folder
    assert not server.requests


def test_cached_codec_needs_no_connection(published, tmp_path, monkeypatch):
    folder = cache_codec(published, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cache_codec(published, tmp_path) == folder


@pytest.mark.parametrize("part", ["kmeans", "vocoder", "vocoder_config"])
def test_files_with_another_content_are_refused(published, tmp_path, part):
    file = dataclasses.replace(getattr(published, part), sha256="0" * 64)
    with pytest.raises(ValueError, match=f"{file.url} is not the file that was published: invalid hash"):
        cache_codec(dataclasses.replace(published, **{part: file}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_conversion_that_breaks_off_leaves_nothing(published, tmp_path, monkeypatch):
    def save_half(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(HubertUnitCodec, "save_pretrained", save_half)
    with pytest.raises(KeyboardInterrupt):
        cache_codec(published, tmp_path)
    assert not list(tmp_path.iterdir())


def test_codec_that_another_process_has_converted_meanwhile_is_taken(published, tmp_path, monkeypatch):
    save = HubertUnitCodec.save_pretrained

    def save_here_and_there(self, folder):
        save(self, folder)
        save(self, tmp_path / published.name)

    monkeypatch.setattr(HubertUnitCodec, "save_pretrained", save_here_and_there)
    folder = cache_codec(published, tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    assert HubertUnitCodec.from_pretrained(folder).codebook_size == 50


@pytest.mark.parametrize("part", ["hubert", "hubert_revision", "layer", "kmeans", "vocoder", "vocoder_config"])
def test_name_depends_on_every_part(part):
    value = getattr(MHUBERT_25HZ, part)
    if part == "layer":
        other = 2
    elif isinstance(value, str):
        other = value + "-other"
    else:
        other = dataclasses.replace(value, sha256="0" * 64)
    assert dataclasses.replace(MHUBERT_25HZ, **{part: other}).name != MHUBERT_25HZ.name


def test_name_does_not_depend_on_the_server():
    mirrored = dataclasses.replace(MHUBERT_25HZ.kmeans, url="https://mirror/km.bin")
    assert dataclasses.replace(MHUBERT_25HZ, kmeans=mirrored).name == MHUBERT_25HZ.name


def test_without_a_connection_the_error_names_the_parts(published, tmp_path, server):
    closed = dataclasses.replace(published.kmeans, url="http://127.0.0.1:9/km.bin")
    with pytest.raises(
        OSError, match=r"(?s)Connection refused.*from_parts\(...\).*layer 3\), http://127.0.0.1:9/km.bin"
    ):
        cache_codec(dataclasses.replace(published, kmeans=closed), tmp_path)
    missing = dataclasses.replace(published.kmeans, url=f"http://127.0.0.1:{server.server_port}/none.bin")
    with pytest.raises(OSError, match="HTTP Error 404"):
        cache_codec(dataclasses.replace(published, kmeans=missing), tmp_path)


def test_published_codec_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    with pytest.raises(OSError, match=f"(?s)slam_hf/{MHUBERT_25HZ.name}.*HF_HUB_OFFLINE.*slprl/mhubert-base-25hz"):
        published_codec()
