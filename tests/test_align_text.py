import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import align_text
import numpy as np
import pytest
import soundfile
import tokenize_corpus
from datasets import load_dataset
from loopback_hub import run_with_hub
from test_corpora_alignment_aligners import save_tiny_ctc, save_tiny_whisper


def run(monkeypatch, script, *options: str):
    monkeypatch.setattr(sys, "argv", [script.__file__, *options])
    script.main()


@pytest.fixture
def ctc_model(tmp_path):
    return save_tiny_ctc(tmp_path / "ctc")


@pytest.fixture
def librispeech(tmp_path):
    folder = tmp_path / "LibriSpeech" / "103" / "1240"
    folder.mkdir(parents=True)
    for number in range(3):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16_000 + 4000 * number)
        soundfile.write(folder / f"103-1240-{number:04d}.flac", waveform, 16_000)
    (folder / "103-1240.trans.txt").write_text("103-1240-0000 ONE DAY\n103-1240-0001 IN 1984\n")
    return str(tmp_path / "LibriSpeech")


def test_the_command_that_it_prints_tokenises_the_recordings_with_their_words(
    monkeypatch, librispeech, ctc_model, tiny_codec, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    source = ("--source", "LibriSpeech", "--layout", "librispeech")
    run(monkeypatch, align_text, *source, "--ctc_model", "ctc", "--output_dir", "words")
    *lines, command = capsys.readouterr().out.splitlines()
    assert lines == [
        "1 of 3 recordings have words with times, in 'words'.",
        "1 have none: characters unknown.",
        "1 have none: no text.",
    ]
    tiny_codec.save_pretrained("codec")
    options = shlex.split(command.partition("tokenize_corpus.py ")[2])
    run(monkeypatch, tokenize_corpus, *options, "--codec", "codec", "--output_dir", "units", "--num_workers", "0")
    rows = load_dataset("units", split="train", cache_dir=str(tmp_path / "cache")).to_list()
    assert [row["id"] for row in rows] == [f"103-1240-{number:04d}" for number in range(3)]
    assert [row["text"] for row in rows] == ["ONE DAY", "IN 1984", None]
    assert [word["word"] for word in rows[0]["aligned_text"]] == ["ONE", " DAY"]
    assert rows[1]["aligned_text"] is rows[2]["aligned_text"] is None

    run(monkeypatch, tokenize_corpus, *source, "--codec", "codec", "--output_dir", "later", "--num_workers", "0")
    capsys.readouterr()
    corpus = ("--corpus", "later", "--output_dir", "aligned")
    run(monkeypatch, align_text, *source, "--ctc_model", "ctc", *corpus)
    assert capsys.readouterr().out.startswith("1 of 3 rows have words with times, in 'aligned'.\n")
    assert load_dataset("aligned", split="train", cache_dir=str(tmp_path / "cache")).to_list() == rows


RUN_COMMANDS = """
import os, shlex, subprocess, sys
from huggingface_hub import HfApi

api = HfApi()
for name, folder in {models!r}.items():
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=folder)
for command in {commands!r}:
    program, *arguments = shlex.split(command)
    assert program == "python"
    print(subprocess.run([sys.executable, *arguments], cwd={cwd!r}, check=True, capture_output=True, text=True).stdout)
"""


@pytest.mark.slow
def test_the_commands_of_the_readme_run(librispeech, ctc_model, tmp_path):
    root = Path(__file__).parents[1]
    commands = re.findall(
        "^python hub_scripts/align_text.py .*", (root / "hub_scripts/README.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 2
    (tmp_path / "hub_scripts").symlink_to(root / "hub_scripts")
    shutil.copytree(f"{librispeech}/103", tmp_path / "LibriSpeech" / "train-clean-100" / "103")
    (tmp_path / "podcasts").mkdir()
    shutil.copy(f"{librispeech}/103/1240/103-1240-0002.flac", tmp_path / "podcasts" / "one.flac")
    models = {"facebook/wav2vec2-base-960h": ctc_model, "openai/whisper-base": save_tiny_whisper(tmp_path / "whisper")}
    script = RUN_COMMANDS.format(models=models, commands=commands, cwd=str(tmp_path))
    output = run_with_hub(script, tmp_path / "cache", timeout=300)
    assert "1 of 3 recordings have words with times, in 'words/librispeech'." in output
    assert "1 of 1 recordings have words with times, in 'words/podcasts'." in output
    (line,) = (tmp_path / "words/podcasts/manifest.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["path"] == "one.flac" and row["text"] == "".join(word["word"] for word in row["aligned_text"])
