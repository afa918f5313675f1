"""Which files of a folder belong in a repository, whether they are what their names say, and how they get there."""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from huggingface_hub import DatasetCard
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
    names = _weight_names(folder)
    _require(folder, names, "`save_pretrained` of the model writes safetensors.")
    for name in names:
        _check_content(folder / name, folder / name)
    return [folder / name for name in names]


def publishable_files(folder: Path) -> list[Path]:
    r"""
    The files of a model or a codec that belong in its repository: the weights, what loads them, and the record of the
    training. Checkpoints, optimizer states, logs and whatever else a training leaves in its folder do not.

    Args:
        folder (`Path`):
            The folder of a [`SpeechLMForCausalLM`], its tokenizer and its processor; or of a [`HubertUnitCodec`].

    Returns:
        `list[Path]`: the files, all directly in `folder`. [`stage`] checks what they are.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: the folder holds another type of model.
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
    weights = _weight_names(folder)
    _require(folder, weights, "`save_pretrained` of the model writes safetensors.")
    optional = [name for name in (*OPTIONAL_FILES, WEIGHTS_INDEX) if os.path.lexists(folder / name)]
    return sorted(folder / name for name in (*required, *optional, *weights))


def stage_corpus(corpus: Path, folder: Path, with_reports: bool = False) -> list[str]:
    r"""
    Put the card and the shards of a tokenised corpus in a folder of their own: those of the splits that the card
    names, and nothing else.

    Args:
        corpus (`Path`):
            Folder of the corpus.
        folder (`Path`):
            An empty folder.
        with_reports (`bool`, *optional*, defaults to `False`):
            Whether the reports of what was left out go there too.

    Returns:
        `list[str]`: patterns of the files that these shards replace in a repository.

    Raises:
        FileNotFoundError: the card or a shard is missing.
        ValueError: a file is a link, damaged, or does not hold what the card says.
    """
    if not (corpus / "data").is_dir():
        raise FileNotFoundError(f"'{corpus}' lacks data/*.parquet, which `tokenize_corpus.py` writes.")
    _require(corpus, ["README.md"], "`tokenize_corpus.py` writes the card.")
    stage([corpus / "README.md"], folder)
    try:
        splits = DatasetCard.load(folder / "README.md").data["dataset_info"]["splits"]
        num_rows = {split["name"]: split["num_examples"] for split in splits}
    except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"'{corpus / 'README.md'}' does not list the splits as `tokenize_corpus.py` does.") from error
    for split, expected in num_rows.items():
        pattern = rf"{re.escape(split)}-\d{{5}}-of-\d{{5}}\.parquet"
        names = sorted(name for name in os.listdir(corpus / "data") if re.fullmatch(pattern, name))
        shards = [f"{split}-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]
        if not names or names != shards:
            raise FileNotFoundError(f"'{corpus}' lacks shards data/{split}-*.parquet: it has {names or 'none'}.")
        stage([corpus / "data" / name for name in names], folder / "data")
        found = sum(pq.read_metadata(folder / "data" / name).num_rows for name in names)
        if found != expected:
            raise ValueError(f"'{corpus}': the split {split} has {found:,} rows and its card says {expected:,}.")
        if with_reports:
            stage([corpus / "skipped" / f"{split}.jsonl"], folder / "skipped")
    return [f"data/{split}-*" for split in num_rows]


def stage(files: Sequence[Path], folder: Path) -> None:
    r"""
    Put files in a folder of their own, as copies that can be changed; large ones as hard links where that is possible.

    Args:
        files (sequence of `Path`):
            The files.
        folder (`Path`):
            Where to put them. It is created where there is none.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is a link or otherwise not a regular file, or is not what its name says.
    """
    folder.mkdir(exist_ok=True)
    for file in files:
        _take(file, folder / file.name)
        _check_content(folder / file.name, file)


def _take(file: Path, target: Path) -> None:
    """Copy or link a file that is in its folder itself: nothing here follows a link, even one that is just made."""
    for path in (file.parent, file):
        if path.is_symlink():
            raise ValueError(f"'{path}' is a link, which may lead out of the folder: put a file in its place.")
    with _opened(file.parent, os.O_DIRECTORY) as parent, _opened(file.name, os.O_NONBLOCK, parent) as descriptor:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise ValueError(f"'{file}' is not a regular file.")
        if file.suffix in (".safetensors", ".parquet"):
            with suppress(OSError):  # such as another file system
                os.link(file.name, target, src_dir_fd=parent, follow_symlinks=False)
            if os.path.lexists(target):
                if os.path.samestat(opened, target.lstat()):
                    return
                target.unlink()
        with open(descriptor, "rb", closefd=False) as source, open(target, "xb") as copy:
            shutil.copyfileobj(source, copy, 2**20)


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_content(path: Path, file: Path) -> None:
    """Check that `path`, which is or was `file`, holds what its suffix says."""
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_text("utf-8"))
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
    except (ValueError, RecursionError, SafetensorError, OSError) as error:
        raise ValueError(f"'{file}' is damaged or cut short: {error}.") from error


def _weight_names(folder: Path) -> list[str]:
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


def _require(folder: Path, names: Iterable[str], advice: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"'{folder}' lacks {', '.join(missing)}. {advice}")
