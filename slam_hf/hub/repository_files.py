"""Which files of a folder belong in a repository, whether they are what their names say, and how they get there."""

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from huggingface_hub import DatasetCard

from ..checkpoint_files import WEIGHTS_INDEX, check_content, read_json, require_files, weight_names


MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "processor_config.json",
)
CODEC_FILES = ("config.json",)
OPTIONAL_FILES = ("preprocessor_config.json", "training_run.json", "training_curve.png", "continuation.wav")


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
    require_files(folder, ["config.json"], "Name the folder of a model or of a codec.")
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type == "hubert_unit_codec":
        required = CODEC_FILES
    elif model_type == "speech_language_model":
        required = MODEL_FILES
        require_files(folder, required, "`hub_scripts/convert_checkpoint.py` completes such a folder.")
    else:
        raise ValueError(
            f"'{folder}' holds a model of type {model_type!r} (in config.json), neither a SpeechLM nor a unit codec."
        )
    weights = weight_names(folder)
    require_files(folder, weights, "`save_pretrained` of the model writes safetensors.")
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
    require_files(corpus, ["README.md"], "`tokenize_corpus.py` writes the card.")
    stage([corpus / "README.md"], folder)
    try:
        splits = DatasetCard.load(folder / "README.md").data["dataset_info"]["splits"]
        num_rows = {str(split["name"]): split["num_examples"] for split in splits}
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
            raise ValueError(f"'{corpus}': the split {split} has {found:,} rows and its card says {expected}.")
        if with_reports:
            stage([corpus / "skipped" / f"{split}.jsonl"], folder / "skipped")
            report = folder / "skipped" / f"{split}.jsonl"
            text = re.sub(r"(?<![\w.])/(?:[^/\s'\"]+/)+", "", report.read_text("utf-8"))  # details that name a path
            report.write_text(text, encoding="utf-8")
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
        check_content(folder / file.name, file)


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
