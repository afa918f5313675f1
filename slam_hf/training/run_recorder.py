"""Measures a training run for its record."""

import csv
import hashlib
import platform
import statistics
import time
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HTTPError
from transformers import AutoConfig, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import CodeCarbonCallback, is_codecarbon_available
from transformers.trainer_callback import ExportableState
from trl import ModelConfig

from .arguments import CorpusConfig
from .run_record import CorpusRecord, Emissions, Hardware, Reference, RunRecord, read_run_records, save_run_records


PACKAGES = ("slam-hf", "torch", "transformers", "datasets", "accelerate", "trl")

RECIPE = (
    "optim",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "torch_compile",
    "seed",
)
"""The trainer's arguments that a record gives, with those that a script adds."""

CODECARBON_FILE = "emissions.csv"


class RunRecorder(TrainerCallback, ExportableState):
    """Takes the time of a run over all its parts: it continues where the checkpoint was made."""

    def __init__(self):
        self.started_at = time.time()
        self.seconds = 0.0
        self._part_started: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.seconds + (0.0 if self._part_started is None else time.monotonic() - self._part_started)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        vars(self).update(state.stateful_callbacks[type(self).__name__]["attributes"])
        self._part_started = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.seconds, self._part_started = self.elapsed, None

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"started_at": self.started_at, "seconds": self.elapsed}}

    def save_record(
        self,
        objective: str,
        trainer: Trainer,
        model_args: ModelConfig,
        corpora: list[CorpusRecord],
        validation: dict[str, str],
        recipe: dict[str, Any],
    ) -> None:
        r"""
        Write the record of the run that has ended into its output folder, behind those of the model it started from.

        Args:
            objective (`str`):
                `"pretraining"` or `"preference alignment"`.
            trainer ([`~transformers.Trainer`]):
                The trainer, after training and evaluation.
            model_args ([`~trl.ModelConfig`]):
                What the run started from, and its adapters.
            corpora (`list` of [`CorpusRecord`]):
                What it was trained on.
            validation (`dict[str, str]`):
                What was measured on held-out data, and the name in the logs.
            recipe (`dict`):
                Values of the recipe that not every trainer has, `None` where one does not apply. With
                `context_length`, the length of every row, the share of padding is known.
        """
        args, state = trainer.args, trainer.state
        batch_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        speeds = [log for log in state.log_history if "tokens_per_second" in log]
        evaluations = [log for log in state.log_history if set(validation.values()) <= log.keys()]
        slots = recipe.get("context_length", 0) * batch_size * state.global_step
        record = RunRecord(
            objective=objective,
            base_model=_base_model(model_args),
            corpora=corpora,
            recipe=_recipe(args, model_args, batch_size, recipe),
            hardware=_hardware(args),
            num_steps=state.global_step,
            num_tokens=state.num_input_tokens_seen,
            padding=1 - state.num_input_tokens_seen / slots if slots else None,
            seconds=self.elapsed,
            tokens_per_second=statistics.median(log["tokens_per_second"] for log in speeds) if speeds else None,
            mfu=statistics.median(log["mfu"] for log in speeds) if speeds else None,
            validation={name: [evaluations[0][key], evaluations[-1][key]] for name, key in validation.items()},
            validation_steps=[evaluations[0]["step"], evaluations[-1]["step"]],
            emissions=read_emissions(Path(args.output_dir), self.started_at),
            packages={name: metadata.version(name) for name in PACKAGES},
        )
        name, revision = model_args.model_name_or_path, model_args.model_revision
        earlier = [] if record.base_model is None else read_run_records(name, revision)
        save_run_records([*earlier, record], args.output_dir)


def energy_callbacks(training_args: TrainingArguments) -> list[TrainerCallback]:
    """The callback that measures energy where codecarbon is installed, unless `report_to` names it already."""
    wanted = is_codecarbon_available() and "codecarbon" not in training_args.report_to
    return [CodeCarbonCallback()] if wanted else []


