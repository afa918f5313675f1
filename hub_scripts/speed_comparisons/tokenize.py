"""Files to a tokenised corpus: seconds of audio per second, from FLAC files to a dataset.

Ours is the job of `hub_scripts/tokenize_corpus.py`. The baseline reads files in order, encodes them in plain padded
batches ([`encode`]) and appends JSON lines.
"""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby
from pathlib import Path

import numpy as np
import soundfile
import torch

from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.sources import file_source

from .encode import NUM_CLIPS, PLAIN_BATCH_SIZE, SAMPLING_RATE, Encoders, make_clips, make_encoders
from .turns import Comparison, describe_device, take_turns


NUM_WORKERS = {"small": 1, "full": 8}
"""Processes that decode ahead of the encoder."""


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    encoders = make_encoders(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = write_clips(make_clips(NUM_CLIPS[size], seed), folder / "clips")
        numbers = count()

        def ours() -> float:
            run_job(encoders, folder / "clips", folder / f"corpus-{next(numbers)}", NUM_WORKERS[size])
            return seconds

        def plain() -> float:
            run_plainly(encoders, folder / "clips", folder / f"units-{next(numbers)}.jsonl")
            return seconds

        turns = take_turns({"plain padded": plain, "tokenize_corpus": ours}, rounds)
    title = f"Files to a corpus: {NUM_CLIPS[size]} files, {seconds:.0f} s, on {describe_device(device)}"
    return Comparison(title, "× real time", "plain padded", turns)


def write_clips(clips: list[torch.Tensor], folder: Path) -> float:
    """Write clips as FLAC files, and return their length in seconds."""
    folder.mkdir()
    paths = [folder / f"{number:05d}.flac" for number in range(len(clips))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path, clip: soundfile.write(path, clip.numpy(), SAMPLING_RATE), paths, clips))
    return sum(map(len, clips)) / SAMPLING_RATE


def run_job(encoders: Encoders, clips: Path, output: Path, num_workers: int) -> None:
    tokenize_corpus(file_source(list_audio_folder(clips)), encoders.codec, output, num_workers=num_workers)


def run_plainly(encoders: Encoders, clips: Path, output: Path) -> None:
    paths = sorted(clips.glob("*.flac"))
    with open(output, "w", encoding="utf-8") as file:
        for start in range(0, len(paths), PLAIN_BATCH_SIZE):
            batch = paths[start : start + PLAIN_BATCH_SIZE]
            waveforms = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in batch]
            for path, frames in zip(batch, encoders.encode_plainly(waveforms), strict=True):
                units, durations = deduplicate(frames)
                file.write(json.dumps({"units": units, "duration": durations, "file_name": path.name}) + "\n")


def deduplicate(frames: np.ndarray) -> tuple[list[int], list[int]]:
    """Units with equal neighbours merged, and the frames of each, in Python as the reference toolkit does it."""
    runs = [(int(unit), len(list(run))) for unit, run in groupby(frames)]
    return [unit for unit, _ in runs], [length for _, length in runs]
