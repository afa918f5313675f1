"""Keeps the output folder of a training for one run with one set of settings."""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import ModelConfig

from ..atomic_write import atomic_write
from ..folder_lock import lock_folder
from ..loading_utils import read_json
from ..setting_changes import list_changes
from .arguments import PretrainArguments
from .batches import divide_batch
from .checkpoints import wanted_checkpoint, wants_latest
from .plan import batch_size
from .preferences import AlignArguments, AlignmentData
from .process_setup import uses_fsdp


SETTINGS_NAME = "training_settings.json"

CHECKPOINTS = f"{PREFIX_CHECKPOINT_DIR}-*"

# fmt: off
RESULTS = (
    SETTINGS_NAME, "training_run.json", "README.md", "training_curve.png", "continuation.wav", "continuation.png",
    "continuations", "samples", "emissions.csv", "training_args.bin", "config.json", "generation_config.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "model*.safetensors*", "evaluation",
    CHECKPOINTS,
)
# fmt: on
"""The files of a run in its output folder."""

# fmt: off
INCIDENTAL = (
    "activation_checkpointing", "batch_eval", "dataloader_num_workers", "dataloader_persistent",
    "dataloader_pin_memory", "dataloader_prefetch", "ddp_", "debug", "disable_tqdm", "do_", "enable_jit", "eval_",
    "gradient_accumulation_steps", "gradient_checkpointing", "hub_", "include_for_metrics", "judge_parallel",
    "judge_timeout", "judge_url", "local_rank", "log", "output_dir", "overwrite_output_dir", "per_device",
    "precompute_ref_batch_size", "prediction_loss_only", "price", "project", "push_to_hub", "report_to",
    "resume_from_checkpoint", "run_name", "sample_steps", "save_", "skip_memory", "steps_per_generation",
    "torch_empty_cache", "trackio", "use_cpu",
)
# fmt: on
"""Prefixes of the arguments that have no effect on the trained weights, or only by the size of the batch or of what is
generated together, which are settings."""

DIVIDED = (PretrainArguments, AlignArguments)
"""The trainings whose batch is divided anew among another number of processes."""

NOTED_LATER = ("batch_size", "dataset_num_proc")
"""Settings that earlier versions did not note, whatever they were."""

AFTER_PRETRAINING = ("asr_model", "benchmarks", "prompt")
"""Arguments of a pretraining that are used after it."""


def make_settings(
    args: PretrainArguments | AlignmentData, training_args: TrainingArguments, model_args: ModelConfig
) -> dict[str, Any]:
    """The arguments of a script that have an effect on the trained weights."""
    settings = asdict(args) | training_args.to_dict() | asdict(model_args)
    settings["batch_size"] = settings.get("batch_size") or batch_size(training_args)
    if isinstance(args, PretrainArguments):
        settings = {name: value for name, value in settings.items() if name not in AFTER_PRETRAINING}
    settings = {name: value for name, value in settings.items() if not name.startswith(INCIDENTAL)}
    return json.loads(json.dumps(settings, default=str))


def make_defaults(
    settings: dict[str, Any], args: PretrainArguments | AlignmentData, *libraries: TrainingArguments | ModelConfig
) -> dict[str, Any]:
    """What a run of an earlier version, which did not have a setting, is taken to have: the default of the setting."""
    defaults = {
        argument.name: argument.default if argument.default_factory is MISSING else argument.default_factory()
        for part in (args, *libraries)
        for argument in fields(part)
    }
    defaults = {name: settings[name] if name in NOTED_LATER else defaults.get(name) for name in settings}
    return json.loads(json.dumps(defaults, default=str))


@contextmanager
def claim_output_dir(
    args: PretrainArguments | AlignmentData, training_args: TrainingArguments, model_args: ModelConfig
) -> Iterator[None]:
    """
    Claim the output folder for a run: the main process locks it and writes the settings of the run to it. With
    `save_on_each_node`, the main process of each machine does so. With
    `overwrite_output_dir`, it deletes the files of another run or of a finished one. At the end of the `with` block it
    adds that the run is finished. A resumed run keeps the batch that it was begun with, which is divided among the
    processes. That of an online alignment is not: there, other arguments depend on it.

    Raises:
        FolderInUseError: another process is using the folder.
        ValueError: the folder holds a run with other settings, a finished run, or a run that is not resumed; or the
            batch cannot be divided.
    """
    _check_machines(training_args)
    if not training_args.should_save:
        _set_batch(args, training_args, None)
        yield
        return
    with lock_folder(training_args.output_dir):
        settings = make_settings(args, training_args, model_args)
        keeps_batch = isinstance(args, DIVIDED) and getattr(args, "batch_size", None) is None
        defaults = make_defaults(settings, args, training_args, model_args)
        _note_settings(settings, defaults, training_args, args.overwrite_output_dir, keeps_batch)
        _set_batch(args, training_args, settings["batch_size"])
        yield
        _write(Path(training_args.output_dir), settings, finished=True)


