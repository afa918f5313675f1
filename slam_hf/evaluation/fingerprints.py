"""What tells whether two evaluations used the same models, data and code."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import slam_hf

from ..encoding.codec_identity import update_with_tensors
from ..quickstart import name_path


def describe_model(model: PreTrainedModel) -> dict[str, str | None]:
    """A model's repository and revision, or the name of its folder, and the hash of its configuration and weights."""
    revision = getattr(model.config, "_commit_hash", None)
    name = model.name_or_path if revision is not None else Path(model.name_or_path).name
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
