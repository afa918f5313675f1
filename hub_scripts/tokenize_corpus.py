r"""Tokenise recordings into a dataset of speech units.

```
python hub_scripts/tokenize_corpus.py \
    --source LibriSpeech/train-clean-100 --layout librispeech \
    --codec path/to/codec --output_dir librispeech-units
```

Start it again with the same command to continue after an interruption. On this machine, one process runs on
each GPU, or one on the CPU. `--executor` runs it on a Slurm or Ray cluster, or as Hugging Face Jobs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers.hf_argparser import HfArg

from slam_hf.command_line import parse_arguments, run
from slam_hf.corpora.dataset_card import render_dataset_card
from slam_hf.corpora.dataset_folder import job_folder
from slam_hf.corpora.job import TokenizationJob
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.hub.repository_files import stage_corpus, staging_folder
from slam_hf.hub.upload import publish_folder
from slam_hf.remote_files import absolute_if_folder, absolute_path, local_path


@dataclass
class CorpusArguments:
    _argument_group_name = "how, and where to"

    codec: str = HfArg(help="Folder or Hub repository of a `HubertUnitCodec`.")
    output_dir: str = HfArg(help="Folder of the dataset, or its URL, such as s3://.")
    codec_revision: str = HfArg(default="main", help="Revision of the codec's repository.")
    dtype: Literal["float32", "bfloat16"] = HfArg(
        default="float32",
        help="Precision of the codec. bfloat16 is faster on a GPU and changes the unit "
        "of 0.5 %% of the frames, as hub_scripts/compare_units.py counts them.",
    )
    split: str = HfArg(default="train", help="Name of the split to write.")
    cut: Literal["silence", "fixed"] = HfArg(default="silence", help="Where long recordings are cut.")
    max_seconds: float = HfArg(default=40.0, help="Maximum length in seconds. Longer recordings are cut.")
    overlap_seconds: float = HfArg(default=0.0, help="Overlap of `fixed` pieces, in seconds.")
    overlap: Literal["repeat", "context"] = HfArg(
        default="repeat", help="`repeat`: units of the overlap are in both pieces. `context`: each is in one of them."
    )
    min_seconds: float = HfArg(default=0.1, help="Minimum length in seconds. Shorter pieces are left out.")
    min_peak_dbfs: float = HfArg(default=-60.0, help="Minimum peak in dBFS. Quieter pieces are left out.")
    num_workers: int = HfArg(default=2, help="Number of processes that decode audio ahead of each codec.")
    push_to_hub: str | None = HfArg(default=None, help="Repository to upload the dataset to.")
    private: bool = HfArg(default=False, help="Whether to make that repository private.")


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
    source_args, args, executor_args = parse_arguments(__doc__, (SourceArguments, CorpusArguments, ExecutorArguments))
    if args.push_to_hub is not None and local_path(args.output_dir) is None:
        raise ValueError(f"`push_to_hub` takes a folder of this machine, not '{args.output_dir}': copy it first.")
    segmentation = Segmentation(args.max_seconds, args.cut, args.overlap_seconds, args.overlap)
    job = TokenizationJob(
        source_args,
        codec=absolute_if_folder(args.codec),
        codec_revision=args.codec_revision,
        dtype=args.dtype,
        output_dir=absolute_path(args.output_dir),
        split=args.split,
        rules=PieceRules(segmentation, args.min_seconds, args.min_peak_dbfs),
        num_workers=args.num_workers,
    )
    summary = job.run(executor_args)
    if summary is None:
        logs = f"{job_folder(job.output_dir, job.split)}/logs"
        print(f"Submitted to Slurm; the logs are in '{logs}'. When it has ended, the same command says what came out.")
        return
    hours = summary.seconds / 3600
    print(f"{summary.num_rows:,} rows, {hours:,.2f} hours, {summary.num_units:,} units in '{args.output_dir}'.")
    for reason, count in summary.skipped.items():
        print(f"{count:,} left out: {reason}.")
    if args.push_to_hub is not None:
        push(Path(args.output_dir).resolve(), args.push_to_hub, args.private)


if __name__ == "__main__":
    run(main, hint="Start the same command again to continue.")
