"""Selects, checks and stages the files of a folder that are published."""

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import yaml
from huggingface_hub import DatasetCard, metadata_load

from ..checkpoint_files import WEIGHTS_INDEX, check_content, require_files, weight_names
from ..loading_utils import read_json
from ..sharded_checkpoints import is_sharded


CODEC_FILES = ("config.json",)
MODEL_FILES = (
    *CODEC_FILES,
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "processor_config.json",
)
OPTIONAL_FILES = (
    "preprocessor_config.json",
    "training_run.json",
    "training_curve.png",
    "continuation.wav",
    "continuation.png",
)
CODEBOOK = "codebook.json"
"""The file beside a codec with the measures of its codebook."""


def publishable_files(folder: Path) -> list[Path]:
    r"""
    List the files of a model or a codec that belong in its repository: the weights, what is needed to load them, and
    the record of the training. Checkpoints, optimizer states, logs and any other files are left out.

    Args:
        folder (`Path`):
            Folder of a [`SpeechLMForCausalLM`] with its tokenizer and processor, or of a [`HubertUnitCodec`].

    Returns:
        `list[Path]`: the files, all directly in `folder`. [`stage`] checks their content.

    Raises:
        FileNotFoundError: files are missing; the message names them.
        ValueError: the folder holds another type of model, or a model in shards.
    """
    require_files(folder, ["config.json"], "Name the folder of a model or of a codec.")
    model_type = read_json(folder / "config.json").get("model_type")
    required = {"hubert_unit_codec": CODEC_FILES, "speech_language_model": MODEL_FILES}.get(model_type)
    if required is None:
        raise ValueError(
            f"'{folder}' holds a model of type {model_type!r} (in config.json), neither a SpeechLM nor a unit codec."
        )
    require_files(folder, required, "`slam-hf convert` completes such a folder.")
    if is_sharded(folder):
        raise ValueError(
            f"'{folder}' holds its model in shards: `slam-hf convert --source {folder}` makes a whole one, with "
            "`--output_dir` for its folder."
        )
    weights = weight_names(folder)
    require_files(folder, weights, "`save_pretrained` of the model writes safetensors.")
    optional = [name for name in (*OPTIONAL_FILES, CODEBOOK, WEIGHTS_INDEX) if os.path.lexists(folder / name)]
    return sorted(folder / name for name in (*required, *optional, *weights))


def stage_corpus(corpus: Path, folder: Path, with_reports: bool = False) -> list[str]:
    r"""
    Copy the card of a tokenised corpus, and the shards of the splits that the card names, into a folder.

    Args:
        corpus (`Path`):
            Folder of the corpus.
        folder (`Path`):
            An empty folder.
        with_reports (`bool`, *optional*, defaults to `False`):
            Whether to copy the reports of skipped recordings too.

    Returns:
        `list[str]`: patterns of the files in a repository that these shards replace.

    Raises:
        FileNotFoundError: the card or a shard is missing.
        ValueError: a file is a link or damaged, or the shards do not fit the card.
    """
    if not (corpus / "data").is_dir():
        raise FileNotFoundError(f"'{corpus}' lacks data/*.parquet, which `slam-hf tokenize` writes.")
    require_files(corpus, ["README.md"], "`slam-hf tokenize` writes the card.")
    stage([corpus / "README.md"], folder)
    try:
        splits = DatasetCard.load(folder / "README.md").data["dataset_info"]["splits"]
        num_rows = {str(split["name"]): split["num_examples"] for split in splits}
    except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"'{corpus / 'README.md'}' does not list the splits as `slam-hf tokenize` does.") from error
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
            text = re.sub(r"(?<![\w.])/(?:[^/\s'\"]+/)+", "", report.read_text("utf-8"))  # no paths of this machine
            report.write_text(text, encoding="utf-8")
    return [f"data/{split}-*" for split in num_rows]


def read_license(folder: Path) -> str | None:
    """The licence that the card in a folder names, if there is a card and it names one. `ValueError` for a damaged
    card."""
    card = folder / "README.md"
    try:
        license = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"'{card}' does not begin with metadata in YAML: {error}") from error
    return license if isinstance(license, str) else None


def staging_folder(source: str | os.PathLike | None) -> TemporaryDirectory:
    """A temporary folder beside the source if possible, so that large files can be hard links."""
    parent = None if source is None else Path(source).resolve().parent
    is_writable = parent is not None and os.access(parent, os.W_OK)
    return TemporaryDirectory(prefix=".push_to_hub-", dir=parent if is_writable else None)


def stage(files: Sequence[Path], folder: Path) -> None:
    """
    Copy files into a folder, where weights and Parquet files become hard links if possible. `ValueError` for a link,
    for what is not a regular file, and for content that does not fit the name.
    """
    folder.mkdir(exist_ok=True)
    for file in files:
        _take(file, folder / file.name)
        check_content(folder / file.name, file)


def _take(file: Path, target: Path) -> None:
    """Copy a regular file. No link is followed, even if it replaces the file at this very moment."""
    for path in (file.parent, file):
        if path.is_symlink():
            raise ValueError(f"'{path}' is a link, which may lead out of the folder: replace it with the file itself.")
    with _opened(file.parent, os.O_DIRECTORY) as parent, _opened(file.name, os.O_NONBLOCK, parent) as descriptor:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise ValueError(f"'{file}' is not a regular file.")
        if file.suffix in (".safetensors", ".parquet"):
            with suppress(OSError):  # such as: on another file system
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
