"""What of a model's or a codec's folder belongs in a repository, and whether it is all there."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "processor_config.json",
)
CODEC_FILES = ("config.json",)
OPTIONAL_FILES = ("preprocessor_config.json", "training_run.json", "training_curve.png", "continuation.wav")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    r"""
    Read a JSON object.

    Args:
        path (`Path`):
            The file.

    Returns:
        `dict`: its content.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__} in place of a JSON object.")
    return content


def weight_files(folder: Path) -> list[Path]:
    r"""
    The safetensors files of a folder, each checked to be whole.

    Args:
        folder (`Path`):
            The folder: with `model.safetensors`, or with an index and the files that it names.

    Returns:
        `list[Path]`: the files of weights.

    Raises:
        FileNotFoundError: there are no safetensors, or one that the index names is missing.
        ValueError: a file is cut short or no safetensors, or the index names a file elsewhere.
    """
    names = [WEIGHTS]
    if (folder / WEIGHTS_INDEX).is_file():
        weight_map = read_json(folder / WEIGHTS_INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"'{folder / WEIGHTS_INDEX}' has no `weight_map`.")
        names = sorted(set(map(str, weight_map.values())))
        for name in names:
            if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
                raise ValueError(f"'{folder / WEIGHTS_INDEX}' names {name!r}, which is no file of this folder.")
    paths = [folder / name for name in names]
    _require(folder, names, "`save_pretrained` of the model writes safetensors.")
    for path in paths:
        try:
            safe_open(path, framework="pt").__exit__(None, None, None)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"'{path}' is damaged or cut short: {error}.") from error
    return paths


def publishable_files(folder: Path) -> list[Path]:
    r"""
    The files of a model or a codec that belong in its repository: the weights, what loads them, and the record of the
    training. Checkpoints, optimizer states, logs and whatever else a training leaves in its folder do not.

    Args:
        folder (`Path`):
            The folder of a [`SpeechLMForCausalLM`], its tokenizer and its processor; or of a [`HubertUnitCodec`].

    Returns:
        `list[Path]`: the files, all directly in `folder`.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: the folder holds another type of model, or a file is damaged.
    """
    _require(folder, ["config.json"], "Name the folder of a model or of a codec.")
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type == "hubert_unit_codec":
        required = CODEC_FILES
    elif model_type == "speech_language_model":
        required = MODEL_FILES
        _require(folder, required, "`hub_scripts/convert_checkpoint.py` completes such a folder.")
    else:
        raise ValueError(f"'{folder}' holds a model of type {model_type!r}, neither a SpeechLM nor a unit codec.")
    weights = weight_files(folder)
    optional = [*OPTIONAL_FILES, WEIGHTS_INDEX]
    present = [folder / name for name in (*required, *optional) if (folder / name).is_file()]
    return sorted([*present, *weights])


def stage(files: list[Path], folder: Path) -> None:
    """Put files in a folder of their own: large ones as links, everything else as copies that can be changed."""
    for file in files:
        if file.suffix in (".safetensors", ".parquet"):
            os.symlink(file.resolve(), folder / file.name)
        else:
            shutil.copyfile(file, folder / file.name)


def _require(folder: Path, names: list[str] | tuple[str, ...], advice: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"'{folder}' lacks {', '.join(missing)}. {advice}")
