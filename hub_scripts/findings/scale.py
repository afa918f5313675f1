"""Measures how the loss falls with parameters and tokens, and says what to train with more compute."""

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.hf_argparser import HfArg

from slam_hf.run_record import read_run_records
from slam_hf.training.throughput import flops_per_token

from .runs import Sized, check_positive, complete_run
from .scaling_law import (
    CUERVO_AND_MARXER,
    ScalingLaw,
    check_runs,
    constants,
    effective_tokens,
    fit,
    interval,
    resample,
)


if TYPE_CHECKING:
    from matplotlib.figure import Figure


NUM_RESAMPLES = 500

MANY_PASSES = 4
"""Passes over a corpus that are worth almost as much as new data (arXiv 2305.16264)."""

MAX_HELD_OUT_ERROR = 0.03
"""Error of the predicted loss of the largest run above which a law is not trusted."""

PINNED = 1.5
"""The loss of an ideal model is known if the ends of its interval differ by less than this factor."""


@dataclass
class ScaleArguments:
    """Options of the scaling law. The default grid takes about half an hour of a core: small models see many tokens,
    and large ones few."""

    _argument_group_name = "finding `scale`"

    widths: list[int] = field(
        default_factory=lambda: [32, 64, 128, 256],
        metadata={"help": "Hidden sizes of the models. Default: 32 64 128 256."},
    )
    tokens: list[int] = field(
        default_factory=lambda: [400_000, 800_000, 1_600_000, 3_200_000],
        metadata={"help": "Training tokens of the runs. Default: 0.4, 0.8, 1.6 and 3.2 million."},
    )
    max_run_flops: float = HfArg(default=9e12, help="Runs with more training compute are left out. Default: 9e12.")
    next_flops: float | None = HfArg(
        default=None, help="Training compute of the next model. Default: 10 times that of the largest run."
    )
    jobs: int = HfArg(default=1, help="Runs at the same time.")

    def __post_init__(self):
        check_positive(self, "widths", "tokens", "max_run_flops", "next_flops", "jobs")


@dataclass(frozen=True)
class Run:
    r"""
    A run of the grid.

    Args:
        parameters, embedding (`int`):
            Number of parameters, and how many of them are the embedding's, which is the output layer too.
        tokens, tokens_per_pass (`int`):
            Number of training tokens without padding, and of those of the corpus.
        loss (`float`):
            Loss on the validation split after training, in nats per token.
    """

    parameters: int
    embedding: int
    tokens: int
    tokens_per_pass: int
    loss: float

    @property
    def flops(self) -> float:
        """`float`: Training compute."""
        return float(flops_per_token(self.parameters) * self.tokens)


@dataclass(frozen=True)
class Scaling:
    r"""
    What the runs say.

    Args:
        runs (`list[Run]`):
            The runs.
        law (`ScalingLaw`), laws (`list[ScalingLaw]`):
            The law of all runs, and those of resampled runs.
        without_embedding (`ScalingLaw`):
            The law with the parameters but for the embedding.
        held_out (`tuple[float, float]`, *optional*):
            The loss of the run of the largest compute, and what the law of the other runs says of it. `None` if the
            others are too few.
    """

    runs: list[Run]
    law: ScalingLaw
    laws: list[ScalingLaw]
    without_embedding: ScalingLaw
    held_out: tuple[float, float] | None


def grid(widths: Sequence[int], tokens: Sequence[int], max_run_flops: float) -> list[Sized]:
    """The runs of at most `max_run_flops`, the cheapest first. A `ValueError` says which widths are not possible, or
    that the runs are too few."""
    for width in widths:
        if width < 32 or width % 32:
            raise ValueError(f"A width must be a multiple of 32, got {width}.")
    runs = [Sized(width, number) for width in sorted(set(widths)) for number in sorted(set(tokens))]
    flops = {run: flops_per_token(run.num_parameters) * run.tokens for run in runs}
    affordable = sorted((run for run in runs if flops[run] <= max_run_flops), key=flops.__getitem__)
    check_runs([run.width for run in affordable], [run.tokens for run in affordable])
    return affordable


