import errno
import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tokenize_corpus
import torch
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from loopback_hub import run_with_hub

from slam_hf import HubertUnitCodec, command_line, load_audio
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import prepare_source


SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "tokenize_corpus.py"


@pytest.fixture
def codec_dir(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "tiny-codec")
    return str(tmp_path / "tiny-codec")


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "LibriSpeech" / "103" / "1240"
    folder.mkdir(parents=True)
    for number in range(6):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16_000 + 4000 * number)
        soundfile.write(folder / f"103-1240-{number:04d}.flac", waveform, 16_000)
    (folder / "103-1240.trans.txt").write_text("103-1240-0000 ONE\n")
    return folder


def run(monkeypatch, **arguments):
    options = [option for name, value in arguments.items() for option in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    tokenize_corpus.main()


def read_rows(folder, split="train"):
    return list(load_dataset(str(folder), split=split, streaming=True))


def read_data(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_the_options_reach_the_tokenisation(monkeypatch, codec_dir, recordings, tmp_path, capsys):
    run(
        monkeypatch,
        source=recordings,
        codec=codec_dir,
        output_dir=tmp_path / "units",
        split="validation",
        cut="fixed",
        max_seconds=1.5,
        min_seconds=0.3,
        num_workers=0,
    )

    ids = [row["id"] for row in read_rows(tmp_path / "units", split="validation")]
    assert ids == [
        "103-1240-0000.flac",
        "103-1240-0001.flac",
        "103-1240-0002.flac",
        "103-1240-0003.flac#t=0,1.48",
        "103-1240-0004.flac#t=0,1.48",
        "103-1240-0004.flac#t=1.48",
        "103-1240-0005.flac#t=0,1.48",
        "103-1240-0005.flac#t=1.48",
    ]
    assert "1 left out: too short." in capsys.readouterr().out
    assert "`tiny-codec`: 50 units" in (tmp_path / "units" / "README.md").read_text()


def test_a_corpus_in_bfloat16_names_the_codec_and_the_type(monkeypatch, codec_dir, recordings, tmp_path):
    options = {"source": recordings, "codec": codec_dir, "output_dir": tmp_path / "units", "num_workers": 0}
    run(monkeypatch, **options, dtype="bfloat16")

    card = DatasetCard.load(tmp_path / "units" / "README.md")
    assert (card.data.codec_dtype, "computed in bfloat16" in card.content) == ("bfloat16", True)
    codec = HubertUnitCodec.from_pretrained(codec_dir)
    assert card.data.codec_sha256 == describe_codec(codec).weights  # which a model's codec is compared with
    codec.encoder.to(torch.bfloat16)
    for row, path in zip(read_rows(tmp_path / "units"), sorted(recordings.glob("*.flac")), strict=True):
        frames = codec.encode(torch.from_numpy(load_audio(path, 16_000))[None]).audio_codes[0, 0]
        assert row["units"] == codec.deduplicate(frames)[0].tolist()
    with pytest.raises(ValueError, match="codec.dtype: was 'bfloat16', is now 'float32'"):
        run(monkeypatch, **options)


def list_ids(source):
    return [[recording.id for recording in row] for part in source.parts for row in part.read(0)]


def test_every_layout_is_read(recordings, tmp_path):
    root, path = recordings.parents[1], str(recordings / "103-1240-0000.flac")
    (tmp_path / "manifest.csv").write_text("path,id\n103-1240-0001.flac,second\n")
    Dataset.from_dict({"speech": [path], "name": ["a"]}).to_parquet(tmp_path / "clips" / "train.parquet")
    pairs = {"prompt": [path], "chosen": [path], "rejected": [path]}
    Dataset.from_dict(pairs).to_parquet(tmp_path / "pairs" / "train.parquet")
    names = [f"103-1240-000{number}" for number in range(6)]

    def ids(source, **arguments):
        (tmp_path / "source.parquet").unlink(missing_ok=True)
        return list_ids(prepare_source(tmp_path / "source.parquet", SourceArguments(str(source), **arguments)))

    assert ids(root) == [[f"103/1240/{name}.flac"] for name in names]
    assert ids(root, layout="librispeech") == [[name] for name in names]
    assert ids(root, layout="librilight") == [[f"103/1240/{name}"] for name in names]
    assert ids(tmp_path / "manifest.csv", layout="manifest", audio_root=str(recordings)) == [["second"]]
    for streaming in (False, True):
        columns = {"audio_column": "speech", "id_column": "name"}
        assert ids(tmp_path / "clips", layout="dataset", streaming=streaming, **columns) == [["a"]]
    (pair,) = ids("parquet", layout="preference_pairs", data_dir=str(tmp_path / "pairs"))
    assert pair == ["000000000/prompt", "000000000/chosen", "000000000/rejected"]


def test_a_full_disk_ends_the_script_with_a_message(monkeypatch, codec_dir, recordings, tmp_path):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SystemExit, match="^/.*/source.parquet: No space is left for the output.*to continue.$"):
        options = {"source": recordings, "codec": codec_dir, "output_dir": tmp_path / "units", "num_workers": 0}
        command_line.run(lambda: run(monkeypatch, **options))


def test_two_workers_give_the_same_dataset_in_any_number_of_tasks(monkeypatch, codec_dir, recordings, tmp_path, capfd):
    arguments = {"source": recordings, "codec": codec_dir, "chunk_seconds": 3.0}
    run(monkeypatch, output_dir=tmp_path / "one", num_workers=0, **arguments)
    capfd.readouterr()
    run(monkeypatch, output_dir=tmp_path / "two", num_workers=1, workers=2, tasks=5, **arguments)

    output, errors = capfd.readouterr()
    assert output.startswith(f"6 rows, 0.00 hours, 191 units in '{tmp_path}/two'.")
    assert "Encoding: 100%" in errors and "datatrove" not in errors
    assert read_data(tmp_path / "one") == read_data(tmp_path / "two")


def test_the_dataset_is_pushed_to_the_hub_and_loads_from_there(codec_dir, recordings, tmp_path):
    options = ["--source", str(recordings), "--codec", codec_dir, "--output_dir", str(tmp_path / "units")]
    options += ["--layout", "librispeech", "--num_workers", "0", "--push_to_hub", "org/units"]
    code = f"""
import runpy, sys
sys.argv = {[str(SCRIPT), *options]!r}
runpy.run_path(sys.argv[0], run_name="__main__")

import json
from datasets import load_dataset
from huggingface_hub import DatasetCard, list_repo_files
for streaming in (False, True):
    print(json.dumps(list(load_dataset("org/units", split="train", streaming=streaming))))
card = DatasetCard.load("org/units")
print('load_dataset("org/units"' in card.text and "path/to" not in card.text, card.data.codec)
print(sorted(list_repo_files("org/units", repo_type="dataset")))
"""

    *_, loaded, streamed, codec, files = run_with_hub(code, tmp_path / "hub").splitlines()

    assert json.loads(loaded) == json.loads(streamed) == read_rows(tmp_path / "units")
    assert json.loads(loaded)[0]["text"] == "ONE"
    assert codec == "True tiny-codec"
    expected = [".gitattributes", "README.md", "data/train-00000-of-00001.parquet", "skipped/train.jsonl"]
    assert files == str(expected)


@pytest.mark.slow
def test_every_source_in_the_readme_is_read(codec_dir, recordings, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copytree(recordings.parents[1], folder / "recordings")
    (folder / "rows.jsonl").write_text('{"path": "recordings/103/1240/103-1240-0000.flac"}')
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "0.tar", "w") as archive:
        archive.add(recordings, "chapter")
    audio = (recordings / "103-1240-0000.flac").read_bytes()
    for name, columns in {"recordings": ["audio"], "pairs": ["prompt", "chosen", "rejected"]}.items():
        rows = {column: [{"bytes": audio, "path": "a.flac"}] for column in columns}
        Dataset.from_dict(rows).to_parquet(folder / "hub" / name / "train.parquet")
    readme = (SCRIPT.parent / "README.md").read_text()
    commands = re.findall(r"`(--source [^`]*)`", readme)
    assert len(commands) == 5
    code = f"""
import os, runpy, sys
from huggingface_hub import HfApi
os.chdir({str(folder)!r})
for name in ("recordings", "pairs"):
    HfApi().create_repo(f"user/{{name}}", repo_type="dataset")
    HfApi().upload_folder(repo_id=f"user/{{name}}", folder_path=f"hub/{{name}}", repo_type="dataset")
for number, command in enumerate({commands!r}):
    options = ["--codec", {codec_dir!r}, "--output_dir", f"units{{number}}", "--num_workers", "0"]
    sys.argv = [{str(SCRIPT)!r}, *command.split(), *options]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""

    printed = run_with_hub(code, tmp_path / "hub", timeout=300.0)

    rows = re.findall(r"(\d+) rows, .* in 'units(\d)'", printed)
    assert rows == [("6", "0"), ("1", "1"), ("6", "2"), ("1", "3"), ("1", "4")]
