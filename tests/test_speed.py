import json
import sys

import numpy as np
import pytest
import soundfile
import speed
import torch
from datasets import load_dataset
from speed_comparisons import encode, generate, report, score, stream, tokenize, train, turns
from transformers import HubertModel


@pytest.fixture
def encoders(tiny_codec, request):
    from sklearn.cluster import KMeans

    hubert = HubertModel.from_pretrained(request.path.parent / "fixtures" / "hubert-25hz").eval()
    centroids = tiny_codec.codebook.numpy()
    kmeans = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids)
    return encode.Encoders(hubert, tiny_codec, kmeans.predict)


@pytest.fixture
def tiny_sizes(monkeypatch, encoders):
    """Comparisons of a second or two."""
    for module in (encode, tokenize, score):
        monkeypatch.setattr(module, "make_encoders", lambda *_: encoders)
    for module in (encode, tokenize):
        monkeypatch.setattr(module, "NUM_CLIPS", {"small": 3})
    monkeypatch.setattr(encode, "LENGTH_QUANTILES", ([0.0, 1.0], [0.5, 1.5]))
    monkeypatch.setattr(score, "NUM_PAIRS", {"small": 1})
    monkeypatch.setattr(score, "NUM_UNITS", 50)
    monkeypatch.setattr(tokenize, "NUM_WORKERS", {"small": 0})
    monkeypatch.setattr(score, "NUM_WORKERS", {"small": 0})
    monkeypatch.setitem(generate.BATCH_SIZE, "small", 2)
    monkeypatch.setitem(generate.NEW_TOKENS, "small", 4)
    monkeypatch.setattr(stream, "NEW_TOKENS", 4)
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    monkeypatch.setitem(train.BASE_CONFIGS, "small", {"model_type": "qwen2", **tiny})
    monkeypatch.setitem(train.NUM_DOCUMENTS, "small", 20)
    turns.matmul_flops.cache_clear()


def test_ways_take_turns_after_a_round_to_warm_up():
    order = []
    ways = {name: lambda name=name: order.append(name) or 2.0 for name in ("first", "second")}
    taken = turns.take_turns(ways, rounds=2)
    assert order == ["first", "second"] * 3
    assert [len(of_way) for of_way in taken.values()] == [2, 2]
    assert taken["first"][0].work == 2.0


def test_ratios_are_of_the_turns_of_one_round():
    taken = {
        "base": [turns.Turn(10, 5.0, 4.0), turns.Turn(10, 2.0, 4.0)],
        "ours": [turns.Turn(20, 5.0, 2.0), turns.Turn(10, 1.0, 1.0)],
    }
    comparison = turns.Comparison("title", "things/s", "base", taken)
    assert comparison.speeds("ours") == [4.0, 10.0]
    assert comparison.ratios("ours") == [2.0, 2.0]
    assert comparison.ratios("ours", "processor_seconds") == [4.0, 4.0]


def test_the_table_has_speeds_ratios_and_the_share_of_the_limit(capsys):
    taken = {"base": [turns.Turn(10, 5.0, 4.0)], "ours": [turns.Turn(20, 5.0, 2.0)]}
    limits = {"base": 8.0, "ours": 8.0}
    comparison = turns.Comparison("A title", "things/s", "base", taken, limits, {"note": {"ours": "good"}})
    report.print_comparison(comparison)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "A title",
        "",
        "| way | things/s | × base | by processor time | share of limit | note |",
        "|---|---|---|---|---|---|",
        "| base | 2.0 (2.0 to 2.0) | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 25.0% |  |",
        "| ours | 4.0 (4.0 to 4.0) | 2.00 (2.00 to 2.00) | 4.00 (4.00 to 4.00) | 50.0% | good |",
    ]


def test_clips_are_as_long_as_those_of_librispeech():
    lengths = np.interp(np.linspace(0, 1, 10_001), *encode.LENGTH_QUANTILES)
    assert lengths.mean() == pytest.approx(12.7, abs=0.05)


@pytest.mark.parametrize("batched", [False, True])
def test_clips_keep_their_order_in_batches_of_one_length(encoders, batched):
    clips = encode.make_clips(5, seed=0)
    clips = [clip[: 2000 + 1500 * number] for number, clip in enumerate(clips[:3] + clips[:2])]
    expected = [encoders.codec.encode(clip[None]).audio_codes[0, 0].tolist() for clip in clips]
    assert [row.tolist() for row in encode.encode_clips(encoders.codec, batched, clips)] == expected


