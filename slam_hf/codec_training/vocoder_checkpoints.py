"""Checkpoints of a vocoder's training: everything that it continues from, in one safetensors file."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from ..atomic_write import atomic_write, remove_unfinished


KEPT = 2
"""Number of checkpoints that are kept."""

_NAME = re.compile(r"step-\d{9}-([0-9a-f]{16})\.safetensors")
"""The name has the hash of the content, which shows damage."""

_KEY = "slam_hf.vocoder_training"


@dataclass
class Progress:
    """How far a training is: steps, seconds of training, what was logged and measured so far, and the losses since the
    last log."""

    step: int = 0
    seconds: float = 0.0
    logs: list[dict[str, float]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, progress: Progress, modules: dict[str, torch.nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Write a checkpoint, and remove all but the last [`KEPT`]. A `ValueError` names weights that are not finite: then
    nothing is written."""
    tensors = {
        f"{part}.{name}": tensor for part, module in modules.items() for name, tensor in module.state_dict().items()
    }
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": tensor for key, tensor in state.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise NotFiniteError(f"{name} holds NaN or infinite numbers")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {_KEY: json.dumps(asdict(progress))})
    atomic_write(folder / f"step-{progress.step:09d}-{_hash(content)}.safetensors", content)
    remove_unfinished(folder, "step-")
    for path in list_checkpoints(folder)[:-KEPT]:
        path.unlink()


class NotFiniteError(ValueError):
    """The training has diverged."""


class DamagedError(ValueError):
    """A checkpoint is not as it was written."""


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def load_checkpoint(
    path: Path, modules: dict[str, torch.nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> Progress:
    """Continue from a checkpoint. A [`DamagedError`] says that the file is damaged, and another `ValueError` that it
    is of another version of this package."""
    content = path.read_bytes()
    if _hash(content) != _NAME.fullmatch(path.name)[1]:
        raise DamagedError(f"'{path}' is damaged: it is not as it was written.")
    try:
        return _load_states(path, content, modules, optimizers)
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"'{path}' is whole, but was written by another version of slam-hf: {error}. Continue the training with "
            "that version, or start it again in another folder."
        ) from error


def _load_states(
    path: Path,
    content: bytes,
    modules: dict[str, torch.nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> Progress:
    with safe_open(path, framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()[_KEY]))
    tensors = load(content)
    states: dict[str, dict[Any, Any]] = {name: {} for name in (*modules, *optimizers)}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        if part in optimizers:
            index, _, key = key.partition(".")
            states[part].setdefault(int(index), {})[key] = tensor
        else:
            states[part][key] = tensor
    for part, module in modules.items():
        module.load_state_dict(states[part])
    for part, optimizer in optimizers.items():
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states[part]})
    return progress


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
