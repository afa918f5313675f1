import sys

import compare_units
import pytest
import soundfile
import torch

from slam_hf import HubertUnitCodec


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare_units.py", *map(str, arguments)])
    compare_units.main()


def test_frames_that_batches_and_bfloat16_change_are_counted(tiny_codec, recordings, tmp_path, monkeypatch, capsys):
    tiny_codec.save_pretrained(tmp_path / "codec")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "notes.txt").write_text("not audio")
    clips = []
    for number, path in enumerate(recordings):
        samples, rate = soundfile.read(path, dtype="float32", stop=16_000 * (1 + number))
        soundfile.write(tmp_path / "clips" / f"{number}.wav", samples, rate, subtype="FLOAT")
        clips.append(torch.from_numpy(samples))
    run(monkeypatch, tmp_path / "clips", tmp_path / "clips" / "1.wav", "--codec", tmp_path / "codec")

    half = HubertUnitCodec.from_pretrained(tmp_path / "codec", dtype=torch.bfloat16)
    counts = [
        int((half.encode(clip[None], batched=True).audio_codes != tiny_codec.encode(clip[None]).audio_codes).sum())
        for clip in clips
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        f"| {tmp_path / 'clips'} | 75 | 0 (0.00%) | {sum(counts)} ({sum(counts) / 75:.2%}) |",
        f"| {tmp_path / 'clips' / '1.wav'} | 50 | 0 (0.00%) | {counts[1]} ({counts[1] / 50:.2%}) |",
    ]


def test_speech_of_the_vocoder_has_the_frames_that_were_asked_for(monkeypatch):
    clips = compare_units.vocode_corpus(compare_units.load_codec("quickstart:codec"), num_frames=100)

    assert 100 <= sum(map(len, clips)) // 640 < 300
    assert all(clip.std() > 0.01 for clip in clips)


def test_without_speech_there_is_nothing_to_compare(monkeypatch):
    with pytest.raises(ValueError, match="Name recordings, or give `--vocoded_frames`"):
        run(monkeypatch)
