"""Sets the codec that a published processor loads: a repository on the Hub, at a commit."""

import hashlib
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HTTPError

from ..checkpoint_files import weight_files, write_json
from ..configuration_hubert_unit_codec import HubertUnitCodecConfig
from ..loading_utils import read_json
from ..processing_speech_lm import check_codec, check_codec_reference, load_tokenizer
from ..public_names import is_local
from ..quickstart import resolve_path


def pin_codec(folder: Path, codec: str | None = None) -> str | None:
    r"""
    Set the codec of a saved processor to a repository that others can load, at a fixed commit.

    Args:
        folder (`Path`):
            Folder of the model with its processor.
        codec (`str`, *optional*):
            Repository of the codec: `user/codec` or `user/codec@revision`. Defaults to the one in
            `processor_config.json`.

    Returns:
        `str`: `user/codec@commit`, or `None` if the processor has no codec.

    Raises:
        ConnectionError: the repository or the revision is not found.
        ValueError: the processor names a local folder, or the codec does not fit the model.
    """
    path = folder / "processor_config.json"
    config = read_json(path)
    named = config.get("codec")
    if named is not None:
        named = check_codec_reference(named, str(path), is_local=True)
    if codec is not None:
        name, _, revision = codec.partition("@")
    elif named is not None:
        name, revision = named["name_or_path"], named["revision"]
    else:
        return None
    if os.path.isdir(name) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"The processor names its codec by a folder, '{name}', which is not on the Hub. Publish the codec first, "
            f"`slam-hf push --folder {resolve_path(name)} --repo_id <user>/<codec>`, and then name it: "
            "`--codec <user>/<codec>`."
        )
    if codec is not None or not re.fullmatch("[0-9a-f]{40}", revision or ""):
        revision = find_commit("codec", name, revision)
        _check_units(folder, name, revision)
        if named is not None and os.path.isdir(local := resolve_path(named["name_or_path"])):
            _check_weights(Path(local), name, revision)
    config["codec"] = {"name_or_path": name, "revision": revision}
    write_json(path, config)
    return f"{name}@{revision}"


def find_commit(what: str, name: str, revision: str | None) -> str:
    """The commit of a published model at a revision, by default `main`. `what` it is goes into the `ConnectionError`
    that is raised if it is not on the Hub."""
    try:
        return HfApi().model_info(name, revision=revision or None).sha
    except HTTPError as error:
        raise ConnectionError(
            f"The {what} {name} at revision {revision or 'main'} is not on the Hub, or you may not see it "
            f"({type(error).__name__})."
        ) from None


def drop_local_codec(folder: Path) -> None:
    """Remove the path of a local codec from a saved processor: it is private, and does not exist on other machines."""
    path = folder / "processor_config.json"
    config = read_json(path)
    codec = config.get("codec") or {}
    if codec.get("revision") is None and is_local(str(codec.get("name_or_path", ""))):
        config.pop("codec", None)
        write_json(path, config)


def _check_units(folder: Path, codec: str, revision: str) -> None:
    codec_config = read_json(Path(hf_hub_download(codec, "config.json", revision=revision)))
    if codec_config.get("model_type") != "hubert_unit_codec":
        raise ValueError(f"{codec} holds a model of type {codec_config.get('model_type')!r}, not a unit codec.")
    config = HubertUnitCodecConfig.from_dict({**codec_config, "name_or_path": codec})
    check_codec(config, load_tokenizer(folder).num_units)


def _check_weights(local: Path, codec: str, revision: str) -> None:
    """A published codec must be the same as the one that the processor was saved with."""
    paths = weight_files(local)
    found = HfApi().get_paths_info(codec, [path.name for path in paths], revision=revision)
    published = {file.path: file.lfs.sha256 for file in found}
    for path in paths:
        with open(path, "rb") as file:
            if published.get(path.name) != hashlib.file_digest(file, "sha256").hexdigest():
                raise ValueError(
                    f"{codec} has other weights than '{local}', which the processor was saved with: this is not the "
                    "codec that the model was trained on."
                )
