"""Names a source by plain values, so that each task of a tokenisation opens it again, on any machine."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from datasets import DatasetBuilder, load_dataset_builder

from ..processes import get_process_state
from .dataset_source import dataset_source, load_split
from .listing import list_audio_folder, list_librilight, list_librispeech
from .manifest import read_manifest
from .sources import CHUNK_SECONDS, Source, file_source


@dataclass
class SourceArguments:
    _argument_group_name = "what is tokenised"

    source: str = field(metadata={"help": "A folder, a manifest, or a dataset that `load_dataset` reads."})
    layout: Literal["folder", "librispeech", "librilight", "manifest", "dataset", "preference_pairs"] = field(
        default="folder",
        metadata={
            "help": "What the source is. `dataset` has an audio column; `preference_pairs` is a dataset with the "
            "audio columns `prompt`, `chosen` and `rejected`."
        },
    )
    audio_root: str | None = field(
        default=None, metadata={"help": "Folder of the paths in a manifest, which may not leave it. Default: its own."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the dataset."})
    data_dir: str | None = field(default=None, metadata={"help": "`data_dir` of the dataset."})
    streaming: bool = field(default=False, metadata={"help": "Read the dataset without storing it."})
    audio_column: str = field(default="audio", metadata={"help": "Column of the recordings."})
    text_column: str = field(default="text", metadata={"help": "Column of the transcripts, if there is one."})
    id_column: str | None = field(default=None, metadata={"help": "Column of the ids. Default: the rows' positions."})
    chunk_seconds: float = field(
        default=CHUNK_SECONDS,
        metadata={"help": "Audio in a chunk, in seconds. A job that is killed loses the chunks that are under way."},
    )


def open_source(args: SourceArguments) -> Source:
    match args.layout:
        case "folder":
            recordings = list_audio_folder(args.source)
        case "librispeech":
            recordings = list_librispeech(args.source)
        case "librilight":
            recordings = list_librilight(args.source)
        case "manifest":
            recordings = read_manifest(args.source, args.audio_root)
        case "dataset" | "preference_pairs":
            return open_dataset(args)
    return file_source(recordings, args.chunk_seconds)


def open_dataset(args: SourceArguments) -> Source:
    builder = load_dataset_builder(args.source, args.dataset_config, data_dir=args.data_dir)
    identity = identify_dataset(builder, args.dataset_split)
    if args.streaming:
        dataset = builder.as_streaming_dataset(args.dataset_split)
    else:
        with get_process_state().local_main_process_first():
            dataset = load_split(builder, args.dataset_split, identity)
    return dataset_source(
        dataset,
        audio_column=args.audio_column,
        id_column=args.id_column,
        text_column=args.text_column,
        has_pairs=args.layout == "preference_pairs",
        identity=identity,
        chunk_seconds=args.chunk_seconds,
    )


def identify_dataset(builder: DatasetBuilder, split: str) -> dict[str, str]:
    """The version of a dataset: the commit of its files on the Hub, or when they were changed."""
    files = builder.config.data_files
    if split not in files:
        raise ValueError(f"{builder.dataset_name} has no split {split!r}. Choose a whole one: {', '.join(files)}.")
    origins = repr(files[split].origin_metadata)
    return {
        "dataset": builder.dataset_name,
        "config": builder.config.name,
        "split": split,
        "files": hashlib.sha256(origins.encode()).hexdigest(),
    }
