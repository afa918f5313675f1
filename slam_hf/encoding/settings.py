"""What a job depends on, kept beside its output so that it is never continued with anything else."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .atomic_write import atomic_write
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
    r"""
    Write the settings of a split's tokenisation to its folder, or check that they are those that it was begun with.

    Args:
        folder (`Path`):
            Folder with the state of the split's tokenisation, beside those of the other splits.
        settings (`dict`):
            From [`make_settings`].

    Raises:
        ValueError: the split was begun with other settings, or another split with another codec.
    """
    settings = json.loads(json.dumps(settings))
    for path in sorted(folder.parent.glob("*/settings.json")):
        earlier = read_state(path, settings.keys())
        if path.parent == folder:
            changes = list_changes(earlier, settings)
        else:
            changes = list_changes({"codec": earlier["codec"]}, {"codec": settings["codec"]})
        if changes:
            raise ValueError(
                f"'{path.parent}' holds a tokenisation that was begun with other settings. "
                "Use those to continue it, or write to another folder:\n" + "\n".join(changes)
            )
    atomic_write(folder / "settings.json", json.dumps(settings, indent=2).encode())


def job_name(settings: dict[str, Any]) -> str:
    """The name of a job for its [`Ledger`]: a hash of its settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_state(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    r"""
    Read a JSON file of a job's state.

    Args:
        path (`Path`):
            The file.
        keys (iterable of `str`):
            What it must have.

    Returns:
        `dict`: the content.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        state = json.loads(path.read_bytes())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged ({error}). Remove it and start the same command again.") from error
    if not isinstance(state, dict) or not set(keys) <= state.keys():
        raise ValueError(
            f"'{path}' is damaged (it should have {', '.join(keys)}). Remove it and start the same command again."
        )
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
