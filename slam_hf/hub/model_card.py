"""Renders model cards of speech language models, from their folders or from the results of a paper."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer

from ..configuration_speech_lm import SpeechLMConfig
from ..evaluation.results_table import Score, model_summaries, read_summaries, read_summary, summary_files
from ..evaluation.slamming_results import PUBLISHED
from ..evaluation.tasks import CONDITIONAL_SCORES, TASKS
from ..fingerprints import hash_model
from ..loading_utils import read_json
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import PUBLISHED_MODELS
from ..processing_speech_lm import load_tokenizer
from ..public_names import PREFIX, check_license, public_name
from ..run_record import Reference, RunRecord, read_run_records
from .markdown import (
    HUB,
    TEMPLATES,
    Markdown,
    code,
    count_parameters,
    front_matter,
)
from .samples import SAMPLES, Sample, describe_settings, read_samples
from .training_runs import describe_corpus, describe_hardware, run_rows


CURVE = "training_curve.png"
TAGS = ["speech", "speech-language-model", "slam-hf"]


@dataclass
class ModelDescription:
    """
    The content of a model card. `None` means not known.

    The architecture is the type of the transformer, such as `"qwen2"`, `twist_base` the text LM of a TWIST
    initialisation, and `codec` the one that the processor loads. `has_remote_code` tells whether the model can be
    loaded with `trust_remote_code=True`, and `has_curve` whether there is a plot of its training. The records are of
    its training runs, the first one first. `scores`, and `notes` on them in Markdown, are by task, and `reported_by`
    is the URL of the paper that reports them, if they were not measured. `about` is a sentence or two. A model without
    a `repo_id` is not published: its card has the `training_command`. `has_text` tells whether the vocabulary holds
    text beside the units. The samples are in the branch `revision` of the repository.
    """

    title: str
    repo_id: str | None
    architecture: str
    num_parameters: int
    num_units: int
    twist_base: Reference | None = None
    codec: Reference | None = None
    has_remote_code: bool = False
    has_curve: bool = False
    records: list[RunRecord] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    about: str | None = None
    reported_by: str | None = None
    training_command: str | None = None
    license: str | None = None
    language: str | None = None
    has_text: bool = False
    samples: list[Sample] = field(default_factory=list)
    revision: str = "main"

    def __post_init__(self):
        for name in ("twist_base", "codec"):
            if isinstance(getattr(self, name), dict):
                setattr(self, name, Reference(**getattr(self, name)))
        self.records = [RunRecord(**record) if isinstance(record, dict) else record for record in self.records]

    @property
    def codec_to_pass(self) -> str | None:
        """The folder to pass to the pipeline, if it does not find a codec by itself."""
        if self.codec is None:
            return None if self.repo_id in PUBLISHED_MODELS else "path/to/codec"
        is_elsewhere = not self.codec.is_local or self.codec.name.startswith(PREFIX)
        return None if is_elsewhere else f"path/to/{self.codec.name}"

    def sample_url(self, file: str) -> str:
        """The address of a file of the samples on the Hub, which players need; its path, if the model has no owner."""
        path = f"{SAMPLES}/{file}"
        is_on_hub = self.repo_id is not None and "/" in self.repo_id
        return f"{HUB}/{self.repo_id}/resolve/{quote(self.revision, safe='')}/{path}" if is_on_hub else path


def render_model_card(
    folder: str | os.PathLike,
    repo_id: str | None = None,
    evaluations: Sequence[str | os.PathLike] | None = None,
    license: str | None = None,
    loaded: SpeechLMForCausalLM | None = None,
    revision: str = "main",
) -> ModelCard:
    r"""
    Render the card of a speech language model from the record and the plot of its training and its samples, if its
    folder has them, and from its evaluations. The card contains no paths and no names of users.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the model.
        repo_id (`str`, *optional*):
            Repository that the model is published to. The examples use this name. Defaults to that of the folder.
        evaluations (sequence of `str` or `os.PathLike`, *optional*):
            Summaries that `hub_scripts/evaluate_model.py` wrote, or folders with them. Defaults to those in
            `evaluation` of the model's folder.
        license (`str`, *optional*):
            Licence, as an identifier of the Hub. Without one, the card says that none was given.
        loaded ([`SpeechLMForCausalLM`], *optional*):
            The model of the folder in float32, if it is in memory. Otherwise evaluations have it loaded.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch that the model is published to.

    Returns:
        [`~huggingface_hub.ModelCard`]

    Raises:
        FileNotFoundError: the folder has no weights, or a path has no summary.
        ValueError: the folder's model is of another type, or an evaluation is of other weights than the folder's.
    """
    folder = Path(folder)
    repo_id = repo_id or re.sub(r"\W+", "-", public_name(folder.resolve())).strip("-")
    validate_repo_id(repo_id)
    check_license(license)
    description = read_json(folder / "config.json")
    has_remote_code = "custom_pipelines" in description
    if (model_type := description.get("model_type")) != SpeechLMConfig.model_type:
        raise ValueError(f"'{folder}' holds a model of type {model_type!r}, and not a speech language model.")
    config = SpeechLMConfig.from_pretrained(folder)
    records = read_run_records(folder)
    evaluations = model_summaries(folder) if evaluations is None else evaluations
    scores, notes = _read_evaluations(folder, evaluations, loaded)
    model = ModelDescription(
        title=repo_id.split("/")[-1],
        repo_id=repo_id,
        architecture=config.base_config.model_type,
        num_parameters=count_parameters(folder),
        num_units=config.num_units or load_tokenizer(folder).num_units,
        has_text=config.has_text,
        twist_base=_twist_base(config, records),
        codec=_codec(folder),
        has_remote_code=has_remote_code,
        has_curve=(folder / CURVE).is_file(),
        records=records,
        scores=scores,
        notes=notes,
        license=license,
        samples=read_samples(folder),
        revision=revision,
    )
    return make_model_card(model)


def save_model_card(
    trainer: Trainer, evaluations: Sequence[str | os.PathLike] = (), loaded: SpeechLMForCausalLM | None = None
) -> None:
    r"""
    Write the card of a trained model into the output folder of its trainer.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, after training.
        evaluations (sequence of `str` or `os.PathLike`, *optional*):
            Summaries that `hub_scripts/evaluate_model.py` wrote, or folders with them.
        loaded ([`SpeechLMForCausalLM`], *optional*):
            The model in float32.
    """
    folder = Path(trainer.args.output_dir)
    render_model_card(folder, trainer.hub_model_id, evaluations, loaded=loaded).save(folder / "README.md")


def describe_published(path: str | os.PathLike) -> dict[str, ModelDescription]:
    r"""
    Read the results that a paper reports.

    Args:
        path (`str` or `os.PathLike`):
            A YAML file. `models` has the arguments of [`ModelDescription`] for each card, and as `row` the name of
            the model in the results table of the Slamming paper, which has the scores. `common` has the arguments
            that all models share.

    Returns:
        `dict[str, ModelDescription]`: the descriptions, by the name of the card.
    """
    content = yaml.safe_load(Path(path).read_text("utf-8"))
    scores = {row.model: row.scores for row in PUBLISHED}
    return {
        name: ModelDescription(scores=scores[model.pop("row")], **content["common"], **model)
        for name, model in content["models"].items()
    }


def make_model_card(model: ModelDescription) -> ModelCard:
    """Make the card of a model from its description."""
    content = TEMPLATES.get_template("model_card.md").render(
        metadata=front_matter(make_metadata(model)),
        model=model,
        curve=CURVE,
        runs=[(record, [describe_corpus(corpus) for corpus in record.corpora]) for record in model.records],
        run_table=lambda record: [("run", "value"), *run_rows(record)],
        results=_result_rows(model),
        not_in_percent=" and ".join(
            task.heading for name, task in TASKS.items() if name in model.scores and task.scale != 100
        ),
        samples=_sample_tables(model),
        notes=[Markdown(f"{_benchmark(model, task)}: {model.notes[task]}.") for task in TASKS if task in model.notes],
    )
    return ModelCard(content)


def make_metadata(model: ModelDescription) -> ModelCardData:
    """Make the metadata of a card. It names only what is on the Hub."""
    results = [_eval_result(model, task) for task in TASKS if task in model.scores] or None
    bases = [model.twist_base, *(record.base_model for record in reversed(model.records))]
    corpora = [corpus.source for record in model.records for corpus in record.corpora]
    datasets = list(dict.fromkeys(source.name for source in corpora if source.is_on_hub))
    return ModelCardData(
        language=model.language,
        license=model.license,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        base_model=next((base.name for base in bases if base is not None and base.is_on_hub), None),
        datasets=datasets or None,
        tags=TAGS,
        widget=_widget(model) or None,
        co2_eq_emissions=_emissions(model.records),
        model_name=model.title if results else None,
        eval_results=results,
    )


def _twist_base(config: SpeechLMConfig, records: list[RunRecord]) -> Reference | None:
    if not config.twist_init or config.base_model_name is None:
        return None
    recorded = {record.base_model.name: record.base_model for record in records if record.base_model is not None}
    return recorded.get(config.base_model_name) or Reference.to(config.base_model_name)


def _codec(folder: Path) -> Reference | None:
    path = folder / "processor_config.json"
    codec = read_json(path).get("codec") if path.is_file() else None
    if codec is None:
        return None
    name, revision = str(codec["name_or_path"]), codec.get("revision")
    return Reference(public_name(name, revision), revision, is_local=revision is None)  # on the Hub, it has a commit


def _read_evaluations(
    folder: Path, evaluations: Sequence[str | os.PathLike], loaded: SpeechLMForCausalLM | None
) -> tuple[dict[str, Score], dict[str, str]]:
    if not evaluations:
        return {}, {}
    weights = hash_model(loaded or SpeechLMForCausalLM.from_pretrained(folder, dtype=torch.float32))
    notes = {}
    for file in [file for path in evaluations for file in summary_files(Path(path))]:
        summary = read_summary(file)
        if summary["model"]["weights"] != weights:
            raise ValueError(
                f"'{file}' has results of other weights than those in '{folder}': evaluate these, or move the file "
                "away."
            )
        notes[summary["task"]] = _note(summary)
    [row] = read_summaries(evaluations)
    return row.scores, notes


def _note(summary: dict[str, Any]) -> str:
    """The data and the models behind a score, in Markdown."""
    name, settings = summary["data"]["name"], summary["settings"]
    note = f"data {code(name if name.startswith(PREFIX) else public_name(f'/{name}'))}"
    if settings.get("dtype", "float32") != "float32":
        note += f", scored in {settings['dtype']}"
    if "asr_model" in settings:
        note += f", transcribed by {code(settings['asr_model']['name'])}"
    if "text_lm" in settings:
        note += f", perplexity under {code(settings['text_lm']['name'])}"
    if "judge" in settings:
        note += f", rated by {code(settings['judge']['model']['name'])}"
    if "speaker_model" in settings:
        note += f", voices compared by {code(settings['speaker_model']['name'])}"
    return note


def _eval_result(model: ModelDescription, task: str) -> EvalResult:
    score, name, measure = model.scores[task], _benchmark(model, task), TASKS[task].result
    interval = "" if score.interval is None else ", 95 % interval {:.4g} to {:.4g}".format(*score.interval)
    return EvalResult(
        task_type="audio-to-audio",
        task_name="Speech continuation",
        dataset_type=f"slam-hf-quickstart-{task}" if score.is_miniature else task,
        dataset_name=name,
        metric_type="perplexity" if measure == "genppl" else measure,
        metric_name=f"{name}{' (%)' if TASKS[task].scale == 100 else ''}{interval}",
        metric_value=round(score.value, 2),
        verified=False,
        source_name="reported by the paper" if model.reported_by else None,
        source_url=model.reported_by,
    )


def _benchmark(model: ModelDescription, task: str) -> str:
    return TASKS[task].heading + (" in miniature" if model.scores[task].is_miniature else "")


def _result_rows(model: ModelDescription) -> Iterator[list[str]]:
    """The heading and a row for each result. Results of papers have no intervals and no counts."""
    yield ["benchmark", "value"] if model.reported_by else ["benchmark", "value", "95 % interval", "items scored"]
    for task in TASKS:
        if task in model.scores:
            column = TASKS[task].column + (" in miniature" if model.scores[task].is_miniature else "")
            conditional = model.scores[task].conditional.items()
            columns = {column: model.scores[task]}
            columns |= {f"{column}, by {CONDITIONAL_SCORES[name]}": score for name, score in conditional}
            for name, score in columns.items():
                row = [name, f"{score.value:.2f}"]
                if not model.reported_by:
                    row += ["{:.2f} to {:.2f}".format(*score.interval), f"{score.num_scored:,} of {score.num_items:,}"]
                yield row


def _sample_tables(model: ModelDescription) -> list[dict[str, Any]]:
    """What the card shows of each recording: its name, the settings, a table of players, and pictures."""
    tables = []
    for file in dict.fromkeys(sample.prompt for sample in model.samples):
        samples = [sample for sample in model.samples if sample.prompt == file]
        first = samples[0]
        heading = [
            f"the first {first.prompt_seconds:.1f} s",
            *(f"continued, seed {sample.seed}" for sample in samples),
        ]
        players = [_player(model, name) for name in (file, *(sample.continuation for sample in samples))]
        tables.append(
            {
                "recording": first.recording,
                "settings": describe_settings(first.settings),
                "players": [heading, players],
                "pictures": [f"{SAMPLES}/{sample.picture}" for sample in samples if sample.picture is not None],
            }
        )
    return tables


def _player(model: ModelDescription, file: str) -> Markdown:
    return Markdown(f'<audio controls src="{model.sample_url(file)}"></audio>')


def _widget(model: ModelDescription) -> list[dict[str, str]]:
    """The recordings as examples of the Hub's widget, for a model that is published."""
    prompts = {sample.prompt: sample.recording for sample in model.samples}
    urls = {model.sample_url(file): name for file, name in prompts.items()}
    return [{"src": url, "example_title": name} for url, name in urls.items() if url.startswith(HUB)]


def _emissions(records: list[RunRecord]) -> dict[str, Any] | None:
    measured = [record for record in records if record.emissions is not None]
    if not measured:
        return None
    return {
        "emissions": round(1000 * sum(record.emissions.co2 for record in measured), 3),  # in grams
        "source": "codecarbon",
        "training_type": "pre-training" if measured[0].objective == "pretraining" else "fine-tuning",
        "hardware_used": ", ".join(dict.fromkeys(map(describe_hardware, measured))),
    }
