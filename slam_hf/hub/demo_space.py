"""Makes the Space of a model: a page in which anyone can hear it."""

import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from ..public_names import check_license
from .codec_reference import find_commit
from .markdown import TEMPLATES, Markdown
from .remote_code import PACKAGE


CARRIED = ("**/*.py", "hub/templates/*", "demo/*.*", "quickstart/prompt.flac")
"""The files of this package that a Space carries: its code, and the example recording."""


def demo_space(
    model: str,
    output_dir: str | os.PathLike,
    repo_id: str,
    codec: str | None = None,
    requirement: str | None = None,
    license: str | None = None,
) -> Path:
    r"""
    Write the folder of a model's Space: an app of a few lines, its requirements in the versions that are installed
    here, and the code of this package.

    Args:
        model (`str`):
            Repository of the model: `user/model` or `user/model@revision`. The Space loads it at this commit.
        output_dir (`str` or `os.PathLike`):
            The folder to write.
        repo_id (`str`):
            The Space that it is published to.
        codec (`str`, *optional*):
            Repository of the codec, `user/codec`, for a model that does not name one.
        requirement (`str`, *optional*):
            What to install this package from, such as `slam-hf @ git+https://github.com/user/slam-hf`. By default, the
            Space carries its code.
        license (`str`, *optional*, defaults to `"mit"`):
            Licence of the Space, as an identifier of the Hub.

    Returns:
        `Path` of the folder.

    Raises:
        ConnectionError: the model is not on the Hub.
        ImportError: gradio is not installed, so that there is no version to pin.
        ValueError: a name, the requirement or the licence is not valid.
    """
    check_license(license)
    name, _, revision = model.partition("@")
    for named in (name, codec):
        if named is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", named):
            raise ValueError(
                f"'{named}' is not the name of a repository, `user/name`. A Space loads what is on the Hub: publish "
                "it first, `slam-hf push --folder`."
            )
    commit = find_commit("model", name, revision)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    requirements = [] if requirement is None else [_check_requirement(requirement)]
    requirements += pinned_requirements()
    if requirement is None:
        _carry_code(folder / PACKAGE.name)
    values = {
        "title": repo_id.split("/")[-1],
        "model": name,
        "commit": commit,
        "codec": codec,
        "license": license or "mit",
        "gradio": _version("gradio"),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    for template, file in (("demo_app.py.jinja", "app.py"), ("demo_space.md", "README.md")):
        content = TEMPLATES.get_template(template).render(
            {key: value and Markdown(value) for key, value in values.items()}
        )
        (folder / file).write_text(content, encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    return folder


def pinned_requirements() -> list[str]:
    """The requirements of this package and of its page, in the versions that are installed."""
    try:
        named = [Requirement(line) for line in requires("slam-hf") or []]
    except PackageNotFoundError as error:
        raise ImportError(
            "slam-hf is not installed, so that its requirements are not known: pip install -e ."
        ) from error
    wanted = [one.name for one in named if one.marker is None or one.marker.evaluate({"extra": "demo"})]
    return [f"{name}=={_version(name)}" for name in sorted({*wanted, "gradio"}, key=str.lower)]


def _version(name: str) -> str:
    """The installed version of a package, as PyPI has it: without the build, such as `+cpu`."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError as error:
        raise ImportError(
            f'A Space needs {name}, at the version that works here: pip install "slam-hf[demo]".'
        ) from error


def _check_requirement(text: str) -> str:
    try:
        Requirement(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a requirement of pip: {str(error).splitlines()[0]}") from None
    return text


def _carry_code(folder: Path) -> None:
    for pattern in CARRIED:
        for path in PACKAGE.glob(pattern):
            target = folder / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
