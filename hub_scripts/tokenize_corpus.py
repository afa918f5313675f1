r"""Tokenise recordings into a dataset of speech units.

```
accelerate launch hub_scripts/tokenize_corpus.py \
    --source LibriSpeech/train-clean-100 --layout librispeech \
    --codec path/to/codec --output_dir librispeech-units
```

Start it again with the same command to continue after an interruption. `accelerate launch` runs a process on each GPU;
for several on CPUs, use `torchrun --nproc_per_node`.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets import DatasetBuilder, load_dataset_builder

from slam_hf.atomic_write import DiskFullError
from slam_hf.command_line import parse_arguments, run
from slam_hf.corpora.dataset_card import render_dataset_card
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.dataset_source import dataset_source, load_split
from slam_hf.encoding.listing import list_audio_folder, list_librilight, list_librispeech
from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.sources import CHUNK_SECONDS, Source, file_source
from slam_hf.hub.repository_files import stage_corpus, staging_folder
from slam_hf.hub.upload import publish_folder
from slam_hf.processes import get_process_state
from slam_hf.processing_speech_lm import load_codec


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


@dataclass
class CorpusArguments:
    _argument_group_name = "how, and where to"

    codec: str = field(metadata={"help": "Folder or Hub repository of a `HubertUnitCodec`."})
    output_dir: str = field(metadata={"help": "Folder of the dataset."})
    codec_revision: str = field(default="main", metadata={"help": "Revision of the codec's repository."})
    split: str = field(default="train", metadata={"help": "Name of the split to write."})
    cut: Literal["silence", "fixed"] = field(default="silence", metadata={"help": "Where long recordings are cut."})
    max_seconds: float = field(default=40.0, metadata={"help": "Recordings that are longer, in seconds, are cut."})
    overlap_seconds: float = field(default=0.0, metadata={"help": "Overlap of `fixed` pieces, in seconds."})
    overlap: Literal["repeat", "context"] = field(
        default="repeat",
        metadata={"help": "`repeat`: units of the overlap are in both pieces. `context`: each is in one of them."},
    )
    min_seconds: float = field(default=0.1, metadata={"help": "Pieces that are shorter, in seconds, are left out."})
    min_peak_dbfs: float = field(default=-60.0, metadata={"help": "Pieces with a lower peak, in dB, are left out."})
    batch_seconds: float = field(default=240.0, metadata={"help": "Maximum audio in a batch, in seconds."})
    num_workers: int = field(default=2, metadata={"help": "Processes that decode ahead of each codec."})
    push_to_hub: str | None = field(default=None, metadata={"help": "Repository to upload the dataset to."})
    private: bool = field(default=False, metadata={"help": "Whether to make that repository private."})


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


def push(folder: Path, repo_id: str, private: bool) -> None:
    with staging_folder(folder) as scratch:
        staged = Path(scratch)
        replaced = stage_corpus(folder, staged, with_reports=True)  # an earlier version may have had other shards
        render_dataset_card(staged, repo_id).save(staged / "README.md")
        publish_folder(
            staged,
            repo_id,
            repo_type="dataset",
            private=private,
            message="Upload tokenised corpus",
            delete_patterns=replaced,
        )


def main() -> None:
    source_args, args = parse_arguments(__doc__, (SourceArguments, CorpusArguments))
    state = get_process_state()
    codec = load_codec(args.codec, args.codec_revision).to(state.device)
    segmentation = Segmentation(args.max_seconds, args.cut, args.overlap_seconds, args.overlap)
    try:
        summary = tokenize_corpus(
            open_source(source_args),
            codec,
            args.output_dir,
            split=args.split,
            rules=PieceRules(segmentation, args.min_seconds, args.min_peak_dbfs),
            batch_seconds=args.batch_seconds,
            num_workers=args.num_workers,
        )
    except DiskFullError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from None
    if state.is_main_process:
        hours = summary.seconds / 3600
        print(f"{summary.num_rows:,} rows, {hours:,.2f} hours, {summary.num_units:,} units in '{args.output_dir}'.")
        for reason, count in summary.skipped.items():
            print(f"{count:,} left out: {reason}.")
        if args.push_to_hub is not None:
            push(Path(args.output_dir).resolve(), args.push_to_hub, args.private)
    state.destroy_process_group()


if __name__ == "__main__":
    run(main, hint="Start the same command again to continue.")
