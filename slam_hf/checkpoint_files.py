"""Files of checkpoints, and errors that name the one that is damaged."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open


WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
SIGNATURES = {".png": rb"\x89PNG\r\n\x1a\n", ".wav": rb"RIFF.{4}WAVE"}


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
    except (ValueError, RecursionError) as error:
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
        FileNotFoundError: there are no safetensors files, or one that the index names is missing.
        ValueError: a file is cut short or not a safetensors file, or the index names a file elsewhere.
    """
    names = weight_names(folder)
    require_files(folder, names, "`save_pretrained` of the model writes safetensors.")
    for name in names:
        check_content(folder / name)
    return [folder / name for name in names]


def weight_names(folder: Path) -> list[str]:
    """Names of the files of weights: `model.safetensors`, or those that the folder's index lists."""
    if not (folder / WEIGHTS_INDEX).is_file():
        return [WEIGHTS]
    weight_map = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"'{folder / WEIGHTS_INDEX}' has no `weight_map`.")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise ValueError(f"'{folder / WEIGHTS_INDEX}' names {name!r}, which is no file of this folder.")
    return names


def check_content(path: Path, file: Path | None = None) -> None:
    r"""
    Check that a file holds what its suffix says: JSON, safetensors, Parquet, PNG, WAV or text.

    Args:
        path (`Path`):
            The file.
        file (`Path`, *optional*):
            What to call it in the error, if that is not `path`.

    Raises:
        ValueError: it holds something else; the message names it.
    """
    try:
        match path.suffix:
            case ".json":
                content = json.loads(path.read_text("utf-8"))
                if isinstance(content, list) != (path.name == "training_run.json") or not isinstance(
                    content, list | dict
                ):
                    raise ValueError(f"it holds a {type(content).__name__}")
            case ".jsonl":
                for line in path.read_text("utf-8").split("\n"):
                    json.loads(line or "null")
            case ".safetensors":
                safe_open(path, framework="pt").__exit__(None, None, None)
            case ".parquet":
                with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
                    for _ in parquet.iter_batches():
                        pass
            case ".png" | ".wav":
                with open(path, "rb") as content:
                    if not re.match(SIGNATURES[path.suffix], content.read(16), re.DOTALL):
                        raise ValueError("its beginning is not that of such a file")
            case _:
                path.read_text("utf-8")
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, SafetensorError, OSError) as error:
        raise ValueError(f"'{file or path}' is damaged or cut short: {error}.") from error


def require_files(folder: Path, names: Iterable[str], advice: str) -> None:
    """Raise `FileNotFoundError`, with an advice, where a folder lacks files."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"'{folder}' lacks {', '.join(missing)}. {advice}")
