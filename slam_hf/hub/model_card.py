"""Model cards, rendered from what was measured."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer

from ..evaluation.tasks import TASKS
from ..public_names import check_license, public_name
from ..training.run_record import CorpusRecord, RunRecord
from .markdown import TEMPLATES, Markdown, code, format_duration, format_number, format_value, front_matter, link
from .model_description import CURVE, ModelDescription, describe_folder


TAGS = ["speech", "speech-language-model", "slam-hf"]


def render_model_card(
    folder: str | os.PathLike,
    repo_id: str,
    evaluations: Sequence[str | os.PathLike] = (),
    license: str | None = None,
) -> ModelCard:
    r"""
    Render the card of a speech language model: from the record of its training where its folder has one, the picture
    of its training, and the results of its evaluations. Nothing on it is a path or the name of a user.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the model.
        repo_id (`str`):
            The repository that it goes to, which the examples name.
        evaluations (sequence of `str` or `os.PathLike`, *optional*):
            Summaries that `hub_scripts/evaluate_model.py` wrote, or folders with them.
        license (`str`, *optional*):
            Its licence, as the Hub names it. The card says so where there is none.

    Returns:
        [`~huggingface_hub.ModelCard`]

    Raises:
        FileNotFoundError: the folder has no weights, or there is no summary at a path.
        ValueError: an evaluation is of other weights than the folder's.
    """
    validate_repo_id(repo_id)
    check_license(license)
    return make_model_card(describe_folder(Path(folder), repo_id, evaluations, license))


def save_model_card(trainer: Trainer, evaluations: Sequence[str | os.PathLike] = ()) -> None:
    r"""
    Write the card of the model that a trainer has saved beside it, and publish it where the trainer publishes, with
    the record of the run. It replaces the one that every push of a trainer drafts.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, after training.
        evaluations (sequence of `str` or `os.PathLike`, *optional*):
            Summaries that `hub_scripts/evaluate_model.py` wrote, or folders with them.
    """
    folder = Path(trainer.args.output_dir)
    local_name = re.sub(r"\W+", "-", public_name(folder.resolve())).strip("-")
    card = render_model_card(folder, trainer.hub_model_id or local_name, evaluations)
    card.save(folder / "README.md")


def make_model_card(model: ModelDescription) -> ModelCard:
    r"""
    Make a card of what is known about a model.

    Args:
        model ([`ModelDescription`]):
            What is known.
    """
    content = TEMPLATES.get_template("model_card.md").render(
        metadata=front_matter(make_metadata(model)),
        model=model,
        curve=CURVE,
        runs=[(record, [_describe_corpus(corpus) for corpus in record.corpora]) for record in model.records],
        run_table=lambda record: [("run", "value"), *_run_rows(record)],
        recipe_table=lambda record: [("recipe", "value"), *_recipe_rows(record)],
        results=_result_rows(model),
        notes=[Markdown(f"{_benchmark(model, task)}: {model.notes[task]}.") for task in TASKS if task in model.notes],
    )
    return ModelCard(content)


def make_metadata(model: ModelDescription) -> ModelCardData:
    """The card's YAML: only what the Hub can look up, so nothing local."""
    results = [_eval_result(model, task) for task in TASKS if task in model.scores] or None
    bases = [record.base_model for record in model.records] + [model.twist_base]
    base_models = [base.name for base in bases if base is not None and base.is_on_hub]
    corpora = [corpus.source for record in model.records for corpus in record.corpora]
    datasets = list(dict.fromkeys(source.name for source in corpora if source.is_on_hub))
    return ModelCardData(
        language=model.language,
        license=model.license,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        base_model=base_models[-1] if base_models else None,
        datasets=datasets or None,
        tags=TAGS,
        co2_eq_emissions=_emissions(model.records),
        model_name=model.title if results else None,
        eval_results=results,
    )


def _eval_result(model: ModelDescription, task: str) -> EvalResult:
    measure, name = TASKS[task].result, _benchmark(model, task)
    score, interval = model.scores[task], ""
    if score.interval is not None:
        interval = ", 95 % interval {:.4g} to {:.4g}".format(*score.interval)
    return EvalResult(
        task_type="audio-to-audio",
        task_name="Speech continuation",
        dataset_type=f"slam-hf-quickstart-{task}" if task in model.miniatures else task,
        dataset_name=name,
        metric_type="perplexity" if measure == "genppl" else measure,
        metric_name=f"{name}{' (%)' if TASKS[task].scale == 100 else ''}{interval}",
        metric_value=round(score.value, 2),
        verified=False,
        source_name="reported by the paper" if model.reported_by else None,
        source_url=model.reported_by,
    )