def _check_machines(training_args: TrainingArguments) -> None:
    """Check that the machines share the output folder, or with `save_on_each_node`, that they do not."""
    if training_args.world_size == 1:
        return
    folder, is_main = Path(training_args.output_dir), training_args.process_index == 0
    (mark,) = broadcast_object_list([f".{uuid.uuid4().hex}"])
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / mark).touch()
    PartialState().wait_for_everyone()
    num_machines = sum(gather_object([training_args.local_process_index == 0]))
    is_shared = all(gather_object([(folder / mark).exists()]))
    if is_main:
        (folder / mark).unlink()
    if not is_shared and uses_fsdp(training_args):
        raise ValueError(f"FSDP needs an `output_dir` that all machines share, and some do not see '{folder}'.")
    if not is_shared and not training_args.save_on_each_node:
        raise ValueError(
            f"Some machines do not see the output folder '{folder}': give a folder that all share, or "
            "`save_on_each_node: true`, and each machine keeps its own checkpoints."
        )
    if is_shared and num_machines > 1 and training_args.save_on_each_node:
        raise ValueError(f"All machines share '{folder}', and would write the same files: no `save_on_each_node`.")


def _set_batch(
    args: PretrainArguments | AlignmentData, training_args: TrainingArguments, num_sequences: int | None
) -> None:
    """Divide the batch that the main process knows among the processes."""
    (num_sequences,) = broadcast_object_list([num_sequences])
    if isinstance(args, DIVIDED):
        divide_batch(training_args, num_sequences, with_gaps=isinstance(args, PretrainArguments))
    if isinstance(args, PretrainArguments):
        args.batch_size = num_sequences


def _note_settings(
    settings: dict[str, Any],
    defaults: dict[str, Any],
    training_args: TrainingArguments,
    overwrite: bool,
    keeps_batch: bool,
) -> None:
    folder = Path(training_args.output_dir)
    resumes = wanted_checkpoint(training_args)
    checkpoint = None if resumes is None or wants_latest(training_args) else Path(resumes)
    noted = _read(folder, defaults)
    begun = noted if checkpoint is None else _read(checkpoint.parent, defaults)
    could_resume = any(folder.glob(CHECKPOINTS)) and not overwrite
    if keeps_batch and begun is not None and (resumes or could_resume):
        # The number of processes may have changed, and with it what the arguments of the trainer give.
        kept = settings | {"batch_size": begun["settings"].get("batch_size")}
        settings.update(kept if kept == begun["settings"] else {})
    if overwrite and checkpoint is not None:
        raise ValueError(
            "`overwrite_output_dir` deletes checkpoints: leave out `resume_from_checkpoint`, or set it to `latest`."
        )
    if overwrite and not (resumes and noted == {"finished": False, "settings": settings}):  # except its own run
        for path in _results(folder):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        noted = None
    otherwise = "Give another `output_dir`, or `overwrite_output_dir: true` to delete what is there"
    if noted is None and (results := _results(folder)):
        raise ValueError(f"'{folder}' already holds '{results[0].name}', which is not of this run. {otherwise}.")
    is_finished = noted is not None and noted["finished"]
    has_checkpoints = any(folder.glob(CHECKPOINTS))
    changes = [] if begun is None else list_changes(begun["settings"], settings)
    if any(change.startswith("  batch_size") for change in changes):
        factors = "`per_device_train_batch_size`, `gradient_accumulation_steps` and the number of processes"
        otherwise = f"`batch_size` is the product of {factors}. {otherwise}"
    if changes and (is_finished or has_checkpoints or checkpoint is not None):
        raise ValueError(
            f"'{checkpoint or folder}' is of a run with other settings. Use the same settings to continue it. "
            f"{otherwise}:\n" + "\n".join(changes)
        )
    if is_finished:
        raise ValueError(f"The run in '{folder}' has these settings and is finished. {otherwise}.")
    if has_checkpoints and not resumes:
        advice = "continue it with `resume_from_checkpoint: latest`"
        if not any(folder.glob(f"{CHECKPOINTS}/rng_state*")):
            advice = "they hold only the model (`save_only_model`), so that it cannot continue"
        raise ValueError(f"'{folder}' holds checkpoints of an interrupted run: {advice}. {otherwise}.")
    _write(folder, settings, finished=False)


def _results(folder: Path) -> list[Path]:
    return [path for name in RESULTS for path in sorted(folder.glob(name))]


def _read(folder: Path, defaults: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / SETTINGS_NAME
    if not path.is_file():
        return None
    try:
        noted = read_json(path)
        settings = dict(noted["settings"])
        if "batch_size" not in settings and "per_device_train_batch_size" in settings:  # of an earlier version
            states = Counter(state.parent for state in folder.glob(f"{CHECKPOINTS}/rng_state*"))
            per_process = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
            settings["batch_size"] = per_process * max(states.values(), default=1)
        settings = {name: value for name, value in settings.items() if not name.startswith(INCIDENTAL)}
        return {"settings": defaults | settings, "finished": bool(noted["finished"])}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"'{path}' is damaged. Give another `output_dir`.") from None


def _write(folder: Path, settings: dict[str, Any], finished: bool) -> None:
    content = {"finished": finished, "settings": settings}
    atomic_write(folder / SETTINGS_NAME, (json.dumps(content, indent=2) + "\n").encode())
