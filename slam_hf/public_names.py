"""The names under which others may know what is on this machine: never a path."""

import os
import re
from pathlib import Path


PREFIX = "quickstart:"
"""What the names of the data that comes with the package begin with."""

_QUICKSTART = Path(__file__).parent / "quickstart"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the Hub."""
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name))


def is_local(name_or_path: str | os.PathLike) -> bool:
    """Whether a name is that of a folder or a file of this machine, and not one on the Hub or of this package."""
    name = os.fspath(name_or_path)
    is_name = is_hub_id(name) or re.fullmatch(rf"{PREFIX}[\w-]+(/[\w-][\w.-]*)*", name)
    return not is_name or os.path.exists(name)


def public_name(name_or_path: str | os.PathLike, revision: str | None = None) -> str:
    r"""
    Name a model, a dataset, a folder or a file so that the name can be published.

    Args:
        name_or_path (`str` or `os.PathLike`):
            Its id on the Hub, its path, or its name in this package.
        revision (`str`, *optional*):
            Its commit on the Hub, where it is from there: a folder of the same name does not matter then.

    Returns:
        `str`: an id on the Hub, or `quickstart:<path>` for what comes with this package, as it is. A folder or a file
        has the last part of its path, and the checkpoint of a training also the part before: `"run/checkpoint-5"`.
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
    """Raise `ValueError` for what does not have the form of a licence of the Hub, such as `"cc-by-nc-4.0"`."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
        raise ValueError(
            f"{license!r} is not a licence of the Hub: name one by its identifier, such as mit, apache-2.0, "
            "cc-by-nc-4.0 or other (https://huggingface.co/docs/hub/repositories-licenses)."
        )