def test_documents_are_as_long_as_in_the_published_runs():
    lengths = [len(ids) for ids in train.make_documents(2000, seed=0)["input_ids"]]
    assert np.mean(lengths) == pytest.approx(620, rel=0.03)
    assert max(lengths) == 1024


def test_the_job_and_the_plain_way_give_the_same_units_without_padding(encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize, "PLAIN_BATCH_SIZE", 1)
    tokenize.write_clips([0.1 * torch.randn(16_000 + 5_000 * number) for number in range(3)], tmp_path / "clips")
    tokenize.run_job(encoders, tmp_path / "clips", tmp_path / "corpus", num_workers=0)
    tokenize.run_plainly(encoders, tmp_path / "clips", tmp_path / "units.jsonl")

    ours = list(load_dataset(str(tmp_path / "corpus"), split="train", streaming=True))
    plain = [json.loads(line) for line in (tmp_path / "units.jsonl").read_text().splitlines()]
    assert [row["units"] for row in ours] == [record["units"] for record in plain]
    assert [row["durations"] for row in ours] == [record["duration"] for record in plain]


def test_padded_and_packed_batches_have_the_same_tokens(monkeypatch):
    monkeypatch.setattr(train, "CONTEXT_LENGTH", 512)
    monkeypatch.setattr(train, "LENGTH_QUANTILES", ([0.0, 1.0], [70, 512]))
    documents = train.make_documents(12, seed=0)
    expected = sorted(token for ids in documents["input_ids"] for token in ids)
    packed_rows = len(train.pack_documents(documents, 512))
    for endless, rows, batches in (
        (train.padded_batches(documents, 4), 4, 3),
        (train.packed_batches(documents, packed_rows), packed_rows, 1),
    ):
        taken = [next(endless) for _ in range(batches)]
        assert all(len(batch["input_ids"]) == rows for batch in taken)
        tokens = torch.cat([batch["input_ids"].flatten() for batch in taken])
        assert sorted(tokens[tokens != 0].tolist()) == expected


def test_plain_scores_are_those_of_the_units(encoders, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(score, "PLAIN_BATCH_SIZE", 1)
    for number, side in enumerate(("correct", "incorrect")):
        noise = 0.1 * np.random.default_rng(number).standard_normal(16_000)
        soundfile.write(tmp_path / f"0_{side}.flac", noise, 16_000)
    [scores] = score.score_plainly([tiny_model], tmp_path, encoders)
    for side, found in zip(("correct", "incorrect"), scores, strict=True):
        waveform = torch.from_numpy(soundfile.read(tmp_path / f"0_{side}.flac", dtype="float32")[0])
        units = encoders.codec.deduplicate(encoders.codec.encode(waveform[None]).audio_codes[0, 0])[0]
        ids = torch.tensor([[1, *(units + 2).tolist(), 1]])
        assert found == pytest.approx(tiny_model.log_likelihood(ids).item(), abs=1e-5)


def test_all_comparisons_are_measured_and_saved(tiny_sizes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["speed.py", "all", "--size", "small", "--rounds", "1", "--output", str(tmp_path)]
    )
    speed.main()
    printed = capsys.readouterr().out
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert list(saved["comparisons"]) == ["encode", "tokenize", "train", "score", "generate", "stream"]
    assert saved["device"].startswith("CPU, ")
    ways = {name: list(comparison["turns"]) for name, comparison in saved["comparisons"].items()}
    assert ways == {
        "encode": ["plain padded", "clip by clip", "batched"],
        "tokenize": ["plain padded", "tokenize_corpus"],
        "train": ["padded", "packed"],
        "score": ["plain", "empty cache", "full cache"],
        "generate": ["dynamic cache", "static cache"],
        "stream": ["plain call", "stream, first sound", "stream, whole"],
    }
    assert all(f"| {way} | " in printed for of_comparison in ways.values() for way in of_comparison)
    assert saved["comparisons"]["encode"]["notes"]["frames that differ"]["batched"] == "0.00%"
    assert saved["comparisons"]["generate"]["notes"]["same units"]["static cache"] == "100.0%"
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
