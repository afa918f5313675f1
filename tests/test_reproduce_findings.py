import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import reproduce_findings
import yaml
from datasets import Dataset
from findings import compare, report, runs
from findings.runs import RunArguments
from transformers import Qwen2Config


def write_scores(folder: Path, right: list[bool]) -> Path:
    """A run that has some pairs of each benchmark right."""
    for task in runs.BENCHMARKS:
        correct_scores = [-1.0 if is_right else -3.0 for is_right in right]
        scores = {"correct_score": correct_scores, "incorrect_score": [-2.0] * len(right)}
        Dataset.from_dict(scores).to_parquet(folder / "evaluation" / f"{task}.parquet")
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two seeds of a good and of a bad run, on 40 pairs."""
    return {
        "good": [write_scores(tmp_path / f"good-{seed}", [True] * 30 + [seed == 0] * 10) for seed in range(2)],
        "bad": [write_scores(tmp_path / f"bad-{seed}", [True] * 20 + [False] * 20) for seed in range(2)],
    }


def test_differences_are_those_of_the_same_items_averaged_over_seeds(folders):
    comparison = compare.compare(compare.Finding("good is better", "good", "bad"), folders)
    assert [change.measure for change in comparison.differences] == list(compare.MEASURES)
    accuracy, log_likelihood = comparison.differences[0], comparison.differences[-1]
    assert accuracy.value == pytest.approx(100 * (10 + 0.5 * 10) / 40)
    assert accuracy.by_seed == pytest.approx([50.0, 25.0])
    assert 20 < accuracy.interval[0] < accuracy.value < accuracy.interval[1] < 60
    assert accuracy.verdict == "holds"
    # On the pairs that only the good run has right, -1 in place of -3.
    assert log_likelihood.value == pytest.approx(2 * (10 + 0.5 * 10) / 40)


def test_the_voices_of_an_item_are_averaged(tmp_path):
    scores = {"id": [7, 7, 9], "voice": ["a", "b", "a"]}
    scores |= {"correct_score": [-1.0, -3.0, -1.0], "incorrect_score": [-2.0] * 3}
    Dataset.from_dict(scores).to_parquet(tmp_path / "evaluation" / "sblimp.parquet")
    assert compare.MEASURES["sBLIMP"].of_runs([tmp_path, tmp_path]).tolist() == [[50.0, 100.0]] * 2


def test_a_reversed_finding_and_no_difference_are_distinguished(folders):
    reverse = compare.compare(compare.Finding("bad is better", "bad", "good"), folders)
    same = compare.compare(compare.Finding("good is better than itself", "good", "good"), folders)
    assert {change.verdict for change in reverse.differences} == {"does not hold"}
    assert {change.verdict for change in same.differences} == {"undecided"}


def test_the_report_is_a_table_json_and_a_picture(folders, tmp_path):
    comparison = compare.compare(compare.Finding("good is better", "good", "bad"), folders)
    report.save_report(tmp_path, folders, [comparison])
    table = (tmp_path / "findings.md").read_text()
    assert "| bad | 50.0 [" in table
    assert "| good is better | +37.5 [" in table and "]: holds |" in table
    written = json.loads((tmp_path / "findings.json").read_text())
    assert written["findings"][0]["verdicts"] == dict.fromkeys(compare.MEASURES, "holds")
    assert written["scores"]["good"]["sBLIMP"][0] == pytest.approx(100 * 35 / 40)
    assert written["scores"]["bad"]["log-likelihood of stories"][0] == pytest.approx(-2.0)
    assert (tmp_path / "findings.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_the_recipe_with_other_values_and_is_done_once(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: called.append(command))
    natural = runs.Pretraining(datasets=[{"path": "quickstart:corpus", "name": "sentences"}], packing=False)
    for text_lm in (None, "a-text-lm"):  # which it does not need
        runs.complete_run(natural, tmp_path / "natural-3", 3, RunArguments(minutes=6, text_lm=text_lm))
    (command,) = called
    assert (tmp_path / "natural-3" / "done.json").read_text() == '{"seed": 3, "minutes": 6}\n'
    assert Path(command[4]).name == "pretrain.py" and command[5] == "--config"
    recipe = yaml.safe_load(Path(command[6]).read_text())
    expected = {"seed": 3, "max_steps": -1, "max_train_hours": 0.1, "packing": False, "datasets": natural.datasets}
    expected["overwrite_output_dir"] = True
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["output_dir"] == str(tmp_path / "natural-3")
    assert recipe["base_config"]["model_type"] == "qwen2"
    with pytest.raises(ValueError, match="natural-3' is of a run with other settings"):
        runs.complete_run(natural, tmp_path / "natural-3", 3, RunArguments(minutes=5))


def test_alignment_starts_from_the_run_of_the_same_seed_and_is_scored(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: called.append(command))
    runs.complete_run(runs.Alignment("base"), tmp_path / "aligned-1", 1, RunArguments())
    assert [Path(command[4]).name for command in called] == ["align_dpo.py"] + ["evaluate_model.py"] * 3
    assert yaml.safe_load(Path(called[0][6]).read_text())["model_name_or_path"] == str(tmp_path / "base-1")


def test_twist_and_its_rival_have_one_architecture(tmp_path):
    Qwen2Config(hidden_size=48).save_pretrained(tmp_path)
    args = RunArguments(minutes=3.0, text_lm=str(tmp_path), text_lm_minutes=1.5)
    twist, scratch = (runs.Pretraining(twist=twist).arguments(0, args) for twist in (True, False))
    assert twist["max_train_hours"] == 0.025
    assert runs.Pretraining(twist=True).settings(args) == {"minutes": 1.5, "text_lm": str(tmp_path)}
    assert {name for name in scratch | twist if scratch.get(name) != twist.get(name)} == {
        "model_name_or_path",
        "base_config",
    }
    assert twist["learning_rate"] == runs.TEXT_LM_SIZE["learning_rate"]
    assert (twist["model_name_or_path"], twist["base_config"]) == (str(tmp_path), None)
    assert "model_name_or_path" not in scratch
    assert (scratch["base_config"]["model_type"], scratch["base_config"]["hidden_size"]) == ("qwen2", 48)


def test_runs_of_equal_steps_differ_in_their_packing_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: None)
    recipes = []
    for cut_documents in (False, True):
        folder = tmp_path / f"{cut_documents}-1"
        runs.complete_run(runs.Pretraining(steps=600, cut_documents=cut_documents), folder, 1, RunArguments())
        assert json.loads((folder / "done.json").read_text()) == {"seed": 1, "steps": 600}
        recipes.append(yaml.safe_load((folder / "recipe.yaml").read_text()))
    whole, cut = recipes
    assert (whole["max_steps"], whole["cut_documents"], "max_train_hours" in whole) == (600, False, False)
    assert cut == whole | {"cut_documents": True, "output_dir": str(tmp_path / "True-1")}


def test_speech_alone_and_with_text_have_the_same_compute():
    compute = {}
    for recipe in ("quickstart.yaml", "quickstart-interleaved.yaml"):
        arguments = runs.Pretraining(recipe, equal_compute=True).arguments(0, RunArguments(flops=3e12))
        assert "max_train_hours" not in arguments
        compute[recipe] = 6 * runs.count_parameters(recipe) * arguments["max_train_tokens"]
    assert list(compute.values()) == pytest.approx([3e12, 3e12], rel=1e-4)
    assert (
        runs.count_parameters("quickstart-interleaved.yaml") - runs.count_parameters("quickstart.yaml") == 2000 * 256
    )


def test_a_run_by_compute_is_the_recipe_with_tokens(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: called.append(command))
    run = runs.Pretraining("quickstart-interleaved.yaml", equal_compute=True)
    runs.complete_run(run, tmp_path / "interleaved-0", 0, RunArguments(flops=1e12))
    recipe = yaml.safe_load(Path(called[0][6]).read_text())
    assert (recipe["max_steps"], recipe["text_tokenizer"]) == (-1, "quickstart:tokenizer")
    assert recipe["max_train_tokens"] == 74_108
    assert json.loads((tmp_path / "interleaved-0" / "done.json").read_text()) == {"seed": 0, "flops": 1e12}


def test_only_the_runs_of_the_chosen_findings_are_made(tmp_path, monkeypatch, capsys):
    made = []

    def make(run, folder, seed, args):
        made.append(folder.name)
        write_scores(folder, [True, folder.name.startswith("twist")])

    monkeypatch.setattr(reproduce_findings, "complete_run", make)
    options = ["--seeds", "1", "--text_lm", "a-text-lm", "--findings"]

    def reproduce(*findings):
        arguments = ["reproduce_findings.py", "--output_dir", str(tmp_path), *options, *findings]
        monkeypatch.setattr(sys, "argv", arguments)
        reproduce_findings.main()

    reproduce("twist", "alignment")
    assert made == ["base-0", "aligned-0", "twist-0", "scratch-0"]
    assert "| TWIST initialisation | +50.0 [" in capsys.readouterr().out
    made.clear()
    with monkeypatch.context() as patch:
        patch.setattr(reproduce_findings, "compare", lambda finding, folders: folders)
        patch.setattr(reproduce_findings, "save_report", Mock())
        (tmp_path / "findings.md").write_text("")
        arguments = ["reproduce_findings.py", "--output_dir", str(tmp_path), "--asr_model", "a", "--judge_model", "b"]
        patch.setattr(sys, "argv", [*arguments, "--seeds", "2", "--findings", "own_preferences"])
        reproduce_findings.main()
    assert made == ["quickstart-0", "own-0", "own-1"]
    options = options[:2] + options[4:]
    with pytest.raises(ValueError, match="^The finding 'twist' needs --text_lm"):
        reproduce("twist")


def test_preferences_among_its_own_continuations_are_made_aligned_with_and_scored(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: called.append(command))
    judges = {"asr_model": "an-asr-model", "judge_model": "a-text-lm", "judge_start_token": "<begin>"}
    args = RunArguments(**judges, num_prompts=5)
    runs.complete_run(runs.Judged(aligns=True), tmp_path / "own-1", 1, args)
    done = {"seed": 1, "asr_model": "an-asr-model", "judge_model": "a-text-lm", "start_token": "<begin>"}
    assert json.loads((tmp_path / "own-1" / "done.json").read_text()) == done | {"num_prompts": 5}
    names = ["make_preferences.py", "align_dpo.py"] + ["evaluate_model.py"] * 2
    assert [Path(command[4]).name for command in called] == names
    texts = [" ".join(command[5:]).split("--")[1:] for command in called]
    options = [{f"--{text.split()[0]}": " ".join(text.split()[1:]) for text in of_command} for of_command in texts]
    names = ("model", "asr_model", "judge_model", "judge_start_token", "num_prompts", "seed")
    values = ["quickstart:model", "an-asr-model", "a-text-lm", "<begin>", "5", "1"]
    assert [options[0][f"--{name}"] for name in names] == values
    recipe = yaml.safe_load(Path(options[1]["--config"]).read_text())
    assert recipe["dataset_name"] == options[0]["--output_dir"] == str(tmp_path / "own-1" / "pairs")
    assert recipe["model_name_or_path"] == "quickstart:model"
    assert [option["--task"] for option in options[2:]] == [" ".join(runs.BENCHMARKS), "genppl auto_bleu"]
    assert {option["--model"] for option in options[2:]} == {str(tmp_path / "own-1")}
    assert (options[-1]["--data"], options[-1]["--start_token"]) == (runs.HELD_OUT, "<begin>")

    called.clear()
    runs.complete_run(runs.Judged(aligns=False), tmp_path / "quickstart-1", 1, args)
    assert [Path(command[4]).name for command in called] == ["evaluate_model.py"] * 2
    assert {command[6] for command in called} == {"quickstart:model"}


def test_continuations_are_compared_prompt_by_prompt(tmp_path):
    folders = {}
    for name, losses, texts in (("own", [1.0, 2.0, 5.0], "ab"), ("quickstart", [2.0, None, 5.0], "aa")):
        folders[name] = [write_scores(tmp_path / name, [True] * 3)]
        scores = {"negative_log_likelihood": losses, "continuation_negative_log_likelihood": losses}
        Dataset.from_dict(scores).to_parquet(tmp_path / name / "evaluation" / "genppl.parquet")
        said = {"transcript": [f"{texts[0]} {texts[1]} {texts[0]} {texts[1]}"] * 3}
        Dataset.from_dict(said).to_parquet(tmp_path / name / "evaluation" / "auto_bleu.parquet")
    folders["own"] *= 2  # two seeds, and one run without alignment
    finding = compare.Finding("own", "own", "quickstart", compare.OWN_MEASURES)
    changes = {change.measure: change for change in compare.compare(finding, folders).differences}
    assert changes["log GenPPL"].by_seed == pytest.approx([-0.5, -0.5])  # the silent continuation does not count
    assert changes["auto-BLEU"].value < 0 and changes["auto-BLEU"].verdict == "holds"
    assert changes["sBLIMP"].verdict == "undecided"


def test_a_run_that_fails_ends_with_a_line(tmp_path, monkeypatch):
    failing = Mock(side_effect=runs.subprocess.CalledProcessError(1, []))
    monkeypatch.setattr(runs.subprocess, "run", failing)
    with pytest.raises(OSError, match="pretrain.py ended with status 1"):
        runs.complete_run(runs.Pretraining(), tmp_path / "base-0", 0, RunArguments())
    assert not (tmp_path / "base-0" / "done.json").exists()


def test_what_the_report_needs_is_asked_for_before_the_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(reproduce_findings, "complete_run", Mock(side_effect=AssertionError))
    monkeypatch.setattr(sys, "argv", ["reproduce_findings.py"])
    with pytest.raises(ImportError, match=r'needs matplotlib: pip install "slam-hf\[plots\]"'):
        reproduce_findings.main()


@pytest.mark.parametrize("option", ["--seeds", "--minutes"])
def test_there_must_be_something_to_run(option, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce_findings.py", option, "0"])
    with pytest.raises(ValueError, match=f"^{option} must be positive, got 0"):
        reproduce_findings.main()


def test_intervals_of_equal_items_have_no_width():
    assert compare.mean_with_interval(np.full(10, 0.5)) == (0.5, (0.5, 0.5))