def measure(output_dir: Path, sized: Sequence[Sized], seeds: int, jobs: int) -> list[Run]:
    """Make the runs that were not made before, `jobs` at a time, the last ones first, and read them. Each job has
    cores of its own: threads of several trainings that share cores wait for each other most of the time."""
    folders = {
        output_dir / f"{run.width}-{run.tokens}-{seed}": (run, seed) for run in sized[::-1] for seed in range(seeds)
    }
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # several GPUs would make the batches larger
    shares = SimpleQueue()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        for job in range(jobs):
            shares.put(set(cores[job::jobs] or cores))
    with ThreadPoolExecutor(jobs, initializer=_take_cores, initargs=(shares,)) as pool:
        list(pool.map(lambda folder: complete_run(folders[folder][0], folder, folders[folder][1]), folders))
    return [_read_run(run, folder) for folder, (run, _) in folders.items()]


def _take_cores(shares: "SimpleQueue[set[int]]") -> None:
    """Run this thread, and the processes that it starts, on some of the cores."""
    if not shares.empty():
        os.sched_setaffinity(0, shares.get())


def _read_run(run: Sized, folder: Path) -> Run:
    record = read_run_records(folder)[-1]
    # `<S>` stands in front of each document and behind it.
    tokens_per_pass = sum(corpus.num_units + 2 * corpus.num_rows for corpus in record.corpora)
    ((_, loss),) = record.validation.values()
    if not math.isfinite(loss):
        raise ValueError(
            f"The run in '{folder}' has diverged, with a loss of {loss}: leave out its width ({run.width}) or its "
            f"tokens ({run.tokens})."
        )
    return Run(run.num_parameters, run.num_embedding_parameters, record.num_tokens, tokens_per_pass, loss)


def analyse(runs: Sequence[Run]) -> Scaling:
    """Fit the laws of the runs. Tokens of several passes count as those of one that they are worth."""
    runs = sorted(runs, key=lambda run: run.flops)
    parameters, losses = (np.array([getattr(run, name) for run in runs]) for name in ("parameters", "loss"))
    tokens = effective_tokens([run.tokens for run in runs], [run.tokens_per_pass for run in runs])
    law = fit(parameters, tokens, losses)
    try:
        blind = fit(parameters[:-1], tokens[:-1], losses[:-1])
        held_out = float(losses[-1]), float(blind.loss(parameters[-1], tokens[-1]))
    except ValueError:
        held_out = None
    return Scaling(
        runs,
        law,
        resample(law, parameters, tokens, losses, NUM_RESAMPLES),
        fit(parameters - [run.embedding for run in runs], tokens, losses),
        held_out,
    )


def predicted(law: ScalingLaw, run: Run) -> float:
    """The loss of a run by a law."""
    return float(law.loss(run.parameters, effective_tokens(run.tokens, run.tokens_per_pass)))


def recommend(scaling: Scaling, flops: float, one_corpus: bool = False) -> dict[str, Any]:
    """The best use of a training compute with new tokens, or with those of the runs' corpus alone: with intervals of
    the resampled laws, and how far it is from the runs."""
    runs, tokens_per_pass = scaling.runs, scaling.runs[0].tokens_per_pass

    def best(law: ScalingLaw) -> tuple[float, float, float]:
        if one_corpus:
            parameters, tokens = law.optimum_of_corpus(flops, tokens_per_pass)
            return parameters, tokens, float(law.loss(parameters, effective_tokens(tokens, tokens_per_pass)))
        parameters, tokens = law.optimum(flops)
        return parameters, tokens, float(law.loss(parameters, tokens))

    parameters, tokens, loss = best(scaling.law)
    intervals = [interval(values) for values in zip(*map(best, scaling.laws), strict=True)]
    return {
        "flops": flops,
        "parameters": parameters,
        "tokens": tokens,
        "loss": loss,
        "intervals": dict(zip(("parameters", "tokens", "loss"), intervals, strict=True)),
        "passes": tokens / tokens_per_pass,
        "extrapolation": {
            "flops": flops / max(run.flops for run in runs),
            "parameters": parameters / max(run.parameters for run in runs),
            "tokens": tokens / max(run.tokens for run in runs),
        },
    }


