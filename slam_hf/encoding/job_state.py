"""The state of a job, kept beside its output: its settings, so that no other job continues it, and its summary."""

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

import fsspec

from ..atomic_write import atomic_write
from ..folders import open_folder
from ..setting_changes import list_changes
from .codec_identity import CodecDescription
from .reading import PieceRules
from .sources import Source


Summary = TypeVar("Summary")


def make_settings(source: Source, codec: CodecDescription, rules: PieceRules) -> dict[str, Any]:
    """Everything that the rows depend on. Paths and the division of the work are not among it."""
    described = asdict(codec)
    del described["name"], described["revision"]
    return {
        "codec": described,
        "source": {**source.identity, "has_pairs": source.has_pairs, "chunk_seconds": source.chunk_seconds},
        "rules": asdict(rules),
    }


def check_unclaimed(output_dir: str | os.PathLike, state: str, results: Collection[str]) -> None:
    """Raise `FileExistsError` if a folder without the state of a job holds files that the job would replace, or be
    mixed up with: `results`, names or patterns."""
    files = open_folder(os.fspath(output_dir))
    foreign = [path for name in results for path in files.glob(name)]
    if foreign and not files.exists(state):
        raise FileExistsError(
            f"'{output_dir}' holds {foreign[0]}, which this job has not written and would replace. Choose another "
            "folder."
        )


def claim_folder(folder: str | os.PathLike, settings: dict[str, Any], job: str = "a tokenisation") -> None:
    """Write the settings of a job to the folder of its split. A `ValueError` says that the split was begun with other
    settings, or that another split, in a folder beside it, was begun with another codec."""
    parent, split = os.path.split(os.fspath(folder))
    for path in sorted(open_folder(parent).glob("*/settings.json")):
        name = path.partition("/")[0]
        if name == split:
            check_settings(f"{parent}/{name}", settings, job)
        elif "codec" in settings:
            check_settings(f"{parent}/{name}", {"codec": settings["codec"]}, job)
    atomic_write(f"{parent}/{split}/settings.json", json.dumps(settings, indent=2).encode())


def check_settings(folder: str, settings: dict[str, Any], job: str = "a tokenisation") -> None:
    """Raise `ValueError` if the job in a folder was begun with other settings than these, or by a version of this
    package that had others."""
    settings = json.loads(json.dumps(settings))
    path = f"{folder}/settings.json"
    earlier = read_state(path)
    if settings.keys().isdisjoint(earlier):
        earlier = read_state(path, settings)  # without any of the settings, the file is damaged
    if missing := sorted(settings.keys() - earlier.keys()):
        raise ValueError(
            f"'{folder}' holds {job} that another version of slam-hf has begun: its settings lack "
            f"{', '.join(missing)}. Continue it with that version, or write to another folder."
        )
    if changes := list_changes({name: earlier[name] for name in settings}, settings):
        raise ValueError(
            f"'{folder}' holds {job} that was begun with other settings. Use those to continue it, or write "
            "to another folder:\n" + "\n".join(changes)
        )


def job_name(settings: dict[str, Any]) -> str:
    """The name of a job for its [`Ledger`]: a hash of its settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_state(path: str | os.PathLike, keys: Collection[str] = ()) -> dict[str, Any]:
    """Read a JSON file of a job's state. A `ValueError` says that the file is damaged, or lacks one of the keys."""
    with fsspec.open(os.fspath(path), "rb") as file:
        content = file.read()
    try:
        state = json.loads(content)
        if not isinstance(state, dict) or not set(keys) <= state.keys():
            raise ValueError(f"expected an object{' with ' if keys else ''}{', '.join(keys)}")
    except (RecursionError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged ({error}). Remove it and start the same command again.") from error
    return state


def save_summary(folder: str, summary: Any) -> None:
    """Write the summary of a job, a dataclass, to the folder of its state: the job is finished."""
    atomic_write(f"{folder}/summary.json", json.dumps(asdict(summary), indent=2).encode())


def load_summary(folder: str, summary_class: type[Summary]) -> Summary | None:
    """Read the summary of the job whose state is in a folder, or `None` while it is not finished. A `ValueError` says
    that it is damaged."""
    if not open_folder(folder).exists("summary.json"):
        return None
    names = {field.name: field.default_factory is MISSING for field in fields(summary_class)}
    state = read_state(f"{folder}/summary.json", [name for name, is_required in names.items() if is_required])
    return summary_class(**{name: state[name] for name in names if name in state})


def check_files(output_dir: str, written: dict[str, str | None], state: str) -> None:
    """Raise a `ValueError` that names a file whose hash is not the one that it was written with. `None` stands for the
    hash of a file that the job did not write. `state` is the file with the state of the job."""
    files = open_folder(output_dir)
    for name, hash in sorted(written.items()):
        if not files.isfile(name) or hash_content(files.cat_file(name)) != hash:
            raise ValueError(
                f"'{output_dir}/{name}' is not as the job wrote it. Remove it and '{state}', and start the same "
                "command to make it again."
            )


def hash_content(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
