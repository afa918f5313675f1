"""What tells whether two evaluations used the same models, data and code."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

import slam_hf

from ..encoding.codec_identity import update_with_tensors
from ..quickstart import name_path


def describe_model(model: PreTrainedModel, name_or_path: str | None = None) -> dict[str, str | None]:
    r"""
    Describe a model for the record of an evaluation.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        name_or_path (`str`, *optional*):
            Where it is from, a Hub id or a folder. Defaults to what the model says: for a model with an adapter, that
            is its base model.

    Returns:
        `dict`: `name` (of the repository, or of the folder: a checkpoint is `run/checkpoint-5`), `revision` on the Hub
        and `weights`, the hash of configuration and weights.
    """
    name = name_or_path or model.name_or_path
    path = Path(name).resolve()
    revision = None if path.is_dir() else getattr(model.config, "_commit_hash", None)
    if revision is None:
        name = "/".join(path.parts[-2:]) if path.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-") else path.name
    return {"name": name, "revision": revision, "weights": hash_model(model)}


def name_data(folder: str) -> str:
    """The name of a benchmark's folder, and of the one that it is in: never a whole path."""
    return name_path(folder) or "/".join(Path(folder).resolve().parts[-2:])


def hash_model(model: PreTrainedModel) -> str:
    """SHA-256 of a model's configuration and weights."""
    incidental = ("transformers_version", "auto_map")
    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in incidental}
    hash = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    update_with_tensors(hash, model.state_dict())
    return hash.hexdigest()


def hash_rows(rows: Iterable[Any]) -> str:
    """SHA-256 of plain values, one JSON line each."""
    hash = hashlib.sha256()
    for row in rows:
        hash.update(json.dumps(row).encode() + b"\n")
    return hash.hexdigest()


def hash_code() -> str:
    """SHA-256 of this package's source files."""
    root = Path(slam_hf.__file__).parent
    return hash_rows([str(path.relative_to(root)), path.read_text("utf-8")] for path in sorted(root.rglob("*.py")))