def _benchmark(model: ModelDescription, task: str) -> str:
    """Name of a benchmark."""
    return TASKS[task].heading + _miniature(model, task)


def _miniature(model: ModelDescription, task: str) -> str:
    return " in miniature" if task in model.miniatures else ""


def _emissions(records: list[RunRecord]) -> dict[str, Any] | None:
    measured = [record for record in records if record.emissions is not None]
    if not measured:
        return None
    return {
        "emissions": round(1000 * sum(record.emissions.co2 for record in measured), 3),  # in grams
        "source": "codecarbon",
        "training_type": "pre-training" if measured[0].objective == "pretraining" else "fine-tuning",
        "hardware_used": ", ".join(dict.fromkeys(_hardware(record) for record in measured)),
    }


def _describe_corpus(corpus: CorpusRecord) -> Markdown:
    known = {
        "configuration": corpus.config and code(corpus.config),
        "split": corpus.split and code(corpus.split),
        "weight": corpus.weight and format_value(corpus.weight),
        "rows": corpus.num_rows and format_number(corpus.num_rows),
        "units": corpus.num_units and format_number(corpus.num_units),
        "codec": corpus.codec and code(corpus.codec),
        "SHA-256 of the rows": corpus.fingerprint and code(corpus.fingerprint),
    }
    parts = [f"{name}: {value}" for name, value in known.items() if value]
    return Markdown(", ".join([link(corpus.source, "datasets/"), *parts]))


def _recipe_rows(record: RunRecord) -> list[tuple[str, str]]:
    return [(code(name), format_value(value)) for name, value in record.recipe.items()]


def _result_rows(model: ModelDescription) -> list[list[str]]:
    """The heading and a row for each result; results of papers have neither intervals nor counts."""
    rows = [["benchmark", "value"] if model.reported_by else ["benchmark", "value", "95 % interval", "items scored"]]
    for task in TASKS:
        if task in model.scores:
            score = model.scores[task]
            row = [TASKS[task].column + _miniature(model, task), f"{score.value:.2f}"]
            if not model.reported_by:
                low, high = score.interval
                row += [f"{low:.2f} to {high:.2f}", f"{score.num_scored:,} of {score.num_items:,}"]
            rows.append(row)
    return rows


def _run_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Names and figures of a run, of those that are known."""
    if record.hardware is not None:
        yield "hardware", _hardware(record)
    if record.seconds is not None:
        yield "duration", format_duration(record.seconds)
    if record.num_steps is not None:
        yield "steps", f"{record.num_steps:,}"
    if record.num_tokens is not None:
        padding = "" if record.padding is None else f", and {100 * record.padding:.1f} % of the batches padding"
        yield "tokens seen", format_number(record.num_tokens) + padding
    if record.tokens_per_second is not None:
        yield "speed", f"{record.tokens_per_second:,.0f} tokens a second, {100 * record.mfu:.1f} % MFU (medians)"
    if record.emissions is not None:
        energy, duration = f"{record.emissions.energy:.3g} kWh", format_duration(record.emissions.seconds)
        countries = " and ".join(record.emissions.countries)
        yield "energy", f"{energy}, as codecarbon measured it over {duration}"
        yield "emissions", f"{record.emissions.co2:.3g} kg CO₂eq, if the electricity is from {countries}"
    for name, (first, last) in record.validation.items():
        first_step, last_step = record.validation_steps
        yield name, f"{first:.3f} (step {first_step:,}) → {last:.3f} (step {last_step:,})"
    if record.packages:
        yield "software", ", ".join(f"{name} {version}" for name, version in record.packages.items())


def _hardware(record: RunRecord) -> str:
    device, count, cpu = record.hardware.device, record.hardware.count, record.hardware.cpu
    if record.hardware.on_cpu:
        return f"{device}, {count} process" + ("es" if count > 1 else "")
    return f"{count} × {device}" + ("" if cpu is None else f", {cpu}")
