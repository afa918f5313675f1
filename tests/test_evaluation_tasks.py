"""The table of tasks is the only place that names a benchmark: an entry and a metric's folder add one."""

import json
import sys
from types import ModuleType

import evaluate
import pytest
from datasets import Features, Value
from test_evaluate_model import run_script

from slam_hf import SpeechLMForCausalLM
from slam_hf.evaluation.benchmarks import read_storycloze
from slam_hf.evaluation.report import Evaluation, save_evaluation
from slam_hf.evaluation.results_table import read_summaries, to_markdown
from slam_hf.evaluation.tasks import SCORES, TASKS, Task, pair_tasks
from slam_hf.fingerprints import describe_model
from slam_hf.hub.model_card import render_model_card
from slam_hf.training.arguments import PretrainArguments


class Margin(evaluate.Metric):
    """The smallest difference of scores."""

    def _info(self):
        features = Features({name: Value("float64") for name in SCORES})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, correct_scores, incorrect_scores):
        margin = min(right - wrong for right, wrong in zip(correct_scores, incorrect_scores, strict=True))
        return {"margin": margin, "margin_interval": [margin - 1, margin + 1]}


@pytest.fixture
def probe(monkeypatch):
    """A benchmark that is added to the table: its stories are StoryCloze's, and it has a metric of its own."""
    module = ModuleType("slam_hf.metrics.margin.margin")
    module.Margin = Margin
    monkeypatch.setitem(sys.modules, "slam_hf.metrics.margin", ModuleType("slam_hf.metrics.margin"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    task = Task("Probe", read_storycloze, "margin", SCORES, "margin", scale=1, higher_is_better=False)
    monkeypatch.setitem(TASKS, "probe", task)
    return task


def test_an_entry_is_a_choice_of_the_command_line(probe, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_script(monkeypatch, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "The benchmark: sblimp, sstorycloze, tstorycloze, sstorycloze_s2t, sstorycloze_t2s, sstorycloze_t2t, " in shown
    )
    assert (
        "tstorycloze_t2t, swuggy, salmon, genppl, auto_bleu, llm_judge, speech_quality, speaker_similarity, probe."
        in shown
    )
    with pytest.raises(SystemExit):
        run_script(monkeypatch, ["--model", "m", "--data", "d", "--task", "unknown"])
    assert "invalid choice: 'unknown'" in capsys.readouterr().err


def test_an_entry_is_evaluated(probe, checkpoint, tmp_path, monkeypatch, capsys):
    from test_evaluation_pairs import write_units

    write_units(tmp_path / "stories", {"1_correct": [1, 2], "1_incorrect": [3, 4, 5]})
    options = {"model": checkpoint / "model", "task": "probe", "data": tmp_path / "stories", "output_dir": tmp_path}
    run_script(monkeypatch, [str(part) for name, value in options.items() for part in (f"--{name}", value)])
    summary = json.loads((tmp_path / "probe.json").read_text())
    margin = summary["results"]["margin"]
    assert f"margin: {margin:.2f} [{margin - 1:.2f}, {margin + 1:.2f}]" in capsys.readouterr().out


def test_an_entry_can_end_a_training(probe, tmp_path):
    assert PretrainArguments(benchmarks={"probe": str(tmp_path)}).benchmarks == {"probe": str(tmp_path)}


def test_an_entry_is_in_the_table_and_on_the_card(probe, checkpoint):
    model = describe_model(SpeechLMForCausalLM.from_pretrained(checkpoint / "model"))
    results = {"margin": 0.25, "margin_interval": [-0.75, 1.25]}
    evaluation = Evaluation("probe", results, [{"skipped": None}], model, {"name": "probe", "hash": ""}, None, {})
    file = save_evaluation(evaluation, checkpoint / "results", num_parameters=10)
    table = to_markdown(read_summaries([file]))
    assert "| Probe ↓ |" in table and "| 0.25 [-0.75, 1.25] |" in table
    card = render_model_card(checkpoint / "model", "user/model", [file])
    assert "| Probe ↓ | 0.25 | -0.75 to 1.25 |" in card.text
    assert "in percent, except for Probe." in card.text
    assert [(result.dataset_type, result.metric_type) for result in card.data.eval_results] == [("probe", "margin")]


def test_every_entry_has_its_metric():
    directions = [f"{kind}storycloze_{direction}" for kind in "st" for direction in ("s2t", "t2s", "t2t")]
    assert pair_tasks() == ["sblimp", "sstorycloze", "tstorycloze", *directions, "swuggy", "salmon"]
    for name in pair_tasks():
        record = dict.fromkeys(TASKS[name].inputs.values(), "1") | {"correct_score": 1, "incorrect_score": 0}
        results = TASKS[name].compute([record | {"frequency": 3, "skipped": None}])
        assert results[TASKS[name].result] == 1
        assert results[f"{TASKS[name].result}_interval"] == [1, 1]


def test_a_mean_is_that_of_the_numbers():
    rows = [(1.0, 2.0), (3.0, float("nan")), (None, 4.0), (None, None)]
    names = ("overall", "signal", "background", "p808")
    records = [{"skipped": None, **dict(zip(names, (*row, 1.0, 1.0), strict=True))} for row in rows]
    results = TASKS["speech_quality"].compute(records)
    assert [results[name] for name in (*names, "num_rated")] == [2.0, 3.0, 1.0, 1.0, 1]
