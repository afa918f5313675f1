"""What a job depends on, kept beside its output so that it is never continued with anything else."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic_write import atomic_write
from .codec_identity import CodecDescription
from .reading import PieceRules
from .sources import Source


def make_settings(source: Source, codec: CodecDescription, rules: PieceRules) -> dict[str, Any]:
    """Everything that the rows depend on, and so neither paths nor how the work is divided."""
    described = asdict(codec)
    del described["name"], described["revision"]
    return {
        "codec": described,
        "source": {**source.identity, "has_pairs": source.has_pairs, "chunk_seconds": source.chunk_seconds},
        "rules": asdict(rules),
    }


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a split's tokenisation to its folder. A `ValueError` says that the split was begun with
    other settings, or that another split, in a folder beside it, was begun with another codec."""
    settings = json.loads(json.dumps(settings))
    for path in sorted(folder.parent.glob("*/settings.json")):
        earlier, now = read_state(path, settings.keys()), settings
        if path.parent != folder:
            earlier, now = {"codec": earlier["codec"]}, {"codec": now["codec"]}
        if changes := list_changes(earlier, now):
            raise ValueError(
                f"'{path.parent}' holds a tokenisation that was begun with other settings. "
                "Use those to continue it, or write to another folder:\n" + "\n".join(changes)
            )
    atomic_write(folder / "settings.json", json.dumps(settings, indent=2).encode())


def job_name(settings: dict[str, Any]) -> str:
    """The name of a job for its [`Ledger`]: a hash of its settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_state(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """Read a JSON file of a job's state. A `ValueError` says that it is damaged, or lacks one of the keys."""
    try:
        state = json.loads(path.read_bytes())
        if not isinstance(state, dict) or not set(keys) <= state.keys():
            raise ValueError(f"it should have {', '.join(keys)}")
    except (RecursionError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged ({error}). Remove it and start the same command again.") from error
    return state


def list_changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each setting that differs."""
    earlier, now = _flatten(earlier), _flatten(now)
    return [
        f"  {key}: was {earlier.get(key)!r}, is now {now.get(key)!r}"
        for key in sorted(earlier.keys() | now.keys())
        if earlier.get(key) != now.get(key)
    ]


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