def save_scaling(output_dir: Path, scaling: Scaling, next_flops: float) -> None:
    """Write `scale.md`, `scale.json` and `scale.png`."""
    recommended, repeated = recommend(scaling, next_flops), recommend(scaling, next_flops, one_corpus=True)
    laws = list(map(constants, scaling.laws))
    content = {
        "runs": [
            asdict(run) | {"flops": run.flops, "predicted_loss": predicted(scaling.law, run)} for run in scaling.runs
        ],
        "law": constants(scaling.law),
        "intervals": {name: interval([law[name] for law in laws]) for name in laws[0]},
        "law_without_embedding": constants(scaling.without_embedding),
        "cuervo_and_marxer": constants(CUERVO_AND_MARXER),
        "held_out": scaling.held_out and dict(zip(("loss", "predicted_loss"), scaling.held_out, strict=True)),
        "next": recommended,
        "next_with_this_corpus": repeated,
    }
    (output_dir / "scale.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    (output_dir / "scale.md").write_text(_markdown(scaling, content["intervals"], recommended, repeated), "utf-8")
    _picture(scaling, recommended).savefig(output_dir / "scale.png", dpi=120)


def _markdown(
    scaling: Scaling,
    intervals: dict[str, tuple[float, float]],
    recommended: dict[str, Any],
    repeated: dict[str, Any],
) -> str:
    lines = ["| parameters | of them embedding | tokens | passes | FLOPs | loss | law | error |", "|---|" + "---|" * 7]
    errors = []
    for run in scaling.runs:
        errors.append(100 * (predicted(scaling.law, run) / run.loss - 1))
        lines.append(
            f"| {run.parameters:,} | {run.embedding:,} | {run.tokens:,} | {run.tokens / run.tokens_per_pass:.2f} "
            f"| {run.flops:.1e} | {run.loss:.3f} | {predicted(scaling.law, run):.3f} | {errors[-1]:+.1f} % |"
        )
    names = {"E": ".2f", "alpha": ".2f", "beta": ".2f", "a": ".2f"}
    lines += ["", "| law | E | α | β | a: parameters ∝ FLOPs^a | b: tokens ∝ FLOPs^b |", "|---|" + "---|" * 5]
    cells = [
        f"{constants(scaling.law)[name]:{form}} [{intervals[name][0]:{form}}, {intervals[name][1]:{form}}]"
        for name, form in names.items()
    ]
    low, high = intervals["a"]
    cells.append(f"{1 - scaling.law.size_exponent:.2f} [{1 - high:.2f}, {1 - low:.2f}]")
    lines.append(f"| these {len(scaling.runs)} runs | {' | '.join(cells)} |")
    for name, law in (
        ("the same, without the embedding", scaling.without_embedding),
        ("Cuervo and Marxer (arXiv 2404.00685)", CUERVO_AND_MARXER),
    ):
        values = " | ".join(f"{constants(law)[key]:{form}}" for key, form in names.items())
        lines.append(f"| {name} | {values} | {1 - law.size_exponent:.2f} |")
    lines += [
        "",
        "SIMS (arXiv 2504.02398) finds that models of speech and text should get more of the compute as parameters. "
        "Its exponents are not in this table because they could not be verified.",
        "",
        f"Errors of the law: {np.sqrt(np.mean(np.square(errors))):.1f} % (root mean square), at most "
        f"{np.abs(errors).max():.1f} %. {_about_held_out(scaling)}{_about_floor(len(scaling.runs), *intervals['E'])}",
        "",
        _sentence(scaling.runs, recommended),
        "",
        _about_corpus(repeated),
    ]
    return "\n".join(lines) + "\n"


def _about_held_out(scaling: Scaling) -> str:
    if scaling.held_out is None:
        return ""
    loss, predicted_loss = scaling.held_out
    error = predicted_loss / loss - 1
    text = f"The law of the other runs says {predicted_loss:.3f} of the last one, which has {loss:.3f}"
    if abs(error) > MAX_HELD_OUT_ERROR:
        return f"{text}: with an error of {100 * error:+.1f} %, it cannot be trusted beyond the runs. "
    return f"{text}. "


def _about_floor(number: int, low: float, high: float) -> str:
    if high < PINNED * low:
        return f"E, the loss of an ideal model, lies between {low:.2f} and {high:.2f}."
    return (
        f"{number} runs do not pin E, the loss of an ideal model ({low:.2f} to {high:.2f}): the exponents depend on "
        "it, and losses far below those of the runs cannot be predicted."
    )


def _sentence(runs: Sequence[Run], recommended: dict[str, Any]) -> str:
    (small, large), (few, many), (good, bad) = recommended["intervals"].values()
    sizes, tokens = [run.parameters for run in runs], [run.tokens for run in runs]
    text = (
        f"**Next: with {recommended['flops']:.1e} FLOPs, train {_short(recommended['parameters'])} parameters (95 % "
        f"interval {_short(small)} to {_short(large)}) on {_short(recommended['tokens'])} new tokens ({_short(few)} "
        f"to {_short(many)}), for a loss of {recommended['loss']:.2f} ({good:.2f} to {bad:.2f}).** This extrapolates: "
        f"it is {recommended['extrapolation']['flops']:.3g} × the compute of the largest run, and the runs have "
        f"{_short(min(sizes))} to {_short(max(sizes))} parameters and {_short(min(tokens))} to {_short(max(tokens))} "
        "tokens."
    )
    if not min(sizes) <= recommended["parameters"] <= max(sizes):
        text += " No run has a size like this: make some with other widths before you trust it."
    text += f" The tokens are {recommended['passes']:.1f} passes over this corpus"
    return f"{text}, too many for it: collect more speech." if recommended["passes"] > MANY_PASSES else f"{text}."


def _about_corpus(repeated: dict[str, Any]) -> str:
    (small, large), _, (good, bad) = repeated["intervals"].values()
    return (
        f"With this corpus alone, whose further passes are worth less: {_short(repeated['parameters'])} parameters "
        f"({_short(small)} to {_short(large)}), {_short(repeated['tokens'])} tokens in {repeated['passes']:.1f} "
        f"passes, a loss of {repeated['loss']:.2f} ({good:.2f} to {bad:.2f})."
    )


def _short(number: float) -> str:
    """A number of at least some thousands with three digits."""
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


def _picture(scaling: Scaling, recommended: dict[str, Any]) -> "Figure":
    """The loss against tokens for each size, and the best size against compute."""
    from matplotlib.figure import Figure

    runs, law = scaling.runs, scaling.law
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, sizes = figure.subplots(1, 2)
    tokens = np.geomspace(min(run.tokens for run in runs), max(run.tokens for run in runs), 100)
    for number, parameters in enumerate(sorted({run.parameters for run in runs})):
        same = [run for run in runs if run.parameters == parameters]
        losses.plot([run.tokens for run in same], [run.loss for run in same], "o", color=f"C{number}")
        curve = law.loss(parameters, effective_tokens(tokens, runs[0].tokens_per_pass))
        losses.plot(tokens, curve, color=f"C{number}", label=f"{_short(parameters)} parameters")
    losses.plot(
        recommended["tokens"], recommended["loss"], "*", color="black", markersize=12, label="next, new tokens"
    )
    losses.set(xscale="log", xlabel="training tokens", ylabel="validation loss, nats per token")
    losses.legend(frameon=False, fontsize="small")

    flops = np.geomspace(min(run.flops for run in runs), 3 * recommended["flops"], 100)
    best = np.array([[one.optimum(compute)[0] for compute in flops] for one in scaling.laws])
    sizes.fill_between(flops, *np.quantile(best, (0.025, 0.975), axis=0), alpha=0.2, label="95 % interval")
    sizes.plot(flops, [law.optimum(compute)[0] for compute in flops], label="best size")
    published = [CUERVO_AND_MARXER.optimum(compute)[0] for compute in flops]
    sizes.plot(flops, published, "--", color="grey", label="Cuervo and Marxer, far below their sizes")
    sizes.plot([run.flops for run in runs], [run.parameters for run in runs], "o", color="C1", label="runs")
    sizes.plot(recommended["flops"], recommended["parameters"], "*", color="black", markersize=12, label="next")
    sizes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="parameters")
    sizes.legend(frameon=False, fontsize="small")
    return figure
