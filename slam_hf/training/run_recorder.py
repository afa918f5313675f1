"""Records a training run: its settings at the start, and its measurements and their curve at the end."""

import csv
import hashlib
import json
import statistics
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HTTPError
from transformers import AutoConfig, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import CodeCarbonCallback, is_codecarbon_available
from transformers.trainer_callback import ExportableState
from transformers.utils import is_matplotlib_available
from trl import ModelConfig

from ..corpora.dataset_card import read_card
from ..loading_utils import naming_damaged_files
from ..run_record import (
    CorpusRecord,
    Emissions,
    Hardware,
    Reference,
    RunRecord,
    describe_hardware,
    read_run_records,
    save_run_records,
)
from .arguments import CorpusConfig
from .plan import batch_size


PACKAGES = ("slam-hf", "torch", "transformers", "datasets", "accelerate", "trl")

# fmt: off
RECIPE = (
    "optim", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1",
    "adam_beta2", "max_grad_norm", "torch_compile", "seed",
)
# fmt: on
"""The trainer's arguments in a record. Scripts add others."""

LORA = ("lora_r", "lora_alpha", "lora_target_modules")


class RunRecorder(TrainerCallback, ExportableState):
    """Takes the time of a run over all its parts, refuses to continue one whose corpora have changed, and names it for
    those that report it, which come later: all its parts have one name. On the main process it holds the records of
    the run and of those before it."""

    def __init__(self, records: list[RunRecord] | None = None):
        self.records = records or []
        self.started_at = time.time()
        self.seconds = 0.0
        self._part_started: float | None = None

    @classmethod
    def begin(
        cls,
        objective: str,
        training_args: TrainingArguments,
        model_args: ModelConfig,
        corpora: list[tuple[CorpusConfig, Dataset | IterableDataset]],
        recipe: dict[str, Any],
    ) -> "RunRecorder":
        """
        Record what is known about a run before it starts, after the records of the model that it starts from.

        `corpora` are the arguments of each dataset and its rows without those held out. `recipe` has values that are
        not arguments of every trainer; those that are `None` are left out.

        Raises:
            ValueError: the file with the records of the model does not hold records.
        """
        if training_args.process_index > 0:
            return cls()
        values = {"batch_size": batch_size(training_args), **recipe}
        values |= {argument: getattr(training_args, argument) for argument in RECIPE}
        values["precision"] = "bf16" if training_args.bf16 else "fp16" if training_args.fp16 else model_args.dtype
        if model_args.use_peft:
            values |= {argument: getattr(model_args, argument) for argument in LORA}
        plain = {argument: getattr(value, "value", value) for argument, value in values.items()}
        record = RunRecord(
            objective=objective,
            corpora=[record_corpus(corpus, rows) for corpus, rows in corpora],
            # A zero is a setting too, and equals `False`.
            recipe={
                argument: value
                for argument, value in plain.items()
                if value is not None and (value is not False or argument in recipe) and value != {}
            },
            hardware=describe_hardware(training_args.device, training_args.world_size),
            packages={package: metadata.version(package) for package in PACKAGES},
        )
        name, revision = model_args.model_name_or_path, model_args.model_revision
        if name is None:
            return cls([record])
        with naming_damaged_files(name):
            config = AutoConfig.from_pretrained(name, revision=revision)
        record.base_model = Reference.to(name, getattr(config, "_commit_hash", None))
        return cls([*read_run_records(name, revision), record])

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.seconds + (0.0 if self._part_started is None else time.monotonic() - self._part_started)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        saved = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.started_at, self.seconds = saved["started_at"], saved["seconds"]
        if self.records and saved["fingerprints"] != self._fingerprints():
            raise ValueError("The training data is not that of the checkpoint: it has changed. Start a new run.")
        for record in self.records[-1:]:
            parts = [Hardware(**part) for part in saved.get("hardware", [])]
            record.earlier_hardware = [part for part in parts if part != record.hardware]
        begun = datetime.fromtimestamp(self.started_at)
        args.run_name = args.run_name or f"{Path(args.output_dir).name}-{begun:%Y-%m-%d-%H-%M-%S}"
        self._part_started = time.monotonic()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.seconds, self._part_started = self.elapsed, None

    def state(self) -> dict[str, Any]:
        attributes = {"started_at": self.started_at, "seconds": self.elapsed, "fingerprints": self._fingerprints()}
        attributes["num_processes"] = PartialState().num_processes
        for record in self.records[-1:]:
            parts = [*record.earlier_hardware, record.hardware]
            attributes["hardware"] = [asdict(part) for part in parts if part is not None]
        return {"args": {}, "attributes": attributes}

    def _fingerprints(self) -> list[str | None]:
        return [corpus.fingerprint for record in self.records[-1:] for corpus in record.corpora]


