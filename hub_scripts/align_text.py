r"""Add the spoken words and their times to recordings or to a tokenised corpus.

```
python hub_scripts/align_text.py \
    --source LibriSpeech/train-clean-100 --layout librispeech \
    --ctc_model facebook/wav2vec2-base-960h --output_dir librispeech-words
```

A CTC model aligns recordings with their texts. Whisper transcribes those without one (`--whisper_model`). The result
is a manifest that tokenize_corpus.py takes or, with `--corpus`, the corpus that the recordings were tokenised into,
with `text` and `aligned_text`. Start it again with the same command to continue after an interruption.
"""

import os
import shlex
from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from slam_hf.command_line import parse_arguments, run
from slam_hf.corpora.alignment.job import AlignmentJob
from slam_hf.corpora.alignment.output import MANIFEST
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.remote_files import absolute_if_folder, absolute_path


@dataclass
class AlignmentArguments:
    _argument_group_name = "how, and where to"

    output_dir: str = HfArg(help="Folder of the manifest or of the dataset, or its URL, such as s3://.")
    ctc_model: str | None = HfArg(
        default=None, help="Folder or Hub repository of a CTC model that writes letters, for recordings with a text."
    )
    whisper_model: str | None = HfArg(
        default=None,
        help="Folder or Hub repository of a Whisper model, which transcribes recordings without a text; "
        "without `ctc_model`, all of them.",
    )
    ctc_revision: str = HfArg(default="main", help="Revision of the CTC model's repository.")
    whisper_revision: str = HfArg(default="main", help="Revision of Whisper's repository.")
    language: str | None = HfArg(default=None, help="Language of the speech. Default: Whisper detects it.")
    corpus: str | None = HfArg(
        default=None, help="Folder or URL of the dataset that tokenize_corpus.py made from the source."
    )
    split: str = HfArg(default="train", help="Split of the corpus.")


def main() -> None:
    source_args, args, executor_args = parse_arguments(
        __doc__, (SourceArguments, AlignmentArguments, ExecutorArguments)
    )
    job = AlignmentJob(
        source_args,
        output_dir=absolute_path(args.output_dir),
        ctc_model=args.ctc_model and absolute_if_folder(args.ctc_model),
        whisper_model=args.whisper_model and absolute_if_folder(args.whisper_model),
        ctc_revision=args.ctc_revision,
        whisper_revision=args.whisper_revision,
        language=args.language,
        corpus=args.corpus and absolute_path(args.corpus),
        split=args.split,
    )
    summary = job.run(executor_args)
    if summary is None:
        print("Submitted to Slurm. When it has ended, the same command says what came out.")
        return
    what = "recordings" if args.corpus is None else "rows"
    print(f"{summary.num_aligned:,} of {summary.num_rows:,} {what} have words with times, in '{args.output_dir}'.")
    for reason, count in summary.unaligned.items():
        print(f"{count:,} have none: {reason}.")
    if args.corpus is None:
        options = ["--source", os.path.join(args.output_dir, MANIFEST), "--layout", "manifest"]
        options += [] if "://" in job.audio_root else ["--audio_root", job.audio_root]
        print(f"Tokenise them with: tokenize_corpus.py {shlex.join(options)}")


if __name__ == "__main__":
    run(main, hint="Start the same command again to continue.")
