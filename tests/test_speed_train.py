import argparse
from itertools import islice

import numpy as np
import pytest
import torch
from speed_comparisons import train


def test_documents_are_as_long_as_in_the_published_runs():
    lengths = [len(ids) for ids in train.make_documents(2000, "slam", 1024, seed=0)["input_ids"]]
    assert np.mean(lengths) == pytest.approx(620, rel=0.03)
    assert max(lengths) == 1024


def test_padded_and_packed_batches_have_the_same_tokens():
    documents = train.make_documents(12, "librispeech", 512, seed=0)
    expected = sorted(token for ids in documents["input_ids"] for token in ids)
    packed_rows = len(train.pack_documents(documents, 512))
    for stream, rows, batches in (
        (train.padded_batches(documents, 4), 4, 3),
        (train.packed_batches(documents, packed_rows, 512), packed_rows, 1),
    ):
        taken = list(islice(stream, batches))
        assert all(len(batch["input_ids"]) == rows for batch in taken)
        tokens = torch.cat([batch["input_ids"].flatten() for batch in taken])
        assert sorted(tokens[tokens != 0].tolist()) == expected


def test_the_table_has_a_line_for_each_way(monkeypatch, capsys):
    tiny = {
        "model_type": "qwen2",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    monkeypatch.setitem(train.BASE_CONFIGS, "small", tiny)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    sizes = ["--documents", "20", "--context_length", "128", "--rounds", "2", "--steps", "1", "--num_threads", "1"]
    train.run(parser.parse_args(["--model", "small", *sizes]))
    header, _, *table = capsys.readouterr().out.splitlines()
    assert header.startswith("18,448 parameters on ")
    assert [line.split(" | ")[0] for line in table] == ["| way", "|---|---|---|---|---|", "| packed", "| padded"]
    assert table[3].endswith("| 1.00 (1.00 to 1.00) |")
