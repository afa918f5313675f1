"""Which checkpoint a run goes on from."""

import json
from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints


LATEST = "latest"

RANDOM_STATE = "rng_state.pth"
"""What a single process calls its random state; several have a number in the name."""


def checkpoint_to_resume(training_args: TrainingArguments) -> str | None:
    r"""
    The folder to resume from: as `resume_from_checkpoint` says, where `"latest"` is the newest complete checkpoint in
    the output folder, or none if there is none yet. So one command both starts a run and goes on with it.

    Args:
        training_args ([`~transformers.TrainingArguments`]):
            The arguments of the run.

    Raises:
        ValueError: the checkpoints there are of another number of processes.
    """
    if training_args.resume_from_checkpoint != LATEST:
        return training_args.resume_from_checkpoint
    output_dir = Path(training_args.output_dir)
    if not output_dir.is_dir():
        return None
    world_size = training_args.world_size
    checkpoints = [Path(folder) for folder in sort_checkpoints(str(output_dir), PREFIX_CHECKPOINT_DIR)]
    complete = [folder for folder in checkpoints if is_complete(folder, world_size)]
    if complete:
        return str(complete[-1])
    for folder in reversed(checkpoints):
        # A single process names its random state otherwise, so one of several is a checkpoint that was cut short.
        saved = num_random_states(folder)
        if has_state(folder) and (saved > 1 or (folder / RANDOM_STATE).is_file()):
            raise ValueError(
                f"{folder} has the random states of {saved} processes, and this run has {world_size}: a run goes on "
                f"exactly with as many as it began with. Start {saved}, or give `resume_from_checkpoint: {folder}` to "
                "go on with other batches, or another `output_dir` to begin anew."
            )
    return None


def is_complete(checkpoint: Path, world_size: int) -> bool:
    r"""
    Whether a checkpoint was written to its end, by so many processes. The Trainer does not write one at a stroke, and
    a run may be killed at any moment: the state of the trainer comes last on the main process, the random state on
    the others.

    Args:
        checkpoint (`Path`):
            The folder.
        world_size (`int`):
            Number of processes of the run.
    """
    alone = (checkpoint / RANDOM_STATE).is_file()
    return alone == (world_size == 1) and num_random_states(checkpoint) == world_size and has_state(checkpoint)


def num_random_states(checkpoint: Path) -> int:
    """Of how many processes a checkpoint has the random state."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def has_state(checkpoint: Path) -> bool:
    """Whether a checkpoint has the state of the trainer, whole."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
