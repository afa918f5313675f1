"""Finds the newest complete checkpoint of a run, and trains from it."""

import json
import math
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_jit_checkpoint import JITCheckpointCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME

from ..atomic_write import atomic_write
from ..evaluation.units import hash_files
from ..loading_utils import read_json
from ..sharded_checkpoints import INDEX_NAME, MODEL_SHARDS, OPTIMIZER_SHARDS, check_shards
from .run_recorder import RunRecorder


CHECKSUMS_NAME = "checksums.json"

RANDOM_STATE = "rng_state.pth"
"""The random state of a run of one process. Of several, each writes a numbered file."""


class CutShortError(ValueError):
    """The run was killed while it wrote the checkpoint."""


class ChecksumCallback(TrainerCallback):
    """Adds the SHA-256 of its files to each checkpoint, after all processes have written them."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs
    ) -> None:
        PartialState().wait_for_everyone()
        if args.should_save:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            save_on_other_machine(model, args, folder)
            names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            checksums = hash_files({name: folder / name for name in names})
            atomic_write(folder / CHECKSUMS_NAME, json.dumps(checksums, indent=2).encode())


def save_on_other_machine(model: nn.Module, args: TrainingArguments, folder: Path) -> None:
    """Save the model on the machines other than the first one, if each keeps its own files (`save_on_each_node`).
    transformers saves it on the first one alone."""
    if args.should_save and args.process_index > 0 and isinstance(model, PreTrainedModel):
        tied = model.all_tied_weights_keys
        weights = {name: weight for name, weight in model.state_dict().items() if name not in tied}
        save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        model.config.save_pretrained(folder)


class StopCallback(TrainerCallback):
    """On SIGTERM, ends training after the present step, with a checkpoint. All processes stop after the same step,
    where that of transformers (`JITCheckpointCallback`) lets each decide for itself."""

    def __init__(self):
        self.is_asked = self.has_stopped = False
        self.group: dist.ProcessGroup | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        signal.signal(signal.SIGTERM, self._ask)
        if args.world_size > 1:
            self.group = dist.new_group(backend="gloo")  # between the CPUs: the GPUs need not wait for it

    def _ask(self, *_: Any) -> None:
        self.is_asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        is_asked = torch.tensor(int(self.is_asked))
        if self.group is not None:
            dist.all_reduce(is_asked, dist.ReduceOp.MAX, group=self.group)
        if is_asked and not control.should_training_stop:
            control.should_save = control.should_training_stop = self.has_stopped = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def train_or_resume(trainer: Trainer) -> None:
    """Train, from the checkpoint that [`checkpoint_to_resume`] finds if there is one. New ones get checksums. With
    `enable_jit_checkpoint`, SIGTERM saves a checkpoint and ends the process with status 143."""
    checkpoint = checkpoint_to_resume(trainer.args)
    if checkpoint is not None:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
        if isinstance(trainer.model, PreTrainedModel):
            # Tied weights are saved once: the Trainer need not warn that the others are missing.
            trainer.model._keys_to_ignore_on_save.update(trainer.model.all_tied_weights_keys)
    stop = StopCallback()
    if trainer.pop_callback(JITCheckpointCallback) is not None:
        trainer.add_callback(stop)
    trainer.add_callback(ChecksumCallback)  # the last one: others add files to a checkpoint
    if trainer.args.should_save:
        _remove_unfinished(trainer.args.output_dir, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    if stop.has_stopped:
        step = trainer.state.global_step
        trainer.accelerator.print(
            f"Stopped by SIGTERM, with a checkpoint of step {step}. The same command with "
            "`--resume_from_checkpoint latest` continues."
        )
        raise SystemExit(128 + signal.SIGTERM)


def _remove_unfinished(output_dir: str, resumed: str | None) -> None:
    """Remove the later checkpoints without checksums: a run was killed while it wrote them. If this one were killed
    while it writes them again, files of both together could pass for a checkpoint."""
    state = {"global_step": 0} if resumed is None else _read_object(Path(resumed) / TRAINER_STATE_NAME) or {}
    for folder in _list_checkpoints(output_dir):
        is_later = int(folder.name.rpartition("-")[2]) > state.get("global_step", math.inf)
        if is_later and not (folder / CHECKSUMS_NAME).exists():
            shutil.rmtree(folder)


def _list_checkpoints(output_dir: str) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    folders = [Path(folder) for folder in reversed(sort_checkpoints(output_dir))]
    return [folder for folder in folders if folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-").isdigit()]


def checkpoint_to_resume(training_args: TrainingArguments) -> str | None:
    r"""
    Find the checkpoint to resume from, as `resume_from_checkpoint` says. `"latest"` (or `true`) is the newest complete
    checkpoint in the output folder, or with `save_on_each_node`, the newest that is complete on every machine. There
    may be none yet, so that one command both starts and continues a run. The main process prints a line for each
    checkpoint that is skipped.

    Raises:
        ValueError: every checkpoint is damaged or holds only the model.
    """
    wanted = wanted_checkpoint(training_args)
    if wanted is None:
        return None
    if not wants_latest(training_args):
        if Path(wanted).is_dir() and (problem := _find_problem(Path(wanted), training_args)):
            raise problem
        return wanted
    refusal = None
    (checkpoints,) = broadcast_object_list([_list_checkpoints(training_args.output_dir)])
    for folder in checkpoints:
        problem = _find_problem(folder, training_args)
        if problem is None:
            return str(folder)
        if training_args.process_index == 0:
            print(f"Skipped: {problem}")
        if not isinstance(problem, CutShortError):
            refusal = refusal or problem
    if refusal is not None:
        raise ValueError(f"There is no checkpoint to resume from. {refusal}")
    if checkpoints and training_args.process_index == 0:
        print("Training starts at step 0: there is no complete checkpoint.")
    return None


def _find_problem(checkpoint: Path, training_args: TrainingArguments) -> ValueError | None:
    """What is wrong with a checkpoint, on any machine that has a copy. If nothing is, the main process prints what is
    not the same on another number of processes."""
    problem = None
    try:
        if training_args.should_save:
            processes = check_checkpoint(checkpoint, training_args.save_on_each_node)
            world_size = training_args.world_size
            if processes != world_size and not training_args.save_on_each_node:
                print(
                    f"'{checkpoint}' is of {processes} process(es), and this run has {world_size}. It continues with "
                    "the same batches, but not bit for bit: sums are rounded in another order, and each process whose "
                    "random state is not in the checkpoint draws its random numbers, as for dropout, from the seed "
                    "anew."
                )
        state = checkpoint / f"rng_state_{training_args.process_index}.pth"
        if training_args.save_on_each_node and training_args.world_size > 1 and not state.is_file():
            raise CutShortError(
                f"'{state}' is missing on {socket.gethostname()}. With `save_on_each_node`, a run continues on the "
                "same machines in the same order (`--machine_rank`)."
            )
    except ValueError as error:
        problem = error
    return next((problem for problem in gather_object([problem]) if problem is not None), None)


def wanted_checkpoint(training_args: TrainingArguments) -> str | None:
    """What `resume_from_checkpoint` says. `false`, which replaces the value of a recipe, is `None`."""
    wanted = training_args.resume_from_checkpoint
    return None if str(wanted).lower() in ("none", "false", "") else wanted


def wants_latest(training_args: TrainingArguments) -> bool:
    """Whether the arguments ask for the newest checkpoint."""
    return str(training_args.resume_from_checkpoint).lower() in ("latest", "true")


def check_checkpoint(checkpoint: Path, on_each_node: bool = False) -> int:
    r"""
    Check that a checkpoint is complete, or with `on_each_node`, the part of it on this machine. A run may be killed
    while the Trainer writes one: the main process writes the state of the trainer last, and the other processes write
    their random states last.

    Returns:
        `int`: the number of processes that wrote it.

    Raises:
        CutShortError: the run was killed while it wrote the checkpoint.
        ValueError: a file is missing or has changed, or the checkpoint holds only the model. The message names the
            file.
    """
    checksums = _read_object(checkpoint / CHECKSUMS_NAME)
    if checksums is None and (checkpoint / CHECKSUMS_NAME).exists():
        raise ValueError(f"'{checkpoint / CHECKSUMS_NAME}' is damaged.")
    saved = {checkpoint / name: checksum for name, checksum in (checksums or {}).items()}
    for path in saved:
        if not path.is_file():
            raise ValueError(f"'{path}' is missing from the checkpoint.")
    for path, checksum in hash_files({path: path for path in saved}).items():
        if checksum != saved[path]:
            raise ValueError(f"'{path}' is damaged: it is not the file that was saved.")

    state = _read_object(checkpoint / TRAINER_STATE_NAME)
    if state is None:
        raise CutShortError(f"'{checkpoint / TRAINER_STATE_NAME}' is missing or cut short.")
    step = checkpoint.name.rpartition("-")[2]
    if step.isdigit() and state.get("global_step") != int(step):
        raise ValueError(
            f"'{checkpoint / TRAINER_STATE_NAME}' is of step {state.get('global_step')}, not of step {step}."
        )
    # Nothing in shards may be executed, wherever the Trainer looks for them.
    shards = {index.parent for index in checkpoint.rglob(INDEX_NAME)}
    shards |= {path for name in (MODEL_SHARDS, OPTIMIZER_SHARDS) if (path := checkpoint / name).is_dir()}
    for folder in sorted(shards):
        try:
            check_shards(folder)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
    processes = len(list(checkpoint.glob("rng_state*.pth")))
    if processes == 0:
        raise ValueError(
            f"'{checkpoint}' holds only the model (`save_only_model`), and a run cannot continue without the state of "
            f"the optimizer. Start a new run from it: `model_name_or_path: {checkpoint}` and another `output_dir`."
        )
    if on_each_node:
        return processes
    if processes == 1 and not (checkpoint / RANDOM_STATE).is_file():
        raise CutShortError(f"'{checkpoint}' has the random state of one process of several.")
    recorder = state.get("stateful_callbacks", {}).get(RunRecorder.__name__, {})
    written_by = recorder.get("attributes", {}).get("num_processes", processes)
    if processes < written_by:
        raise CutShortError(f"'{checkpoint}' has the random states of {processes} of {written_by} processes.")
    return written_by


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, or `None` where the file is missing or cut short."""
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None
