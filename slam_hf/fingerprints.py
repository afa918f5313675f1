"""Names and hashes that tell whether two evaluations used the same models, data and code."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import slam_hf

from .encoding.codec_identity import update_with_tensors
from .public_names import public_name


def describe_model(model: PreTrainedModel, name_or_path: str | None = None) -> dict[str, str | None]:
    """
    Describe a model for the record of an evaluation: a `name` that can be published, the `revision` (its commit on the
    Hub) and the hash of its `weights` and configuration. The name that the model remembers, which is used by default,
    is that of the base model if it has an adapter.
    """
    name = name_or_path or model.name_or_path
    # The configuration of an adapted model, and so its commit, is that of the base model.
    is_elsewhere = os.path.isdir(name) or hasattr(model, "peft_config")
    revision = None if is_elsewhere else getattr(model.config, "_commit_hash", None)
    return {"name": public_name(name, revision), "revision": revision, "weights": hash_model(model)}


def hash_model(model: PreTrainedModel) -> str:
    """SHA-256 of a model's configuration and weights, the same for a model in memory and for its saved files."""
    incidental = ("transformers_version", "auto_map", "tokenizer_class")  # not in the files of published models
    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in incidental}
    if "base_config" in config:  # a trainer sets `use_cache`, and only `from_pretrained` sets `dtype`
        config.pop("use_cache", None)
        config["base_config"]["dtype"] = str(model.dtype).removeprefix("torch.")
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
