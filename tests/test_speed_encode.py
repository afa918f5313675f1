import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import load_dataset
from speed_comparisons import encode
from transformers import HubertModel


ROOT = Path(__file__).parents[1]


@pytest.fixture
def contest(tiny_codec, tmp_path):
    paths = []
    (tmp_path / "clips").mkdir()
    for number in range(3):
        paths.append(tmp_path / "clips" / f"{number}.flac")
        soundfile.write(paths[-1], 0.1 * np.random.default_rng(number).standard_normal(16_000 + 5000 * number), 16_000)
    hubert = HubertModel.from_pretrained(ROOT / "tests" / "fixtures" / "hubert-25hz").eval()
    return encode.Contest(paths[0].parent, paths, 3.94, hubert, tiny_codec, torch.device("cpu"))


def test_clips_are_as_long_as_those_of_librispeech():
    lengths = np.interp(np.linspace(0, 1, 10_001), *encode.LENGTH_QUANTILES)

    assert lengths.mean() == pytest.approx(12.7, abs=0.05)


def test_both_ways_give_the_same_units_without_padding(contest, tmp_path):
    args = argparse.Namespace(batch_seconds=10.0, num_workers=0)
    encode.run_ours(contest, tmp_path / "run", args)
    encode.run_plain(contest, tmp_path / "run", 1, encode.make_kmeans(contest.codec))

    ours = list(load_dataset(str(tmp_path / "run"), split="train", streaming=True))
    plain = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [row["units"] for row in ours] == [record["units"] for record in plain]
    assert [row["durations"] for row in ours] == [record["duration"] for record in plain]


def test_the_report_has_speeds_and_where_the_time_goes(contest, tmp_path, capsys):
    args = argparse.Namespace(batch_seconds=10.0, num_workers=0)
    spent = encode.Counter()
    with encode.record_time(contest.codec, spent):
        ours = encode.measure(encode.run_ours, contest, tmp_path / "run", args)
    runs = {"ours": [ours], "plain": [encode.Duration(2 * ours.wall, 4 * ours.processor)]}

    encode.report(contest, runs, spent)

    printed = capsys.readouterr().out
    assert "ratio 2.00 (2.00 to 2.00)" in printed
    assert "ratio 4.00 (4.00 to 4.00)" in printed
    assert 0 < spent["convolutions"] < spent["encode"] < ours.wall
    assert "GFLOP per second of audio" in printed


def test_the_encoder_is_as_before_once_its_time_is_recorded(tiny_codec):
    before = tiny_codec.encode

    with encode.record_time(tiny_codec, encode.Counter()):
        assert tiny_codec.encode != before

    assert tiny_codec.encode == before
    assert not tiny_codec.encoder.encoder._forward_hooks
