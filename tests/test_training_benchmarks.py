import json

import numpy as np
import pytest
from datasets import Dataset
from transformers import EncodecFeatureExtractor

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.training.benchmarks import score_benchmarks


@pytest.fixture
def checkpoint(tmp_path, tiny_model):
    """A model and its processor."""
    tiny_model.save_pretrained(tmp_path / "model")
    processor = SpeechLMProcessor(EncodecFeatureExtractor(sampling_rate=16_000), HubertUnitTokenizer(num_units=50))
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def stories(tmp_path):
    """Ten pairs of random units."""
    rng = np.random.default_rng(0)
    names = [f"{number}_{side}" for number in range(10) for side in ("correct", "incorrect")]
    Dataset.from_dict({"id": names, "units": [rng.permutation(50)[:20] for _ in names]}).to_parquet(
        tmp_path / "stories" / "units.parquet"
    )
    return str(tmp_path / "stories")


def test_each_benchmark_leaves_a_summary_and_a_line(checkpoint, stories):
    benchmarks = {"sstorycloze": stories, "tstorycloze": stories}
    lines = list(score_benchmarks(checkpoint, benchmarks, training_tokens=1_000))
    for task, line in zip(benchmarks, lines, strict=True):
        summary = json.loads((checkpoint / "evaluation" / f"{task}.json").read_text())
        low, high = summary["results"]["accuracy_interval"]
        assert line == f"{task}: {summary['results']['accuracy']:.1%} of 10 pairs, {low:.1%} to {high:.1%}"
        assert summary["model"]["training_tokens"] == 1_000


def test_no_benchmark_loads_no_model(tmp_path):
    assert list(score_benchmarks(tmp_path, {}, training_tokens=0)) == []