def read_emissions(output_dir: Path, started_at: float) -> Emissions | None:
    r"""
    Sum up what codecarbon left of the parts of a run.

    Args:
        output_dir (`Path`):
            Folder with codecarbon's `emissions.csv`, a row for each part that came to its end.
        started_at (`float`):
            When the run began, in seconds since the epoch: earlier rows are of other runs.
    """
    path = output_dir / CODECARBON_FILE
    if not path.is_file():
        return None
    with open(path, newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if datetime.fromisoformat(row["timestamp"]).timestamp() >= started_at
        ]
    if not rows:
        return None
    energy, co2, seconds = (
        sum(float(row[column]) for row in rows) for column in ("energy_consumed", "emissions", "duration")
    )
    return Emissions(energy, co2, sorted({row["country_name"] for row in rows}), seconds)


def record_corpus(corpus: CorpusConfig, rows: Dataset | IterableDataset) -> CorpusRecord:
    r"""
    Record a dataset that a run was trained on.

    Args:
        corpus ([`CorpusConfig`]):
            How the recipe names it.
        rows (`Dataset` or `IterableDataset`):
            What was trained on, without what was held out: a tokenised corpus or preference pairs.

    Returns:
        [`CorpusRecord`], without size and fingerprint for a stream.
    """
    record = CorpusRecord(_source(corpus), corpus.name, corpus.split, corpus.weight)
    readme = Path(corpus.path) / "README.md"
    if readme.is_file():
        data = DatasetCard.load(readme).data
        record.codec = data.get("codec") if isinstance(data.get("codec"), str) else None
        record.source.name = data.get("pretty_name", record.source.name)
    if isinstance(rows, Dataset):
        record.num_rows = len(rows)
        record.fingerprint, record.num_units = fingerprint_rows(rows)
    return record


def fingerprint_rows(rows: Dataset) -> tuple[str, int | None]:
    r"""
    SHA-256 of a dataset's columns, however its files are divided, and its number of units where it has such a column.

    Args:
        rows (`Dataset`):
            Columns of strings, or of lists of integers.
    """
    hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in sorted(rows.column_names)}
    num_units = 0
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        for name, (lengths, values) in hashes.items():
            column = batch[name].combine_chunks()
            if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                flat = column.flatten().cast(pa.uint32())
                num_units += len(flat)
                lengths.update(pc.list_value_length(column).cast(pa.int32()).to_numpy().tobytes())
                values.update(flat.to_numpy().tobytes())
            else:
                lengths.update(pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes())
                values.update("".join(column.to_pylist()).encode())
    digests = b"".join(hash.digest() for pair in hashes.values() for hash in pair)
    return hashlib.sha256(digests).hexdigest(), num_units or None


def _source(corpus: CorpusConfig) -> Reference:
    source = Reference.to(corpus.path, corpus.revision)
    if corpus.path in _PACKAGED_DATASETS_MODULES:
        # A builder, and `data_files` of the user's.
        source.is_local = True
    if not source.is_local and not HF_HUB_OFFLINE:
        # Without a connection, `load_dataset` has taken the corpus from its cache, which does not know its revision.
        with suppress(HTTPError):
            source.revision = HfApi().dataset_info(corpus.path, revision=corpus.revision).sha
    return source


def _base_model(model_args: ModelConfig) -> Reference | None:
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if name is None:
        return None
    return Reference.to(name, getattr(AutoConfig.from_pretrained(name, revision=revision), "_commit_hash", None))


def _recipe(
    args: TrainingArguments, model_args: ModelConfig, batch_size: int, recipe: dict[str, Any]
) -> dict[str, Any]:
    values = {"batch_size": batch_size, **recipe, **{name: getattr(args, name) for name in RECIPE}}
    values["precision"] = "bf16" if args.bf16 else "fp16" if args.fp16 else model_args.dtype
    if model_args.use_peft:
        values |= {name: getattr(model_args, name) for name in ("lora_r", "lora_alpha", "lora_target_modules")}
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not None and value is not False and value != {}}


def _hardware(args: TrainingArguments) -> Hardware:
    if args.device.type == "cuda":
        return Hardware(torch.cuda.get_device_name(args.device), args.world_size, _cpu_name())
    return Hardware(_cpu_name(), args.world_size, on_cpu=True)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
