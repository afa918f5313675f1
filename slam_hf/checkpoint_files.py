"""Reads and checks the files of checkpoints. Errors name the file."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from .loading_utils import check_index


WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
SIGNATURES = {".png": rb"\x89PNG\r\n\x1a\n", ".wav": rb"RIFF.{4}WAVE", ".flac": b"fLaC"}

LISTS = ("training_run.json", "samples.json")
"""JSON files that hold a list, and not an object."""


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object as transformers does."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def weight_files(folder: Path) -> list[Path]:
    """
    List the safetensors files of a folder, after checking that each is there (else `FileNotFoundError`) and complete
    (else `ValueError`).
    """
    names = weight_names(folder)
    require_files(folder, names, "`save_pretrained` of the model writes safetensors.")
    for name in names:
        check_content(folder / name)
    return [folder / name for name in names]


def weight_names(folder: Path) -> list[str]:
    """
    List the names of the weight files: `model.safetensors`, or those in the folder's index; `ValueError` where it
    names a file elsewhere.
    """
    index = folder / WEIGHTS_INDEX
    return check_index(index) if index.is_file() else [WEIGHTS]


def check_content(path: Path, file: Path | None = None) -> None:
    """
    Check that the content of a file fits its suffix: JSON, safetensors, Parquet, PNG, WAV, FLAC or text. The
    `ValueError` names `file`, if that is another one.
    """
    try:
        match path.suffix:
            case ".json":
                content = json.loads(path.read_text("utf-8"))
                if isinstance(content, list) != (path.name in LISTS) or not isinstance(content, list | dict):
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
            case ".png" | ".wav" | ".flac":
                with open(path, "rb") as content:
                    if not re.match(SIGNATURES[path.suffix], content.read(16), re.DOTALL):
                        raise ValueError("it does not start like such a file")
            case _:
                path.read_text("utf-8")
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, SafetensorError, OSError) as error:
        raise ValueError(f"'{file or path}' is damaged or cut short: {error}.") from error


def require_files(folder: Path, names: Iterable[str], advice: str) -> None:
    """Raise `FileNotFoundError` if files are missing from a folder."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"'{folder}' lacks {', '.join(missing)}. {advice}")
