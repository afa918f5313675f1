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

from dataclasses import replace

from slam_hf.codec_training.codebook_job import PLOT, REPORT, CodebookArguments, CodebookJob
from slam_hf.command_line import parse_arguments, run
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.remote_files import absolute_if_folder, absolute_path


def main() -> None:
    source_args, args, executor_args = parse_arguments(
        __doc__, (VoiceSourceArguments, CodebookArguments, ExecutorArguments)
    )
    places = {"encoder": absolute_if_folder(args.encoder), "output_dir": absolute_path(args.output_dir)}
    job = CodebookJob(source_args, replace(args, **places))
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
