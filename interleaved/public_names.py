"""Names of models, datasets and folders that can be published: never a path."""

import os
import re
from pathlib import Path


PREFIX = "quickstart:"
"""Prefix of the names of data that comes with this package."""

_QUICKSTART = Path(__file__).parent / "quickstart"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the Hub."""
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name))


def is_local(name_or_path: str | os.PathLike) -> bool:
    """Whether a name is a path on this machine, and not an id on the Hub or a name in this package."""
    name = os.fspath(name_or_path)
    is_name = is_hub_id(name) or re.fullmatch(rf"{PREFIX}[\w-]+(/[\w-][\w.-]*)*", name)
    return not is_name or os.path.exists(name)


def public_name(name_or_path: str | os.PathLike, revision: str | None = None) -> str:
    """
    Make a publishable name for a model, a dataset, a folder or a file. Ids on the Hub and names in this package
    (`quickstart:<path>`) stay as they are. Of a path, the last part is returned; for checkpoints, the last two
    (`"run/checkpoint-5"`). With a revision, which is a commit on the Hub, a folder of the same name is ignored.
    """
    name = os.fspath(name_or_path)
    if not name or revision is not None or not is_local(name):
        return name
    path = Path(name).resolve()
    if path.is_relative_to(_QUICKSTART):
        return PREFIX + path.relative_to(_QUICKSTART).as_posix()
    *_, parent, last = "", *re.split(r"[\\/]", str(path))
    public = f"{parent}/{last}" if re.fullmatch(r"checkpoint-\d+", last) else last
    return re.sub(r"[^\w.@+()/ -]+", "-", public).strip("/. ") or "unnamed"


def check_license(license: str | None) -> None:
    """Raise `ValueError` if a licence does not have the form of the Hub's identifiers, such as `"cc-by-nc-4.0"`."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
        raise ValueError(
            f"{license!r} is not a licence of the Hub: name one by its identifier, such as mit, apache-2.0, "
            "cc-by-nc-4.0 or other (https://huggingface.co/docs/hub/repositories-licenses)."
        )
