"""`slam-hf continue`: recordings in, files of speech out."""

import sys
from pathlib import Path

import continue_speech
import numpy as np
import pytest
import soundfile

from slam_hf import command_line
from slam_hf.quickstart import resolve_path


PROMPT = resolve_path("quickstart:prompt.flac")
SHORT = ["--prompt_duration", "1", "--max_new_tokens", "10", "--seed", "0"]


@pytest.fixture
def continue_(monkeypatch, tmp_path):
    """Runs the command in an empty folder, and returns its exit status or what it says at the end."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["continue_speech.py", *map(str, args)])
        try:
            command_line.run(continue_speech.main)
        except SystemExit as stopped:
            return stopped.code
        return 0

    return run


@pytest.mark.parametrize(("name", "format"), [("out.wav", "WAV"), ("a/out.FLAC", "FLAC"), ("out.ogg", "OGG")])
def test_the_suffix_names_the_format(continue_, capsys, name, format):
    assert continue_(PROMPT, "-o", name, *SHORT) == 0
    info = soundfile.info(name)
    assert (info.format, info.samplerate, info.channels) == (format, 16_000, 1)
    assert capsys.readouterr().out == f"{name}: {info.duration:.1f} s, 10 units after 19 of {PROMPT}\n"
    samples, _ = soundfile.read(name)
    assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.5


def test_a_seed_gives_the_same_file_again(continue_):
    for name, seed in (("a.wav", 0), ("b.wav", 0), ("c.wav", 1)):
        continue_("quickstart:prompt.flac", "-o", name, *SHORT[:-1], seed)
    a, b, c = (Path(name).read_bytes() for name in ("a.wav", "b.wav", "c.wav"))
    assert a == b != c


def test_voices_are_numbers_or_names(continue_, monkeypatch, capsys):
    calls = []

    def speak(recording, **options):
        calls.append(options)
        return {"audio": np.zeros(1600), "sampling_rate": 16_000, "units": [1], "prompt_units": []}

    with monkeypatch.context() as patch:
        patch.setattr(continue_speech, "pipeline", lambda task, model, codec: speak)
        continue_(PROMPT, "-o", "a.wav", "--speaker_id", "1", "--style_id", "calm")
    assert calls == [{"return_full_audio": True, "speaker_id": 1, "style_id": "calm"}]
    assert continue_(PROMPT, "-o", "a.wav", "--speaker_id", "anna", *SHORT) == 1
    assert "This vocoder was made without `speaker_id`: leave it out." in capsys.readouterr().err


def test_several_recordings_go_to_a_folder(continue_, capsys, recordings):
    assert continue_(*recordings, "-o", "out", "--only_new", *SHORT) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["audio1.wav", "audio2.wav"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert continue_(PROMPT, "-o", "out", *SHORT) == 0  # one recording, too, if the folder is there
    assert Path("out/prompt.wav").is_file()


def test_a_damaged_recording_does_not_stop_the_others(continue_, capsys, recordings):
    Path("broken.wav").write_bytes(b"RIFF")
    assert continue_("broken.wav", "missing.wav", recordings[0], "-o", "out", *SHORT) == 1
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["Error", "Error"]
    assert "broken.wav" in shown.err and "'missing.wav': no such audio file" in shown.err
    assert [path.name for path in Path("out").iterdir()] == ["audio1.wav"]


def test_an_earlier_output_is_replaced(continue_):
    Path("out.wav").write_bytes(b"earlier")
    assert continue_(PROMPT, "-o", "out.wav", *SHORT) == 0
    assert soundfile.info("out.wav").duration > 1
    assert [path.name for path in Path().iterdir()] == ["out.wav"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.wav", "-o", "a.wav"], "'a.wav' is one of the recordings: name another output."),
        (["a.wav", "-o", "link.wav"], "'link.wav' is one of the recordings: name another output."),
        (["a.wav", "b.wav", "-o", "."], "'a.wav' is one of the recordings: name another output."),
        (["a.wav", "b.wav", "-o", "file"], "'file' is not a folder, which several recordings need."),
        (["a.wav", "c/a.wav", "-o", "d"], "2 recordings would be continued in 'd/a.wav': give them different names."),
        (["a.wav", "-o", "out.xyz"], "'out.xyz': name a file such as .wav, .flac, .ogg or .mp3, or a folder."),
        (["a.wav", "-o", "out"], "'out': name a file such as .wav, .flac, .ogg or .mp3, or a folder."),
    ],
)
def test_an_impossible_output_is_named_before_the_model_is_loaded(continue_, monkeypatch, args, message):
    monkeypatch.setattr(continue_speech, "pipeline", None)
    for name in ("a.wav", "b.wav", "file"):
        Path(name).write_bytes(b"recording")
    Path("link.wav").symlink_to("a.wav")
    assert continue_(*args) == f"Error: {message}"
    assert Path("a.wav").read_bytes() == b"recording"


def test_an_unknown_model_is_one_line(continue_):
    assert continue_(PROMPT, "-o", "out.wav", "--model", "quickstart:modle").startswith(
        "Error: 'quickstart:modle': slam-hf brings no such data with it, but benchmarks, codec, corpus, model,"
    )
