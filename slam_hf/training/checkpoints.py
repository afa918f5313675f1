"""Which checkpoint a run goes on from."""

import json
from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints


LATEST = "latest"


def checkpoint_to_resume(training_args: TrainingArguments) -> str | None:
    r"""
    The folder to resume from: as `resume_from_checkpoint` says, where `"latest"` is the newest complete checkpoint in
    the output folder, or none if there is none yet. So one command both starts a run and goes on with it.

    Args:
        training_args ([`~transformers.TrainingArguments`]):
            The arguments of the run.
    """
    if training_args.resume_from_checkpoint != LATEST:
        return training_args.resume_from_checkpoint
    output_dir = Path(training_args.output_dir)
    if not output_dir.is_dir():
        return None
    checkpoints = sort_checkpoints(str(output_dir), PREFIX_CHECKPOINT_DIR)
    complete = [folder for folder in checkpoints if is_complete(Path(folder), training_args.world_size)]
    return complete[-1] if complete else None


def is_complete(checkpoint: Path, world_size: int) -> bool:
    r"""
    Whether a checkpoint was written to its end. The Trainer does not write one at a stroke, and a run may be killed
    at any moment: the state of the trainer comes last on the main process, the random state on the others.

    Args:
        checkpoint (`Path`):
            The folder.
        world_size (`int`):
            Number of processes of the run.
    """
    random_states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    if not all((checkpoint / name).is_file() for name in [*random_states, TRAINER_STATE_NAME]):
        return False
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except json.JSONDecodeError:
        return False
    return True
