"""The record of a training run, which is kept with the model for its card."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from .atomic_write import atomic_write
from .loading_utils import find_file
from .public_names import is_hub_id, is_local, public_name


RUN_RECORD_NAME = "training_run.json"


@strict
@dataclass
class Reference:
    """A model or a dataset by a public name, never a path: its id and commit on the Hub; where it `is_local` to this
    machine, its name in its card or that of its folder; or a name with the `url` where it is."""

    name: str
    revision: str | None = None
    is_local: bool = False
    url: str | None = None

    @property
    def is_on_hub(self) -> bool:
        """Whether `name` is its id on the Hub."""
        return not self.is_local and self.url is None and is_hub_id(self.name)

    @classmethod
    def to(cls, name_or_path: str | os.PathLike, revision: str | None = None) -> "Reference":
        """Of what a user named by a Hub id or a folder. An absolute path is local even where it leads nowhere."""
        if is_local(name_or_path):
            return cls(public_name(name_or_path), is_local=True)
        return cls(str(name_or_path), revision)


@strict
@dataclass
class CorpusRecord:
    r"""
    A dataset that a model was trained on.

    Args:
        source ([`Reference`] or `dict`), config, split (`str`, *optional*):
            The dataset, its configuration and its split.
        weight (`float`, *optional*):
            Its share of the tokens, relative to the weights of the other datasets.
        num_rows, num_units (`int`, or `float` for a rounded number, *optional*):
            Its size, without held-out rows. Not known for a stream.
        fingerprint (`str`, *optional*):
            SHA-256 of its rows, which identifies a local corpus.
        codec (`str`, *optional*):
            Name of the codec in its card.
        modality (`str`, *optional*):
            `"text"` or `"interleaved"`, where the model was not trained on the units alone.
    """

    source: Reference | dict
    config: str | None = None
    split: str | None = None
    weight: int | float | None = None
    num_rows: int | float | None = None
    num_units: int | float | None = None
    fingerprint: str | None = None
    codec: str | None = None
    modality: str | None = None

    def __post_init__(self):
        self.source = _parse(Reference, self.source)


@strict
@dataclass
class Hardware:
    """Name and number of the GPUs, with the processor as `cpu`; or the processor and the number of processes."""

    device: str
    count: int
    cpu: str | None = None
    on_cpu: bool = False


def describe_hardware(device: torch.device, num_processes: int) -> Hardware:
    """The hardware of a run that has a process for each device."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    if device.type == "cuda":
        return Hardware(torch.cuda.get_device_name(device), num_processes, cpu)
    return Hardware(cpu, num_processes, on_cpu=True)


@strict
@dataclass
class Emissions:
    """Measurements of codecarbon: kWh, kg of CO₂ equivalents, the countries it assumed, and how long it measured."""

    energy: int | float
    co2: int | float
    countries: list[str]
    seconds: int | float


