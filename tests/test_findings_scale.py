import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reproduce_findings
import yaml
from findings import runs, scale, scaling_law
from findings.scaling_law import ScalingLaw, effective_tokens, fit, interval, resample

from slam_hf.run_record import CorpusRecord, Reference, RunRecord, save_run_records


LAW = ScalingLaw(E=0.9, A=40.0, alpha=0.35, B=120.0, beta=0.4)
TOKENS = (2e5, 4e5, 8e5, 1.6e6, 3.2e6)
TOKENS_PER_PASS = 1000 + 2 * 10


def points(law: ScalingLaw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of a grid whose largest models see few tokens."""
    grid = [(size, tokens) for size in (1e5, 4e5, 2e6, 6e6) for tokens in (2e5, 8e5, 3.2e6) if size * tokens < 2e12]
    parameters, tokens = np.array(grid).T
    return parameters, tokens, law.loss(parameters, tokens)


@pytest.mark.parametrize(
    "law",
    [
        LAW,
        ScalingLaw(E=1.73, A=13.9, alpha=0.25, B=39.8, beta=0.24),
        ScalingLaw(E=0.3, A=900.0, alpha=0.6, B=20.0, beta=0.2),
        ScalingLaw(E=2.0, A=5.0, alpha=0.15, B=2e4, beta=0.8),
    ],
)
def test_the_fit_recovers_a_law_from_its_losses(law):
    fitted = fit(*points(law))
    assert vars(fitted) == pytest.approx(vars(law), rel=1e-3)
    assert fitted.size_exponent == pytest.approx(law.beta / (law.alpha + law.beta), abs=1e-3)


def test_a_run_that_went_wrong_counts_less_than_with_least_squares(monkeypatch):
    parameters, tokens, losses = points(LAW)
    losses[3] *= 1.5
    robust = fit(parameters, tokens, losses)
    monkeypatch.setattr(scaling_law, "HUBER_DELTA", 10.0)
    plain = fit(parameters, tokens, losses)
    assert abs(robust.beta - LAW.beta) < 0.5 * abs(plain.beta - LAW.beta)


@pytest.mark.parametrize("flops", [1e12, 8.5e13, 1e20])
def test_the_best_size_is_that_of_the_closed_form_and_of_the_lowest_loss(flops):
    parameters, tokens = LAW.optimum(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    # Where the loss does not change with the size, at the same compute.
    assert LAW.alpha * LAW.A / parameters**LAW.alpha == pytest.approx(LAW.beta * LAW.B / tokens**LAW.beta)
    ratio = (LAW.alpha * LAW.A / (LAW.beta * LAW.B)) ** (1 / 0.75)
    assert parameters == pytest.approx(ratio * (flops / 6) ** (0.4 / 0.75))
    others = LAW.loss(parameters * np.array([0.9, 1.1]), tokens / np.array([0.9, 1.1]))
    assert (others > LAW.loss(parameters, tokens)).all()


def test_one_corpus_is_best_used_by_a_larger_model_on_fewer_tokens():
    flops, tokens_per_pass = 1e15, 2e6
    parameters, tokens = LAW.optimum_of_corpus(flops, tokens_per_pass)
    assert 6 * parameters * tokens == pytest.approx(flops)
    assert parameters > 1.1 * LAW.optimum(flops)[0]

    def loss(size: float) -> float:
        return float(LAW.loss(size, effective_tokens(flops / 6 / size, tokens_per_pass)))

    assert loss(parameters) < min(loss(0.95 * parameters), loss(1.05 * parameters))
    # A corpus that is large enough is not repeated.
    assert LAW.optimum_of_corpus(flops, 1e12) == pytest.approx(LAW.optimum(flops), rel=1e-4)


@pytest.mark.parametrize("times", [2, 1 / 2])
def test_a_law_of_noise_has_an_optimum(times):
    """Where the loss depends on nothing, the fit may end at exponents for which the best size is no number."""
    law = ScalingLaw(E=3.0, A=times * 1e-9, alpha=0.001, B=1e-9, beta=0.001)
    wide = ScalingLaw(E=3.0, A=5.0 * times**9, alpha=0.001, B=5.0, beta=0.001)
    expected = (1e12, 1.0) if times > 1 else (1.0, 1e12)
    for one in (law, wide):
        assert one.optimum(6e12) == pytest.approx(expected, rel=1e-9)
        assert 1 <= one.optimum_of_corpus(6e12, 1e6)[0] <= 1.001e12


def test_a_run_that_diverged_is_named(tmp_path):
    record = RunRecord("pretraining", corpora=[CorpusRecord(Reference("corpus"), num_rows=10, num_units=1000)])
    record.validation, record.validation_steps = {"validation loss": [6.2, float("nan")]}, [0, 9]
    (tmp_path / "64-400-0").mkdir()
    save_run_records([record], tmp_path / "64-400-0")
    with pytest.raises(ValueError, match=r"64-400-0' has diverged, with a loss of nan: leave out its width \(64\)"):
        scale._read_run(runs.Sized(64, 400), tmp_path / "64-400-0")


def test_tokens_of_further_passes_are_worth_less():
    tokens = effective_tokens([50, 100, 200, 400, 1e9], 100)
    expected = [50, 100, 100 + 2500 * (1 - np.exp(-1 / 25)), 100 + 2500 * (1 - np.exp(-3 / 25)), 2600]
    assert tokens == pytest.approx(expected)


def test_laws_of_resampled_runs_are_the_same_each_time_and_around_the_law():
    parameters, tokens = np.array([(size, tokens) for size in (1e5, 4e5, 2e6, 6e6) for tokens in TOKENS]).T
    losses = LAW.loss(parameters, tokens)
    noisy = losses * np.exp(0.003 * np.random.default_rng(1).standard_normal(len(losses)))
    law = fit(parameters, tokens, noisy)
    laws = resample(law, parameters, tokens, noisy, number=40)
    assert laws == resample(law, parameters, tokens, noisy, number=40)
    for name in ("E", "alpha", "beta", "size_exponent"):
        low, high = interval([getattr(one, name) for one in laws])
        assert low < getattr(law, name) < high and low < getattr(LAW, name) < high
    exact = resample(LAW, parameters, tokens, losses, number=5)
    assert [one.alpha for one in exact] == pytest.approx([LAW.alpha] * 5, rel=1e-3)


@pytest.mark.parametrize(
    ("parameters", "tokens", "got"),
    [
        ([1, 2, 3, 1, 2], [1, 1, 1, 2, 3], r"5 run\(s\) of 3 size\(s\) and 3 number"),
        ([1, 1, 1, 2, 2, 2], [1, 2, 3] * 2, r"6 run\(s\) of 2 size\(s\) and 3 number"),
        ([1, 2, 3] * 2, [1, 1, 1, 2, 2, 2], r"6 run\(s\) of 3 size\(s\) and 2 number"),
    ],
)
def test_too_few_runs_have_no_law(parameters, tokens, got):
    with pytest.raises(ValueError, match=f"A scaling law needs 6 runs or more, .* got {got}"):
        fit(parameters, tokens, np.ones(len(tokens)))


def test_the_grid_leaves_out_what_costs_too_much_and_refuses_what_is_not_possible():
    sized = scale.grid([64, 128, 96], [100, 200, 400], 6 * 467_072 * 250)
    assert [(run.width, run.tokens) for run in sized] == [
        *[(64, 100), (64, 200), (96, 100), (128, 100), (64, 400), (96, 200), (128, 200), (96, 400)]
    ]
    with pytest.raises(ValueError, match=r"A scaling law needs 8 runs .* got 8 run\(s\) of 4 size\(s\) and 2 number"):
        scale.grid([64, 128, 96, 160], [100, 200], 1e15)
    with pytest.raises(ValueError, match=r"A scaling law needs 8 runs .* got 7 run\(s\) of 3 size\(s\) and 3 number"):
        scale.grid([64, 128, 96], [100, 200, 400], 6 * 467_072 * 200)
    with pytest.raises(ValueError, match="A width must be a multiple of 32, got 100"):
        scale.grid([64, 100, 128], [100, 200, 400], 1e15)


def test_sizes_have_the_shape_of_the_quickstart_and_a_learning_rate_for_their_width():
    assert runs.Sized(256, 1).base_config == runs.read_recipe("quickstart.yaml")["base_config"]
    assert runs.Sized(256, 1).num_parameters == runs.count_parameters("quickstart.yaml")
    large = runs.Sized(1024, 1)
    assert (large.num_parameters, large.num_embedding_parameters) == (103_316_480, 502 * 1024)
    assert (large.base_config["num_hidden_layers"], large.base_config["num_attention_heads"]) == (8, 32)
    arguments = runs.Sized(64, 5000).arguments(seed=3)
    assert (arguments["seed"], arguments["max_steps"], arguments["max_train_tokens"]) == (3, -1, 5000)
    assert arguments["learning_rate"] == pytest.approx(8e-3)
    assert arguments["lr_scheduler_kwargs"] == {"min_lr": pytest.approx(4e-4)}
    assert [corpus.keys() for corpus in arguments["datasets"]] == [{"path", "name"}] * 2


@pytest.fixture
def trainings(monkeypatch):
    """Trainings whose losses are those of the law, as a list of their folders' names. Those of a width that is in
    `failing` fail."""
    made = SimpleNamespace(names=[], failing=set())

    def train(command, check):
        recipe = yaml.safe_load(Path(command[-1]).read_text())
        folder, width = Path(recipe["output_dir"]), recipe["base_config"]["hidden_size"]
        if width in made.failing:
            raise runs.subprocess.CalledProcessError(1, command)
        made.names.append(folder.name)
        tokens = recipe["max_train_tokens"] + 7
        worth = effective_tokens(tokens, TOKENS_PER_PASS)
        loss = float(LAW.loss(runs.Sized(width, 1).num_parameters, worth))
        corpora = [CorpusRecord(Reference("corpus"), num_rows=10, num_units=1000)]
        record = RunRecord("pretraining", corpora=corpora, num_tokens=tokens)
        record.validation, record.validation_steps = {"validation loss": [6.2, loss]}, [0, 9]
        save_run_records([record], folder)

    monkeypatch.setattr(runs.subprocess, "run", train)
    monkeypatch.setattr(scale, "NUM_RESAMPLES", 10)
    return made


def reproduce(monkeypatch, folder: Path, *options: str) -> None:
    arguments = ["--findings", "scale", "--output_dir", str(folder), "--widths", "64", "96", "128", *options]
    monkeypatch.setattr(sys, "argv", ["reproduce_findings.py", *arguments])
    reproduce_findings.main()


def test_the_report_says_how_large_the_next_model_should_be(trainings, tmp_path, monkeypatch, capsys):
    reproduce(monkeypatch, tmp_path, "--tokens", "400", "2000", "8000", "--max_run_flops", "1e15")
    assert len(trainings.names) == 9
    report = json.loads((tmp_path / "scale.json").read_text())
    assert {name: report["law"][name] for name in vars(LAW)} == pytest.approx(vars(LAW), rel=1e-3)
    assert report["law"]["a"] == pytest.approx(0.4 / 0.75, rel=1e-3)
    largest = report["runs"][-1]
    assert (largest["parameters"], largest["embedding"], largest["tokens"]) == (467_072, 64_256, 8007)
    assert largest["flops"] == 6 * 467_072 * 8007
    assert largest["predicted_loss"] == pytest.approx(largest["loss"], rel=1e-6)
    assert report["held_out"]["predicted_loss"] == pytest.approx(report["held_out"]["loss"], rel=1e-4)
    following = report["next"]
    assert following["flops"] == pytest.approx(10 * largest["flops"])
    assert [following["parameters"], following["tokens"]] == pytest.approx(LAW.optimum(following["flops"]), rel=1e-2)
    assert following["extrapolation"]["flops"] == pytest.approx(10)
    assert following["passes"] == pytest.approx(following["tokens"] / TOKENS_PER_PASS)
    corpus = report["next_with_this_corpus"]
    best = LAW.optimum_of_corpus(following["flops"], TOKENS_PER_PASS)
    assert [corpus["parameters"], corpus["tokens"]] == pytest.approx(best, rel=1e-2)
    assert corpus["loss"] > following["loss"]
    assert report["cuervo_and_marxer"]["a"] == pytest.approx(0.24 / 0.49)
    printed = capsys.readouterr().out
    assert "| 467,072 | 64,256 | 8,007 | 7.85 | 2.2e+10 |" in printed
    assert "| Cuervo and Marxer (arXiv 2404.00685) | 1.73 | 0.25 | 0.24 | 0.49 | 0.51 |" in printed
    assert "**Next: with 2.2e+11 FLOPs, train " in printed and "too many for it: collect more speech" in printed
    assert "E, the loss of an ideal model, lies between 0.90 and 0.90." in printed
    assert printed == (tmp_path / "scale.md").read_text() + "\n"
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_not_repeated(trainings, tmp_path, monkeypatch):
    options = ("--tokens", "400", "2000", "8000", "--max_run_flops", "1e15", "--next_flops", "3e12", "--jobs", "2")
    trainings.failing.add(96)
    with pytest.raises(ChildProcessError, match=r"pretrain.py ended with status 1"):
        reproduce(monkeypatch, tmp_path, *options)
    before, trainings.names = set(trainings.names), []
    trainings.failing.clear()
    reproduce(monkeypatch, tmp_path, *options)
    expected = {f"{width}-{tokens}-0" for width in (64, 96, 128) for tokens in (400, 2000, 8000)}
    assert set(trainings.names) == expected - before and len(trainings.names) == len(expected - before)
    assert {f"96-{tokens}-0" for tokens in (400, 2000, 8000)} <= set(trainings.names)
    assert json.loads((tmp_path / "scale.json").read_text())["next"]["flops"] == 3e12


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads have no cores of their own here")
def test_jobs_have_cores_of_their_own(tmp_path, monkeypatch):
    taken = {}
    monkeypatch.setattr(scale.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    monkeypatch.setattr(scale.os, "sched_setaffinity", lambda _, cores: taken.setdefault(len(taken), cores))
    monkeypatch.setattr(scale, "complete_run", lambda run, folder, seed: None)
    monkeypatch.setattr(scale, "_read_run", lambda run, folder: run)
    sized = [runs.Sized(64, tokens) for tokens in range(1, 20)]
    assert scale.measure(tmp_path, sized, seeds=1, jobs=2) == sized[::-1]
    assert [taken[number] for number in sorted(taken)] == [{0, 2, 4}, {1, 3}][: len(taken)]


def test_what_the_runs_cannot_say_is_said():
    assert scale._about_floor(9, 0.2, 1.1).startswith("9 runs do not pin E, the loss of an ideal model (0.20 to 1.10)")
    recommended = {"flops": 1e13, "parameters": 1e6, "tokens": 2e6, "loss": 1.5, "passes": 2.0}
    recommended["intervals"] = {"parameters": (5e5, 3e6), "tokens": (1e6, 4e6), "loss": (1.4, 1.6)}
    recommended["extrapolation"] = {"flops": 10.0, "parameters": 2.0, "tokens": 0.5}
    made = [scale.Run(size, 1, tokens, 10**6, 2.0) for size, tokens in ((900_000, 10**5), (10**7, 10**6))]
    text = (
        "**Next: with 1.0e+13 FLOPs, train 1 M parameters (95 % interval 500 k to 3 M) on 2 M new tokens (1 M to "
        "4 M), for a loss of 1.50 (1.40 to 1.60).** This extrapolates: it is 10 × the compute of the largest run, and "
        "the runs have 900 k to 10 M parameters and 100 k to 1 M tokens."
    )
    assert scale._sentence(made, recommended) == f"{text} The tokens are 2.0 passes over this corpus."
    assert scale._sentence(made[1:], recommended | {"passes": 4.5}) == (
        f"{text.replace('900 k', '10 M').replace('100 k to', '1 M to')} No run has a size like this: make some with "
        "other widths before you trust it. The tokens are 4.5 passes over this corpus, too many for it: collect more "
        "speech."
    )


def test_a_law_of_few_runs_is_not_checked_on_the_last_one(monkeypatch):
    monkeypatch.setattr(scale, "NUM_RESAMPLES", 3)
    sizes = [(1000, 200), (1000, 400), (1000, 800), (3000, 200), (3000, 400), (3000, 800), (1000, 1600), (9000, 400)]
    few = [scale.Run(size, 100, tokens, 10_000, float(LAW.loss(size, tokens))) for size, tokens in sizes]
    scaling = scale.analyse(few)
    assert scaling.held_out is None and scale._about_held_out(scaling) == ""
    assert scaling.law.alpha == pytest.approx(LAW.alpha, rel=1e-3)
    last = scale.Run(9000, 100, 800, 10_000, float(LAW.loss(9000, 800)))
    assert scale._about_held_out(scale.analyse([*few, last])).endswith(f"of the last one, which has {last.loss:.3f}. ")
    better = replace(last, loss=last.loss / 1.05)
    assert scale._about_held_out(scale.analyse([*few, better])).endswith(
        f"which has {better.loss:.3f}: with an error of +5.0 %, it cannot be trusted beyond the runs. "
    )


def test_the_scaling_law_is_reproduced_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce_findings.py", "--findings", "scale", "packing"])
    message = r"^The finding 'scale' compares sizes, and not two ways of training: reproduce it alone\.$"
    with pytest.raises(ValueError, match=message):
        reproduce_findings.main()
    with pytest.raises(ValueError, match="^--tokens must be positive, got 0"):
        reproduce(monkeypatch, tmp_path, "--tokens", "400", "0", "800")
