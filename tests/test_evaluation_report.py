import json

import pyarrow.parquet as pq

import slam_hf
from slam_hf.encoding.codec_identity import CodecDescription
from slam_hf.evaluation.report import Evaluation, describe_results, save_evaluation


def make_evaluation() -> Evaluation:
    return Evaluation(
        task="genppl",
        results={"genppl": 30.5, "genppl_interval": [28.0, 33.0]},
        records=[
            {"prompt": "1_correct", "skipped": "1_correct: too short: 0.010 s"},
            {"prompt": "2_correct", "skipped": None, "units": [3, 1], "negative_log_likelihood": None},
            {"prompt": "3_correct", "skipped": None, "units": [7], "negative_log_likelihood": 3.4},
        ],
        model={"name": "my-model", "revision": None, "weights": "abc"},
        data={"name": "twist/sSC", "hash": "def"},
        codec=CodecDescription("codec", None, "0123", 50, 16000, 25.0),
        settings={"seed": 0},
    )


def test_summary_says_what_was_scored_with_what(tmp_path):
    path = save_evaluation(make_evaluation(), tmp_path, num_parameters=358_347_904, training_tokens=1.4e9)
    summary = json.loads(path.read_text())
    assert path == tmp_path / "genppl.json"
    assert summary["results"] == {"genppl": 30.5, "genppl_interval": [28.0, 33.0]}
    assert (summary["num_items"], summary["num_skipped"]) == (3, 1)
    assert summary["model"] == {
        "name": "my-model",
        "revision": None,
        "weights": "abc",
        "num_parameters": 358_347_904,
        "training_tokens": 1.4e9,
    }
    assert summary["data"] == {"name": "twist/sSC", "hash": "def"}
    assert summary["codec"]["weights"] == "0123"
    assert summary["settings"] == {"seed": 0}
    assert summary["code"]["slam_hf"] == slam_hf.__version__
    assert len(summary["code"]["hash"]) == 64


def test_records_of_skipped_items_have_no_values(tmp_path):
    save_evaluation(make_evaluation(), tmp_path, num_parameters=10)
    assert pq.read_table(tmp_path / "genppl.parquet").to_pylist() == [
        {
            "prompt": "1_correct",
            "skipped": "1_correct: too short: 0.010 s",
            "units": None,
            "negative_log_likelihood": None,
        },
        {"prompt": "2_correct", "skipped": None, "units": [3, 1], "negative_log_likelihood": None},
        {"prompt": "3_correct", "skipped": None, "units": [7], "negative_log_likelihood": 3.4},
    ]


def test_conditional_results_are_described_under_their_names():
    evaluation = make_evaluation()
    evaluation.task, evaluation.records = "tstorycloze_t2s", [{"skipped": None}]
    part = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "num_pairs": 1}
    evaluation.results = part | {"conditional": part | {"accuracy": 0.55}, "pmi": part | {"accuracy": 0.6}}
    assert describe_results(evaluation).splitlines() == [
        "tStoryCloze T→S: 1 items, 0 of them skipped.",
        "accuracy: 50.0 % [40.0, 60.0]",
        "num_pairs: 1",
        "conditional accuracy: 55.0 % [40.0, 60.0]",
        "conditional num_pairs: 1",
        "pmi accuracy: 60.0 % [40.0, 60.0]",
        "pmi num_pairs: 1",
    ]
