r"""Fit the codebook of a codec: the units of your own language.

```
python hub_scripts/fit_codebook.py \
    --encoder facebook/hubert-base-ls960 --layers 6 9 --num_units 500 1000 \
    --source LibriSpeech/train-clean-100 --layout librispeech --output_dir codecs
```

k-means clusters the hidden states of any HuBERT, WavLM, wav2vec 2.0, data2vec-audio, UniSpeech-SAT or wav2vec2-BERT,
in several layers and sizes with one pass over the audio. The result is a codec without a vocoder for each of them,
with a card, and a report that measures the units on held-out recordings. Start it again with the same command to
continue after an interruption. `--executor` runs it on a Slurm or Ray cluster, or as Hugging Face Jobs.
"""

from dataclasses import dataclass, field

from slam_hf.codec_training.codebook_job import PLOT, REPORT, CodebookJob
from slam_hf.command_line import parse_arguments, run
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.remote_files import absolute_if_folder, absolute_path


@dataclass
class CodebookArguments:
    _argument_group_name = "which codebook, and where to"

    encoder: str = field(
        metadata={"help": "Folder or Hub repository of an encoder, or of a codec whose encoder is taken."}
    )
    output_dir: str = field(metadata={"help": "Folder of the codec, or its URL, such as s3://."})
    layers: list[int] = field(metadata={"help": "Layers of the encoder, counted from 1."})
    num_units: list[int] = field(
        default_factory=lambda: [500], metadata={"help": "Numbers of units. Each layer gets a codebook of each."}
    )
    encoder_revision: str = field(default="main", metadata={"help": "Revision of the encoder's repository."})
    do_normalize: bool | None = field(
        default=None,
        metadata={"help": "Normalise each clip. Default: as the encoder's preprocessor_config.json says."},
    )
    max_frames: int = field(
        default=1_000_000,
        metadata={"help": "Maximum number of frames for k-means. A million of 768 values take 3 GB per layer."},
    )
    max_hours: float = field(default=100.0, metadata={"help": "Maximum hours of recordings to encode."})
    frame_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of their frames to keep. Default: computed from the lengths, which a dataset does not have."
        },
    )
    num_held_out: int = field(default=100, metadata={"help": "Number of held-out recordings to measure the units on."})
    iterations: int = field(default=50, metadata={"help": "Maximum number of k-means iterations."})
    seed: int = field(default=0, metadata={"help": "Seed of the sample and of the first centroids."})
    num_workers: int = field(
        default=2, metadata={"help": "Number of processes that decode audio ahead of each encoder."}
    )
    repo_id: str | None = field(
        default=None, metadata={"help": "Repository name for the card. Default: the name of the folder."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Licence for the card, as an identifier of the Hub, such as mit."}
    )


def main() -> None:
    source_args, args, executor_args = parse_arguments(
        __doc__, (VoiceSourceArguments, CodebookArguments, ExecutorArguments)
    )
    job = CodebookJob(
        source_args,
        encoder=absolute_if_folder(args.encoder),
        output_dir=absolute_path(args.output_dir),
        layers=args.layers,
        num_units=args.num_units,
        revision=args.encoder_revision,
        max_frames=args.max_frames,
        max_hours=args.max_hours,
        frame_share=args.frame_share,
        num_held_out=args.num_held_out,
        iterations=args.iterations,
        seed=args.seed,
        do_normalize=args.do_normalize,
        num_workers=args.num_workers,
        repo_id=args.repo_id,
        license=args.license,
    )
    report = job.run(executor_args)
    if report is None:
        print("Submitted to Slurm. When it has ended, the same command says what came out.")
        return
    print(f"{report['num_frames']:,} frames of {report['seconds'] / 3600:,.2f} hours.")
    for reason, count in report["skipped"].items():
        print(f"{count:,} left out: {reason}.")
    for book in report["codebooks"]:
        line = f"Layer {book['layer']}, {book['num_units']:,} units: {book['explained_variance']:.1%} of the variance"
        line += f", perplexity {book['perplexity']:,.0f}"
        if book["held_out"]:
            rates = ", ".join(f"{name} {rate:.2f}" for name, rate in book["held_out"]["edit_rate"].items())
            line += f"; held out: {book['held_out']['units_per_second']:.1f} units a second, edit rates {rates}"
        print(f"{line}. '{job.codec_folder(book['layer'], book['num_units'])}'")
    print(f"All figures: '{args.output_dir}/{REPORT}' and '{PLOT}'.")


if __name__ == "__main__":
    run(main, hint="Start the same command again to continue.")
