"""What there is to say about a speech language model, gathered from its folder."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME

from ..configuration_speech_lm import SpeechLMConfig
from ..evaluation.fingerprints import hash_model
from ..evaluation.results_table import Score, read_summaries, summary_files
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import MHUBERT_25HZ_UNITS
from ..public_names import PREFIX, public_name
from ..training.run_record import Reference, RunRecord, read_run_records
from .markdown import code, count_parameters


CURVE = "training_curve.png"


@dataclass
class ModelDescription:
    r"""
    What a model card says. What is `None` is not known.

    Args:
        title (`str`):
            Name of the model.
        repo_id (`str`, *optional*):
            Its repository; `None` where its weights are not published.
        architecture (`str`):
            Type of its transformer, such as `"qwen2"`.
        num_parameters (`int`):
            Number of parameters.
        num_units (`int`):
            Number of units.
        twist_base ([`Reference`] or `dict`, *optional*):
            The text LM of its TWIST initialisation.
        codec ([`Reference`] or `dict`, *optional*):
            The codec that its processor names.
        has_remote_code (`bool`, *optional*, defaults to `False`):
            Whether it loads by `trust_remote_code=True`.
        has_curve (`bool`, *optional*, defaults to `False`):
            Whether there is a picture of its training.
        records (`list` of [`RunRecord`] or `dict`):
            The runs that made it.
        scores (`dict[str, Score]`):
            Its results by task.
        notes (`dict[str, str]`):
            What to know about the results, by task.
        miniatures (`set[str]`):
            The tasks whose data is a small one of this package, which has the benchmark's form and not its items.
        about (`str`, *optional*):
            More about it, in a sentence or two.
        reported_by (`str`, *optional*):
            URL of the paper that reports all of it; `None` where it was measured.
        training_command (`str`, *optional*):
            What trains it.
        license, language (`str`, *optional*):
            As the metadata of the Hub have them.
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
    miniatures: set[str] = field(default_factory=set)
    about: str | None = None
    reported_by: str | None = None
    training_command: str | None = None
    license: str | None = None
    language: str | None = None

    @property
    def codec_to_pass(self) -> str | None:
        """The folder to pass to the pipeline, where it does not find a codec by itself."""
        if self.codec is None:
            return None if self.num_units == MHUBERT_25HZ_UNITS else "path/to/codec"
        is_elsewhere = not self.codec.is_local or self.codec.name.startswith(PREFIX)
        return None if is_elsewhere else f"path/to/{self.codec.name}"

    def __post_init__(self):
        for name in ("twist_base", "codec"):
            if isinstance(getattr(self, name), dict):
                setattr(self, name, Reference(**getattr(self, name)))
        self.records = [RunRecord(**record) if isinstance(record, dict) else record for record in self.records]


def describe_folder(
    folder: Path, repo_id: str, evaluations: Sequence[str | os.PathLike] = (), license: str | None = None
) -> ModelDescription:
    r"""
    Gather what the folder of a model holds.

    Args:
        folder (`Path`):
            The folder, as `save_pretrained` or a training script writes it.
        repo_id (`str`):
            The repository that it goes to.
        evaluations (sequence of `str` or `os.PathLike`, *optional*):
            Summaries that `hub_scripts/evaluate_model.py` wrote, or folders with them.
        license (`str`, *optional*):
            Its licence, as the Hub names it.

    Raises:
        ValueError: an evaluation is of other weights.
    """
    config = SpeechLMConfig.from_pretrained(folder)
    records = read_run_records(folder)
    scores, notes, miniatures = _read_evaluations(folder, evaluations)
    return ModelDescription(
        title=repo_id.split("/")[-1],
        repo_id=repo_id,
        architecture=config.base_config.model_type,
        num_parameters=count_parameters(folder),
        num_units=config.num_units,
        twist_base=_twist_base(config, records),
        codec=_codec(folder),
        has_remote_code="custom_pipelines" in json.loads((folder / CONFIG_NAME).read_text("utf-8")),
        has_curve=(folder / CURVE).is_file(),
        records=records,
        scores=scores,
        notes=notes,
        miniatures=miniatures,
        license=license,
    )


def _twist_base(config: SpeechLMConfig, records: list[RunRecord]) -> Reference | None:
    if not config.twist_init or config.base_model_name is None:
        return None
    recorded = [record.base_model for record in records if record.base_model is not None]
    by_name = {reference.name: reference for reference in recorded}
    return by_name.get(config.base_model_name) or Reference.to(config.base_model_name)


def _codec(folder: Path) -> Reference | None:
    path = folder / "processor_config.json"
    codec = json.loads(path.read_text("utf-8")).get("codec") if path.is_file() else None
    if codec is None:
        return None
    name, revision = str(codec["name_or_path"]), codec.get("revision")
    # A codec from the Hub has a commit.
    return Reference(public_name(name, revision), revision, is_local=revision is None)


def _read_evaluations(
    folder: Path, evaluations: Sequence[str | os.PathLike]
) -> tuple[dict[str, Score], dict[str, str], set[str]]:
    if not evaluations:
        return {}, {}, set()
    model = SpeechLMForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights, notes, miniatures = hash_model(model), {}, set()
    for path in evaluations:
        for file in summary_files(Path(path)):
            summary = json.loads(file.read_text("utf-8"))
            if summary["model"]["weights"] != weights:
                raise ValueError(f"'{file}' has results of other weights than those in '{folder}': evaluate these.")
            notes[summary["task"]] = _note(summary)
            if summary["data"]["name"].startswith(PREFIX):
                miniatures.add(summary["task"])
    [row] = read_summaries(evaluations)
    return row.scores, notes, miniatures


def _note(summary: dict[str, Any]) -> str:
    """What was scored, and by which models, in Markdown."""
    settings = summary["settings"]
    name = summary["data"]["name"]
    note = f"data {code(name if name.startswith(PREFIX) else public_name('/' + name))}"
    if "asr_model" in settings:
        note += f", transcribed by {code(settings['asr_model']['name'])}"
    if "text_lm" in settings:
        note += f", perplexity under {code(settings['text_lm']['name'])}"
    return note
