import copy
import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny_judges import save_recogniser, save_text_lm

from slam_hf import SpeechLMForCausalLM, fingerprints
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.hub.model_card import render_model_card
from slam_hf.run_record import RunRecord, save_run_records


SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "evaluate_model.py"
DDP = SCRIPT.parent / "accelerate_configs" / "ddp.yaml"


@pytest.fixture
def stories(tmp_path, recordings):
    """Sixty clips of one to four seconds."""
    folder = tmp_path / "tSC"
    folder.mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    generator = np.random.default_rng(0)
    for number in range(30):
        for side in ("correct", "incorrect"):
            start, length = generator.integers(0, 150_000), generator.integers(16_000, 64_000)
            soundfile.write(folder / f"{number}_{side}.wav", waveform[start : start + length], rate)
    return folder


def options(checkpoint: Path, data: Path, output_dir: Path, cache_dir: Path, **more: int) -> list[str]:
    values = {
        "model": checkpoint / "model",
        "task": "tstorycloze",
        "data": data,
        "codec": checkpoint / "codec",
        "output_dir": output_dir,
        "cache_dir": cache_dir,
        "num_workers": 0,
        **more,
    }
    return [str(part) for name, value in values.items() for part in (f"--{name}", value)]


def run_script(monkeypatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_script_writes_summary_and_records(checkpoint, stories, tmp_path, monkeypatch, capsys):
    (stories / "7_correct.wav").write_bytes(b"")
    run_script(
        monkeypatch, options(checkpoint, stories, tmp_path / "results", tmp_path / "cache", training_tokens=5e6)
    )
    summary = json.loads((tmp_path / "results" / "tstorycloze.json").read_text())
    records = pq.read_table(tmp_path / "results" / "tstorycloze.parquet").to_pylist()
    assert summary["results"]["num_pairs"] == 29
    assert summary["num_skipped"] == 1
    assert summary["model"]["training_tokens"] == 5e6
    assert len(records) == 30
    printed = capsys.readouterr().out
    assert "skipped: 7_correct: empty: the file has no content" in printed
    assert "30 items, 1 of them skipped." in printed
    assert f"accuracy: {100 * summary['results']['accuracy']:.1f} % [" in printed


@pytest.fixture
def units(tmp_path) -> Path:
    """Two pairs of stories as units."""
    folder = tmp_path / "units"
    rows = {f"{number}_{side}": [number, 7, 9] for number in (1, 2) for side in ("correct", "incorrect")}
    Dataset.from_dict({"id": list(rows), "units": list(rows.values())}).to_parquet(folder / "units.parquet")
    return folder


def evaluate_units(monkeypatch, model: Path, units: Path, **more) -> None:
    values = {"model": model, "task": "tstorycloze", "data": units, **more}
    run_script(monkeypatch, [str(part) for name, value in values.items() for part in (f"--{name}", value)])


def test_results_are_beside_a_local_model_and_checkpoints_of_one_name_have_their_own(
    tmp_path, tiny_model, units, monkeypatch
):
    for run in ("first", "second"):
        folder = tmp_path / run / "checkpoint-5"
        tiny_model.save_pretrained(folder)
        evaluate_units(monkeypatch, folder, units)
        summary = json.loads((folder / "evaluation" / "tstorycloze.json").read_text())
        assert summary["model"]["name"] == f"{run}/checkpoint-5"


def test_results_of_hub_models_go_by_the_whole_id():
    assert EvaluationArguments("org/slam", "sblimp", "data").output_dir == os.path.join(
        "outputs/evaluation", "org/slam"
    )


def test_an_adapter_is_scored_as_such_with_the_processor_of_its_base(tmp_path, tiny_model, units, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    torch.manual_seed(0)
    adapted = get_peft_model(SpeechLMForCausalLM.from_pretrained(tmp_path / "base"), config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    evaluate_units(monkeypatch, tmp_path / "base", units)
    evaluate_units(monkeypatch, tmp_path / "lora", units)
    base, lora = (
        json.loads((tmp_path / name / "evaluation" / "tstorycloze.json").read_text()) for name in ("base", "lora")
    )
    assert (base["model"]["name"], lora["model"]["name"]) == ("base", "lora")
    assert base["model"]["weights"] != lora["model"]["weights"]
    record = pq.read_table(tmp_path / "lora" / "evaluation" / "tstorycloze.parquet").to_pylist()[0]
    expected = adapted.get_base_model().log_likelihood(torch.tensor([[1, 3, 9, 11, 1]])).item()
    assert record["correct_score"] == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(tiny_model.log_likelihood(torch.tensor([[1, 3, 9, 11, 1]])).item(), abs=1e-3)


def test_bfloat16_and_float32_share_no_scores_and_the_card_says_which_it_was(
    tmp_path, tiny_model, units, monkeypatch, capsys
):
    tiny_model.save_pretrained(tmp_path / "model")
    results, ids = tmp_path / "model" / "evaluation", torch.tensor([[1, 3, 9, 11, 1]])
    summaries, scores = {}, {}
    for dtype in ("bfloat16", "float32"):
        evaluate_units(monkeypatch, tmp_path / "model", units, dtype=dtype)
        summaries[dtype] = json.loads((results / "tstorycloze.json").read_text())
        scores[dtype] = pq.read_table(results / "tstorycloze.parquet").to_pylist()[0]["correct_score"]
        assert summaries[dtype]["settings"]["dtype"] == dtype
        assert ("The model was in bfloat16." in capsys.readouterr().out) == (dtype == "bfloat16")
        note = "scored in bfloat16"
        assert (note in render_model_card(tmp_path / "model", "user/model").text) == (dtype == "bfloat16")
        if dtype == "bfloat16":
            with pytest.raises(SystemExit, match=r"replaced.*\n  dtype: was 'bfloat16', is now 'float32'$"):
                evaluate_units(monkeypatch, tmp_path / "model", units)
            (results / "tstorycloze.json").unlink()
    assert summaries["bfloat16"]["model"] == summaries["float32"]["model"]
    assert scores["float32"] == pytest.approx(tiny_model.log_likelihood(ids).item(), abs=1e-6)
    assert scores["bfloat16"] == pytest.approx(copy.deepcopy(tiny_model).bfloat16().log_likelihood(ids).item())
    assert scores["bfloat16"] != pytest.approx(scores["float32"], abs=1e-4)


def test_training_tokens_are_those_of_the_recorded_runs(tmp_path, tiny_model, units, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")

    def training_tokens(*records: RunRecord, **more) -> float | None:
        save_run_records(list(records), tmp_path / "model")
        evaluate_units(monkeypatch, tmp_path / "model", units, **more)
        return json.loads((tmp_path / "model" / "evaluation" / "tstorycloze.json").read_text())["model"][
            "training_tokens"
        ]

    pretraining, alignment = RunRecord("pretraining", num_tokens=1000), RunRecord("preference alignment", num_tokens=5)
    assert training_tokens(pretraining, alignment) == 1005
    assert training_tokens(pretraining, RunRecord("preference alignment")) is None
    assert training_tokens(pretraining, training_tokens=7) == 7


HOLD = """
import sys
from slam_hf.folder_lock import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_evaluation_in_one_folder_meets_a_clear_line(tmp_path, tiny_model, units, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "model" / "evaluation")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(SystemExit, match=r"Error: .*Another job is writing to '.*model/evaluation'"):
            evaluate_units(monkeypatch, tmp_path / "model", units)
        other.kill()
    evaluate_units(monkeypatch, tmp_path / "model", units)
    assert (tmp_path / "model" / "evaluation" / "tstorycloze.json").is_file()


def test_a_model_that_is_not_a_speech_lm_is_refused(tmp_path, monkeypatch):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(SystemExit, match="is a GPT2LMHeadModel: expected a speech language model"):
        run_script(monkeypatch, ["--model", str(tmp_path / "gpt2"), "--task", "sblimp", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match="nowhere' is neither a folder nor the id of a model on the Hub"):
        run_script(monkeypatch, ["--model", str(tmp_path / "nowhere"), "--task", "sblimp", "--data", str(tmp_path)])


@pytest.mark.parametrize("base", ["", "gpt2"])
def test_an_adapter_without_its_base_says_so(tmp_path, monkeypatch, base):
    config = LoraConfig(base_model_name_or_path=str(tmp_path / base) if base else "", target_modules=["c_attn"])
    config.save_pretrained(tmp_path / "lora")
    with pytest.raises(SystemExit, match="lora' cannot be loaded: .* It is an adapter, whose `base_model_name_or"):
        run_script(monkeypatch, ["--model", str(tmp_path / "lora"), "--task", "sblimp", "--data", str(tmp_path)])


def launch(arguments: list[str], num_processes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", DDP, "--main_process_port", 0]
    command += ["--num_processes", num_processes, SCRIPT, *arguments]
    return subprocess.Popen(list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"})


def kill_once_there_is(pattern: str, folder: Path, launcher: subprocess.Popen) -> None:
    """Kill the launcher and its processes as soon as a file has been written."""
    deadline = time.monotonic() + 120
    while not any(folder.rglob(pattern)):
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
        process.kill()
    launcher.wait()


def outcomes(output_dir: Path) -> tuple[list[str], np.ndarray, list[bool]]:
    records = pq.read_table(output_dir / "tstorycloze.parquet").to_pylist()
    scores = np.array([[record["correct_score"], record["incorrect_score"]] for record in records])
    return [record["correct"] for record in records], scores, (scores[:, 0] > scores[:, 1]).tolist()


@pytest.mark.slow
@pytest.mark.attack
def test_processes_batches_and_kills_change_nothing(checkpoint, stories, tmp_path, record_property):
    alone = options(checkpoint, stories, tmp_path / "alone", tmp_path / "cache1", batch_tokens=1)
    assert launch(alone, num_processes=1).wait(timeout=300) == 0

    both = options(checkpoint, stories, tmp_path / "both", tmp_path / "cache2", batch_tokens=300)
    kill_once_there_is("*.parquet", tmp_path / "cache2", launch(both, num_processes=2))
    kill_once_there_is("*.jsonl", tmp_path / "both", launch(both, num_processes=2))
    assert not (tmp_path / "both" / "tstorycloze.json").exists()
    assert launch(both, num_processes=2).wait(timeout=300) == 0

    names, scores, right = outcomes(tmp_path / "alone")
    other_names, other_scores, other_right = outcomes(tmp_path / "both")
    assert (names, right) == (other_names, other_right)
    np.testing.assert_allclose(scores, other_scores, atol=1e-5)
    summaries = [json.loads((tmp_path / run / "tstorycloze.json").read_text()) for run in ("alone", "both")]
    for key in ("results", "num_items", "num_skipped", "model", "data", "codec", "settings"):
        assert summaries[0][key] == summaries[1][key]
    record_property("attack", "evaluation: 2 runs of two processes killed, the same scores")


def test_several_models_and_tasks_take_one_command(interleaved_checkpoint, tmp_path, monkeypatch):
    models = [tmp_path / "first", tmp_path / "second"]
    model = SpeechLMForCausalLM.from_pretrained(interleaved_checkpoint)
    for folder in models:
        model.save_pretrained(folder)
        model.lm.model.embed_tokens.weight.data[1:] += 0.01
    rows = {f"1_{part}": ([7, 9, number], f"The {part} one.") for number, part in enumerate(("mutual", "correct"))}
    rows["1_incorrect"] = ([3], "Another one.")
    parts = {
        "id": list(rows),
        "units": [units for units, _ in rows.values()],
        "text": [text for _, text in rows.values()],
    }
    Dataset.from_dict(parts).to_parquet(tmp_path / "parts" / "units.parquet")
    tasks = ["tstorycloze", "tstorycloze_s2t", "tstorycloze_t2t"]
    command = ["--model", *map(str, models), "--task", *tasks, "--data", str(tmp_path / "parts")]
    text_tokenizer = str(interleaved_checkpoint / "text-tokenizer")
    described = []
    monkeypatch.setattr(
        fingerprints, "hash_model", lambda model, hash=fingerprints.hash_model: described.append(model) or hash(model)
    )
    command += ["--training_tokens", "1e6", "--plot", str(tmp_path / "curve.png")]
    run_script(monkeypatch, [*command, "--text_tokenizer", text_tokenizer, "--dtype", "bfloat16"])
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    summaries = [json.loads((model / "evaluation" / f"{task}.json").read_text()) for model in models for task in tasks]
    assert [summary["task"] for summary in summaries] == 2 * tasks
    assert len(described) == 2 == len({summary["model"]["weights"] for summary in summaries})
    assert {summary["settings"]["dtype"] for summary in summaries} == {"bfloat16"}
    assert all(0 <= summary["results"]["pmi"]["accuracy"] <= 1 for summary in summaries)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"data": ["a", "b", "c"]}, "`data` must be one folder, or one for each of 2 tasks"),
        ({"task": ["sblimp", "sblimp"]}, "`task` names one twice: sblimp, sblimp"),
        ({"model": ["a", "b"], "output_dir": "c"}, "`output_dir` is for one model"),
    ],
)
def test_a_command_of_several_runs_is_checked_first(monkeypatch, change, problem):
    values = {"model": ["m"], "task": ["sblimp", "tstorycloze"], "data": ["a"]} | change
    arguments = []
    for name, value in values.items():
        arguments += [f"--{name}", *([value] if isinstance(value, str) else value)]
    with pytest.raises(SystemExit, match=problem):
        run_script(monkeypatch, arguments)


def test_a_task_that_a_model_cannot_do_ends_the_command_before_the_work(tmp_path, tiny_model, units, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")
    parts = {"id": ["1_mutual", "1_correct", "1_incorrect"], "units": [[1]] * 3, "text": ["One."] * 3}
    Dataset.from_dict(parts).to_parquet(tmp_path / "parts" / "units.parquet")
    command = ["--model", str(tmp_path / "model"), "--task", "tstorycloze", "sstorycloze_t2t", "--data"]
    with pytest.raises(SystemExit, match="sstorycloze_t2t has text, and the model only knows units"):
        run_script(monkeypatch, [*command, str(units), str(tmp_path / "parts")])
    assert not (tmp_path / "model" / "evaluation").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "llm_judge asks an instruct LM for ratings: add `judge rating`"),
        (["--judge_url", "localhost:8000", "--judge_model", "m"], "'localhost:8000' is not the URL of an endpoint"),
        (["--judge", "rating", "--judge_model", "nowhere/at/all"], "There is no folder 'nowhere/at/all'"),
        (["--judge", "rating", "--judge_model", "{text_lm}"], "text_lm' has no chat template"),
        (["--judge", "rating", "--judge_model", "m", "--judge_prompt", "{units}/no.txt"], r"No such file.*no\.txt"),
        (["--asr_model", "nowhere/at/all"], "There is no folder 'nowhere/at/all'"),
        (
            ["--codec", "nowhere/at/all", "--judge_url", "http://localhost:1/v1", "--judge_model", "m"],
            "nowhere/at/all",
        ),
    ],
)
def test_what_a_later_task_lacks_is_found_before_the_first(tmp_path, checkpoint, units, monkeypatch, options, problem):
    save_recogniser(tmp_path / "recogniser")
    save_text_lm(tmp_path / "text_lm")
    rows = {"id": ["a"], "units": [[1, 2, 3]], "durations": [[5, 5, 5]]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "corpus" / "train.parquet")
    command = ["--model", str(tmp_path / "model"), "--task", "tstorycloze", "llm_judge", "--data", str(units)]
    command += [str(tmp_path / "corpus"), "--asr_model", str(tmp_path / "recogniser")]
    options = [option.format(text_lm=tmp_path / "text_lm", units=units) for option in options]
    with pytest.raises(SystemExit, match=problem):
        run_script(monkeypatch, [*command, *options])
    assert not (tmp_path / "model" / "evaluation").exists()


def test_results_of_other_data_and_of_another_model_are_not_replaced(tmp_path, tiny_model, units, monkeypatch):
    for name in ("first", "second"):
        tiny_model.save_pretrained(tmp_path / name)
        tiny_model = copy.deepcopy(tiny_model)
        tiny_model.lm.model.norm.weight.data += 1
    evaluate_units(monkeypatch, tmp_path / "first", units, output_dir=tmp_path / "results")
    shutil.copytree(units, tmp_path / "others")
    with pytest.raises(SystemExit, match=r"replaced.*\n  data: was 'units', is now 'others'$"):
        evaluate_units(monkeypatch, tmp_path / "first", tmp_path / "others", output_dir=tmp_path / "results")
    with pytest.raises(SystemExit, match=r"replaced.*\n  model: was 'first', is now 'second'$"):
        evaluate_units(monkeypatch, tmp_path / "second", units, output_dir=tmp_path / "results")
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "second").rename(tmp_path / "first")  # trained again
    evaluate_units(monkeypatch, tmp_path / "first", units, output_dir=tmp_path / "results")
