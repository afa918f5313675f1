import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from slam_hf.checkpoint_files import weight_files
from slam_hf.hub.repository_files import (
    MODEL_FILES,
    OPTIONAL_FILES,
    publishable_files,
    read_license,
    stage,
    stage_corpus,
    staging_folder,
)


PNG, WAV = b"\x89PNG\r\n\x1a\n and so on", b"RIFF\x00\x00\x00\x00WAVE and so on"


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_processor) -> Path:
    """A model with everything that is published."""
    folder = tmp_path / "model"
    tiny_model.save_pretrained(folder, max_shard_size="50KB")
    tiny_processor.save_pretrained(folder)
    for name, content in zip(OPTIONAL_FILES, (b"{}", b"[]", PNG, WAV, PNG), strict=True):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A corpus of two splits, of two shards and of one."""
    corpus = tmp_path / "corpus"
    (corpus / "data").mkdir(parents=True)
    (corpus / "skipped").mkdir()
    for split, sizes in {"train": (3, 2), "test": (1,)}.items():
        for number, size in enumerate(sizes):
            shard = corpus / "data" / f"{split}-{number:05d}-of-{len(sizes):05d}.parquet"
            pq.write_table(pa.table({"units": [[1, 2]] * size}), shard, write_page_checksum=True)
        detail = '{"id": "a/b\u2028c", "detail": "\'/home/jane/d e.wav\': no such file"}\n'
        (corpus / "skipped" / f"{split}.jsonl").write_text(detail, encoding="utf-8")
    splits = "[{name: train, num_examples: 5}, {name: test, num_examples: 1}]"
    (corpus / "README.md").write_text(f"---\ndataset_info: {{splits: {splits}}}\n---\n")
    return corpus


def staged_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def replace_by_link(path: Path) -> Path:
    """Move a file out of its folder and leave a link to it; returns where it is."""
    outside = path.rename(path.parents[1] / f"outside-{path.name}")
    path.symlink_to(outside)
    return outside


def test_staged_files_are_those_of_a_repository_and_their_own_copies(folder, tmp_path):
    for name in (".env", "token", "notes.txt", "optimizer.pt", "training_args.bin", "id_rsa", "extra.json"):
        (folder / name).write_text("for nobody else")
    stage(publishable_files(folder), tmp_path / "staged")
    weights = {path.name for path in weight_files(folder)}
    assert len(weights) > 1
    expected = {*MODEL_FILES, *OPTIONAL_FILES, "model.safetensors.index.json", *weights}
    assert staged_files(tmp_path / "staged") == expected
    for name in expected:
        original, copy = folder / name, tmp_path / "staged" / name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.samefile(original) == (name in weights), name  # whatever their size, weights take no time


def test_weights_on_another_file_system_are_copied(folder, tmp_path, monkeypatch):
    def link(*args, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    stage(weight_files(folder), tmp_path / "staged")
    for path in weight_files(folder):
        copy = tmp_path / "staged" / path.name
        assert not copy.samefile(path)
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [*MODEL_FILES, *OPTIONAL_FILES, "model.safetensors.index.json", "weights"])
@pytest.mark.parametrize("kind", ["link", "link to a folder", "dangling link", "folder", "pipe", "socket"])
def test_what_is_no_regular_file_is_refused_by_its_name(folder, tmp_path, monkeypatch, name, kind):
    path = weight_files(folder)[0] if name == "weights" else folder / name
    replace_by_link(path)
    if kind != "link":
        path.unlink()
    match kind:
        case "link to a folder":
            path.symlink_to(tmp_path)
        case "dangling link":
            path.symlink_to("/nowhere/at/all")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(folder)  # the path of a socket is short
            socket.socket(socket.AF_UNIX).bind(path.name)
    if name == "model.safetensors.index.json" and kind != "link":
        (folder / "model.safetensors").write_bytes(save({}))  # or the weights are what is missing
    (tmp_path / "staged").mkdir()
    with pytest.raises((ValueError, OSError), match=path.name):
        stage(publishable_files(folder), tmp_path / "staged")
    assert path.name not in staged_files(tmp_path / "staged")


def test_a_file_that_becomes_a_link_in_the_meantime_is_not_followed(folder, tmp_path, monkeypatch):
    for path in (folder / "config.json", weight_files(folder)[0]):
        replace_by_link(path)
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    for path in (folder / "config.json", *weight_files(folder)[:1]):
        with pytest.raises(OSError, match="symbolic links"):
            stage([path], tmp_path / "staged")
    assert staged_files(tmp_path / "staged") == set()


@pytest.mark.parametrize(
    "name",
    ["config.json", "training_run.json", "training_curve.png", "continuation.wav", "weights"],
)
@pytest.mark.parametrize("content", [b"", b"hf_secret", b"\xff\xfe{}", b"["], ids=str)
def test_what_is_not_what_its_name_says_is_refused_by_its_name(folder, tmp_path, name, content):
    path = weight_files(folder)[0] if name == "weights" else folder / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"'{path}' is damaged or cut short|'{path}' is not JSON"):
        stage(publishable_files(folder), tmp_path / "staged")


def test_a_corpus_is_the_shards_that_its_card_names(corpus, tmp_path):
    for name in ("keys.pem", ".env", "other-00000-of-00001.parquet", "train-extra.parquet", "data/train"):
        (corpus / "data" / name).parent.mkdir(exist_ok=True)
        (corpus / "data" / name).write_text("for nobody else")
    (corpus / "skipped" / "token").write_text("for nobody else")
    (tmp_path / "staged").mkdir()
    assert stage_corpus(corpus, tmp_path / "staged") == ["data/train-*", "data/test-*"]
    shards = {"train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"}
    data = {"README.md", *(f"data/{name}.parquet" for name in shards)}
    assert staged_files(tmp_path / "staged") == data
    (tmp_path / "with reports").mkdir()
    stage_corpus(corpus, tmp_path / "with reports", with_reports=True)
    assert staged_files(tmp_path / "with reports") == data | {"skipped/train.jsonl", "skipped/test.jsonl"}
    report = json.loads((tmp_path / "with reports" / "skipped" / "test.jsonl").read_text("utf-8"))
    assert report == {"id": "a/b\u2028c", "detail": "'d e.wav': no such file"}


@pytest.mark.parametrize(
    "name", ["README.md", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet", "data", "skipped"]
)
def test_links_in_a_corpus_are_refused_by_their_name(corpus, tmp_path, name):
    replace_by_link(corpus / name)
    (tmp_path / "staged").mkdir()
    with pytest.raises(ValueError, match=f"'{corpus / name}' is a link"):
        stage_corpus(corpus, tmp_path / "staged", with_reports=True)


def test_a_corpus_that_is_not_what_its_card_says_is_refused(corpus, tmp_path):
    def error() -> str:
        (tmp_path / "staged").mkdir(exist_ok=True)
        with pytest.raises((ValueError, OSError)) as caught:
            stage_corpus(corpus, tmp_path / "staged")
        for path in sorted((tmp_path / "staged").rglob("*.*")):
            path.unlink()
        return str(caught.value)

    shard = corpus / "data" / "train-00001-of-00002.parquet"
    content = shard.read_bytes()
    pq.write_table(pa.table({"units": [[1, 2]]}), shard)
    assert "the split train has 4 rows and its card says 5" in error()
    middle = content.index(b"PAR1", 4) // 2
    flipped = bytes([content[40] ^ 1])
    for damaged in (content[:-1], b"PAR1", content[:40] + flipped + content[41:], content[:middle]):
        shard.write_bytes(damaged)
        assert f"'{shard}' is damaged or cut short" in error()
    shard.unlink()
    assert f"'{corpus}' lacks shards data/train-*.parquet: it has ['train-00000-of-00002.parquet']" in error()
    shard.mkdir()
    assert f"'{shard}' is not a regular file" in error()
    for card in ("", "---\ndataset_info: 3\n---\n", "---\n{\n---\n"):
        (corpus / "README.md").write_text(card)
        assert "README.md' does not list the splits" in error()


def test_the_staging_folder_lies_beside_the_source_where_one_may_write(folder, monkeypatch):
    with staging_folder(folder) as staging:
        assert Path(staging).parent == folder.parent
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for source in (folder, None):
        with staging_folder(source) as staging:
            assert Path(staging).parent != folder.parent
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("card", "license"),
    [(None, None), ("# A card\n", None), ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"), ("---\na: 1\n---\n", None)],
)
def test_the_licence_of_a_card_is_kept(card, license, tmp_path):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert read_license(tmp_path) == license


def test_a_card_with_damaged_metadata_is_named(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ValueError, match=r"README\.md' does not begin with metadata in YAML"):
        read_license(tmp_path)