def save_records(recorder: RunRecorder, trainer: Trainer, validation: dict[str, str]) -> None:
    r"""
    Add the measurements to the last record, write the records to the output folder, and print those on held-out data.

    Args:
        recorder ([`RunRecorder`]):
            A callback of the trainer.
        trainer ([`~transformers.Trainer`]):
            The trainer, after training and evaluation.
        validation (`dict[str, str]`):
            The measurements on held-out data, and their names in the logs. Shares have names that end in `(%)`.
    """
    record, state, output_dir = recorder.records[-1], trainer.state, Path(trainer.args.output_dir)
    record.num_steps, record.num_tokens = state.global_step, state.num_input_tokens_seen
    record.seconds = recorder.elapsed
    if "context_length" in record.recipe:
        slots = record.recipe["context_length"] * record.recipe["batch_size"] * state.global_step
        record.padding = 1 - state.num_input_tokens_seen / slots
    speeds = [log for log in state.log_history if "tokens_per_second" in log]
    if speeds:
        record.tokens_per_second = statistics.median(log["tokens_per_second"] for log in speeds)
        record.mfu = statistics.median(log["mfu"] for log in speeds) / 100
    for name, key in validation.items():
        scale = 100 if name.endswith("(%)") else 1
        evaluations = [log for log in state.log_history if key in log]
        first, last = scale * evaluations[0][key], scale * evaluations[-1][key]
        record.validation[name] = [first, last]
        record.validation_steps = [evaluations[0]["step"], evaluations[-1]["step"]]
        start = f"{first:.3f} at first, " if record.validation_steps[0] < record.validation_steps[1] else ""
        print(f"{name.capitalize()}: {start}{last:.3f} after training.")
    record.emissions = read_emissions(output_dir, recorder.started_at)
    save_run_records(recorder.records, output_dir)


def save_training_curve(state: TrainerState, path: Path) -> None:
    """Plot the training loss, the validation loss and the learning rate over the steps, if matplotlib is installed."""
    if not is_matplotlib_available():
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.subplots()
    rates = losses.twinx()
    keys = dict.fromkeys(key for log in state.log_history for key in log)
    held_out = [key for key in keys if key.startswith("eval_") and key.endswith("loss")]
    names = [" ".join(["validation", *key.split("_")[1:-1]]) for key in held_out]
    for axes, key, style in (
        (losses, "loss", {"label": "training"}),
        *((losses, key, {"label": label, "marker": "o"}) for key, label in zip(held_out, names, strict=True)),
        (rates, "learning_rate", {"color": "grey", "linewidth": 0.8}),
    ):
        logs = [log for log in state.log_history if key in log]
        axes.plot([log["step"] for log in logs], [log[key] for log in logs], **style)
    losses.set(xlabel="step", ylabel="loss (nats per token)")
    losses.legend(loc="upper left", bbox_to_anchor=(0.0, 1.1), ncols=1 + len(held_out), frameon=False)
    rates.set_ylabel("learning rate", color="grey")
    figure.savefig(path, dpi=150)


def energy_callbacks(training_args: TrainingArguments) -> list[TrainerCallback]:
    """The callback that measures energy, if codecarbon is installed and `report_to` does not name it already."""
    wanted = is_codecarbon_available() and "codecarbon" not in training_args.report_to
    return [CodeCarbonCallback()] if wanted else []


def read_emissions(output_dir: Path, started_at: float) -> Emissions | None:
    """Sum up codecarbon's measurements of the parts of a run: its file has a row for each part that was not killed.
    Rows from before `started_at`, in seconds since the epoch, are of other runs."""
    path = output_dir / "emissions.csv"
    if not path.is_file():
        return None
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if datetime.fromisoformat(row["timestamp"]).timestamp() >= started_at]
    if not rows:
        return None
    energy, co2, seconds = (
        sum(float(row[column]) for row in rows) for column in ("energy_consumed", "emissions", "duration")
    )
    return Emissions(energy, co2, sorted({row["country_name"] for row in rows}), seconds)


def record_corpus(corpus: CorpusConfig, rows: Dataset | IterableDataset) -> CorpusRecord:
    """Record a dataset that a run is trained on. Of a stream, the record has neither size nor fingerprint."""
    record = CorpusRecord(_source(corpus), corpus.name, corpus.split, corpus.weight)
    if corpus.modality != "speech":
        record.modality = corpus.modality
    card = read_card(corpus.path, corpus.revision)
    if corpus.modality != "text" and isinstance(card.get("codec"), str):
        record.codec = card["codec"]
    if Path(corpus.path).is_dir() and isinstance(card.get("pretty_name"), str):
        record.source.name = card["pretty_name"]
    if isinstance(rows, Dataset):
        record.num_rows = len(rows)
        record.fingerprint, record.num_units = fingerprint_rows(rows)
    return record


def fingerprint_rows(rows: Dataset) -> tuple[str, int | None]:
    """SHA-256 of a dataset's columns of strings, or of lists of integers or of words, which does not depend on the
    files they are stored in, and the number of units, if there are any."""
    hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in sorted(rows.column_names)}
    num_units = 0
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        for name, (lengths, values) in hashes.items():
            column = batch[name].combine_chunks()
            if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                flat = column.flatten()
                lengths.update(pc.list_value_length(column).cast(pa.int32()).to_numpy().tobytes())
                if pa.types.is_struct(flat.type):
                    values.update(json.dumps(flat.to_pylist()).encode())
                    continue
                num_units += len(flat) if name != "durations" else 0
                values.update(flat.cast(pa.uint32()).to_numpy().tobytes())
            else:
                lengths.update(pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes())
                values.update("".join(column.to_pylist()).encode())
    digests = b"".join(hash.digest() for pair in hashes.values() for hash in pair)
    return hashlib.sha256(digests).hexdigest(), num_units or None


def _source(corpus: CorpusConfig) -> Reference:
    source = Reference.to(corpus.path, corpus.revision)
    if "/" not in corpus.path:  # a builder, such as "parquet", with the user's `data_files`
        source.is_local = True
    if not source.is_local and not HF_HUB_OFFLINE:
        # Without a connection, `load_dataset` has used its cache, which does not store the revision.
        with suppress(HTTPError):
            source.revision = HfApi().dataset_info(corpus.path, revision=corpus.revision).sha
    return source