@strict
@dataclass
class RunRecord:
    r"""
    A training run. `None` stands for what is not known.

    Args:
        objective (`str`):
            `"pretraining"`, `"preference alignment"`, `"online alignment"` or `"vocoder training"`.
        base_model ([`Reference`] or `dict`, *optional*):
            The model that the run started from. `None` for random weights.
        corpora (`list` of [`CorpusRecord`] or `dict`), hardware ([`Hardware`] or `dict`, *optional*):
            The training data and the hardware.
        earlier_hardware (`list` of [`Hardware`] or `dict`):
            Other hardware, of earlier parts of an interrupted run.
        recipe (`dict`):
            Values of the scripts' arguments by name, and `batch_size`, the number of rows per optimizer step.
        num_steps, num_tokens (`int`, or `float` for a rounded number, *optional*):
            Number of optimizer steps, and of training tokens without padding.
        padding (`float`, *optional*):
            Share of padding in the batches, from 0 to 1. An incomplete last batch counts as padded.
        seconds (`float`, *optional*):
            Duration, including evaluation and saving. An interrupted run counts every step once.
        tokens_per_second, mfu (`float`, *optional*):
            Speed and model FLOPs utilisation (from 0 to 1): medians over the logs.
        validation (`dict[str, list[float]]`), validation_steps (`list[int]`, *optional*):
            The first and the last value of each measurement on held-out data, and their steps.
        measurements (`dict[str, float]`):
            Other measurements after the run.
        emissions ([`Emissions`] or `dict`, *optional*), packages (`dict[str, str]`):
            Measurements of codecarbon, and versions of packages.
    """

    objective: str
    base_model: Reference | dict | None = None
    corpora: list[CorpusRecord | dict] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    hardware: Hardware | dict | None = None
    earlier_hardware: list[Hardware | dict] = field(default_factory=list)
    num_steps: int | None = None
    num_tokens: int | float | None = None
    padding: int | float | None = None
    seconds: int | float | None = None
    tokens_per_second: int | float | None = None
    mfu: int | float | None = None
    validation: dict[str, list[int | float]] = field(default_factory=dict)
    validation_steps: list[int] | None = None
    measurements: dict[str, int | float] = field(default_factory=dict)
    emissions: Emissions | dict | None = None
    packages: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.base_model = _parse(Reference, self.base_model)
        self.corpora = [_parse(CorpusRecord, corpus) for corpus in self.corpora]
        self.hardware = _parse(Hardware, self.hardware)
        self.earlier_hardware = [_parse(Hardware, earlier) for earlier in self.earlier_hardware]
        self.emissions = _parse(Emissions, self.emissions)

    def validate_measurements(self) -> None:
        """Check that measurements which belong together are there together."""
        steps = [self.validation_steps] if self.validation else []
        if any(pair is None or len(pair) != 2 for pair in [*self.validation.values(), *steps]):
            raise ValueError("`validation` and `validation_steps` must have a first and a last value each.")
        if (self.tokens_per_second is None) != (self.mfu is None):
            raise ValueError("`tokens_per_second` and `mfu` must both be there, or neither.")


def save_run_records(records: list[RunRecord], folder: str | os.PathLike) -> None:
    """Write the records of the runs that made a model into its folder, the first run first."""
    content = json.dumps([asdict(record) for record in records], indent=2) + "\n"
    atomic_write(Path(folder) / RUN_RECORD_NAME, content.encode())


def read_run_records(name_or_path: str | os.PathLike, revision: str | None = None) -> list[RunRecord]:
    r"""
    Read the records of the runs that made a model. Fields that this version does not know are left out.

    Args:
        name_or_path (`str` or `os.PathLike`):
            The model, a Hub id or a folder.
        revision (`str`, *optional*):
            Its revision on the Hub.

    Returns:
        `list` of [`RunRecord`], the first run first. Empty for a model without records.

    Raises:
        ValueError: the file does not hold records.
    """
    path = find_file(name_or_path, RUN_RECORD_NAME, revision)
    if path is None:
        return []
    try:
        return [_parse(RunRecord, dict(record)) for record in json.loads(Path(path).read_text("utf-8"))]
    except (ValueError, TypeError, RecursionError, StrictDataclassError) as error:
        raise ValueError(f"'{path}' is not a record of training runs: {error}") from error


def count_training_tokens(records: list[RunRecord]) -> float | None:
    """Number of training tokens of a model in all of its runs. `None` if it is not known."""
    counts = [record.num_tokens for record in records]
    return sum(counts) if counts and None not in counts else None


def read_training_tokens(name_or_path: str | os.PathLike) -> float | None:
    """
    Number of training tokens of a model by its records, or of a checkpoint `{run}/checkpoint-{step}` by the state of
    its trainer and the records of the finished run. `None` if it is not known.
    """
    from transformers.trainer import TRAINER_STATE_NAME  # takes seconds to import

    records, state = read_run_records(name_or_path), Path(name_or_path, TRAINER_STATE_NAME)
    if records or not state.is_file():
        return count_training_tokens(records)
    run = read_run_records(state.parent.absolute().parent)
    if not run:
        return None
    try:
        tokens = float(json.loads(state.read_text("utf-8"))["num_input_tokens_seen"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{state}' is not the state of a trainer: {error!r}") from error
    earlier = count_training_tokens(run[:-1]) if len(run) > 1 else 0
    return None if earlier is None else earlier + tokens


def _parse(cls: type, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = {field.name for field in fields(cls)}
    return cls(**{name: item for name, item in value.items() if name in names})
