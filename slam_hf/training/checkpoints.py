"""Complete checkpoints: which one a run resumes from, and how it is known that nothing in it is missing or changed."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from ..encoding.atomic_write import atomic_write


LATEST = "latest"

CHECKSUMS_NAME = "checksums.json"

RANDOM_STATE = "rng_state.pth"
"""The file with the random state of a single process. Several processes write one each, numbered."""


class CutShortError(ValueError):
    """A checkpoint whose writing was interrupted, as happens to a run that is killed."""


class ChecksumCallback(TrainerCallback):
    """Writes the SHA-256 of every file of a checkpoint into it, when all processes have written theirs."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            checksums = dict(zip(names, _hash_files([folder / name for name in names]), strict=True))
            atomic_write(folder / CHECKSUMS_NAME, json.dumps(checksums, indent=2).encode())


def train_or_resume(trainer: Trainer) -> None:
    """Train, from the checkpoint that [`checkpoint_to_resume`] finds if there is one."""
    checkpoint = checkpoint_to_resume(trainer.args)
    if checkpoint is not None:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
        if isinstance(trainer.model, PreTrainedModel):
            # Tied weights are saved once: the Trainer need not warn that the others are missing.
            trainer.model._keys_to_ignore_on_save.update(trainer.model.all_tied_weights_keys)
    trainer.train(resume_from_checkpoint=checkpoint)


def checkpoint_to_resume(training_args: TrainingArguments) -> str | None:
    r"""
    Find the folder to resume from, as `resume_from_checkpoint` says. `"latest"` (or `true`) is the newest complete
    checkpoint in the output folder, or none if there is none yet, so that one command both starts and continues a run.
    The main process searches and prints a line for each checkpoint that it passes over.

    Args:
        training_args ([`~transformers.TrainingArguments`]):
            The arguments of the run.

    Returns:
        `str`, *optional*: the folder.

    Raises:
        ValueError: there are checkpoints, but only ones that were damaged, that hold the model alone or that another
            number of processes wrote.
    """
    folder = _find_checkpoint(training_args) if training_args.process_index == 0 else None
    return broadcast_object_list([folder])[0]


def _find_checkpoint(training_args: TrainingArguments) -> str | None:
    wanted = training_args.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if not wants_latest(training_args):
        if Path(wanted).is_dir():
            check_checkpoint(Path(wanted), training_args.world_size, same_processes=False)
        return wanted
    checkpoints = [Path(folder) for folder in sort_checkpoints(training_args.output_dir)]
    checkpoints = [folder for folder in checkpoints if folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-").isdigit()]
    refusal = None
    for folder in reversed(checkpoints):
        try:
            check_checkpoint(folder, training_args.world_size)
            return str(folder)
        except ValueError as error:
            print(f"Passed over: {error}")
            if not isinstance(error, CutShortError):
                refusal = refusal or error
    if refusal is not None:
        raise ValueError(f"There is no checkpoint to resume from. {refusal}")
    if checkpoints:
        print("Training starts at step 0: there is no complete checkpoint.")
    return None


def wants_latest(training_args: TrainingArguments) -> bool:
    """Whether the arguments ask for the newest checkpoint, whichever that is."""
    return str(training_args.resume_from_checkpoint).lower() in (LATEST, "true")


def check_checkpoint(checkpoint: Path, world_size: int, same_processes: bool = True) -> None:
    r"""
    Check that a checkpoint is complete. The Trainer does not write one at a stroke, and a run may be killed at any
    moment: the main process writes the state of the trainer last, the others their random states.

    Args:
        checkpoint (`Path`):
            The folder.
        world_size (`int`):
            Number of processes of the run.
        same_processes (`bool`, *optional*, defaults to `True`):
            Whether that many processes must have written it.

    Raises:
        CutShortError: the run was killed while it wrote the checkpoint.
        ValueError: it holds the model alone, a file is missing or has changed, or another number of processes wrote
            it. The message names the file.
    """
    checksums = _read_object(checkpoint / CHECKSUMS_NAME)
    if checksums is None and (checkpoint / CHECKSUMS_NAME).exists():
        raise ValueError(f"'{checkpoint / CHECKSUMS_NAME}' is damaged.")
    paths = [checkpoint / name for name in checksums or ()]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"'{path}' is missing, though it was saved with the checkpoint.")
    for path, now, saved in zip(paths, _hash_files(paths), (checksums or {}).values(), strict=True):
        if now != saved:
            raise ValueError(f"'{path}' is damaged, or is not the file that was saved with the checkpoint.")

    state = _read_object(checkpoint / TRAINER_STATE_NAME)
    if state is None:
        raise CutShortError(f"'{checkpoint / TRAINER_STATE_NAME}' is missing or cut short.")
    step = checkpoint.name.rpartition("-")[2]
    if step.isdigit() and state.get("global_step") != int(step):
        raise ValueError(f"'{checkpoint / TRAINER_STATE_NAME}' is of another step, {state.get('global_step')}.")
    saved = len(list(checkpoint.glob("rng_state*.pth")))
    if saved == 0:
        raise ValueError(
            f"'{checkpoint}' holds the model alone (`save_only_model`), without the optimizer that a run needs to "
            f"continue. Start a new run from it: `model_name_or_path: {checkpoint}` and another `output_dir`."
        )
    if saved == 1 and not (checkpoint / RANDOM_STATE).is_file():
        raise CutShortError(f"'{checkpoint}' has the random state of one process of several.")
    if same_processes and saved != world_size:
        raise ValueError(
            f"'{checkpoint}' has the random states of {saved} processes, and this run has {world_size}: a run "
            f"continues exactly with as many as it began with. Start {saved}, or give `resume_from_checkpoint: "
            f"{checkpoint}` to go on with other batches, or another `output_dir` to begin anew."
        )


def _hash_files(paths: list[Path]) -> list[str]:
    def hash_file(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as threads:
        return list(threads.map(hash_file, paths))


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, or `None` where the file is missing or cut short."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
