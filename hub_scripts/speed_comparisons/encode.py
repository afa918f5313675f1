"""Audio to units: seconds of audio per second, from files to a dataset.

Both ways have the same clips and the same weights, of a HuBERT-base at 25 Hz with random weights (they do not change
the speed), and take turns. The plain way pads batches with zeros in the order of the files, runs all layers of
transformers' `HubertModel` with all hidden states, predicts the clusters with scikit-learn, and appends JSON lines.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel

from slam_hf import HubertUnitCodec
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.sources import file_source
from slam_hf.processes import get_process_state


SAMPLING_RATE = 16_000
LAYER = 11
NUM_UNITS = 500

LENGTH_QUANTILES = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], [1.4, 5.0, 11.4, 13.9, 15.2, 15.9, 24.5]
"""Roughly those of LibriSpeech's train-clean-100, in seconds; their mean is 12.7."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=32, help="Number of clips.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each way has its turn.")
    parser.add_argument("--plain_batch_size", type=int, default=8, help="Clips in a batch of the plain way.")
    parser.add_argument("--batch_seconds", type=float, default=240.0, help="Audio in a batch of ours.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that decode ahead of ours.")
    parser.add_argument("--num_threads", type=int, default=None, help="Threads of PyTorch. Default: its own choice.")
    parser.add_argument("--seed", type=int, default=0, help="Of the lengths and of the weights.")


@dataclass
class Contest:
    """What both ways work on."""

    folder: Path
    paths: list[Path]
    seconds: float
    hubert: HubertModel
    codec: HubertUnitCodec
    device: torch.device


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.num_threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        contest = prepare(Path(folder) / "clips", args.clips, args.seed, get_process_state().device)
        predict = make_kmeans(contest.codec)
        runs: dict[str, list[Duration]] = {"ours": [], "plain": []}
        spent: Counter[str] = Counter()
        for number in range(args.rounds + 1):
            output = Path(folder) / f"round-{number}"
            if number == 1:  # the first round was to warm up
                runs = {name: [] for name in runs}
                spent.clear()
            with record_time(contest.codec, spent):
                runs["ours"].append(measure(run_ours, contest, output, args))
            runs["plain"].append(measure(run_plain, contest, output, args.plain_batch_size, predict))
    report(contest, runs, spent)


@dataclass
class Duration:
    """Seconds by the clock on the wall, and of processor time of this process."""

    wall: float
    processor: float


def measure(work: Callable[..., None], *args: Any) -> Duration:
    wall, processor = time.perf_counter(), time.process_time()
    work(*args)
    return Duration(time.perf_counter() - wall, time.process_time() - processor)


def prepare(folder: Path, num_clips: int, seed: int, device: torch.device) -> Contest:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    lengths = np.interp(rng.random(num_clips), *LENGTH_QUANTILES)
    paths = []
    for number, length in enumerate(lengths):
        paths.append(folder / f"{number:05d}.flac")
        soundfile.write(paths[-1], 0.1 * rng.standard_normal(int(length * SAMPLING_RATE)), SAMPLING_RATE)
    torch.manual_seed(seed)
    strides = (5, 2, 2, 2, 2, 2, 2, 2)
    kernels = (10, 3, 3, 3, 3, 2, 2, 2)
    config = HubertConfig(conv_dim=(512,) * 8, conv_kernel=kernels, conv_stride=strides, conv_pos_batch_norm=True)
    hubert = HubertModel(config).eval()
    centroids = torch.randn(NUM_UNITS, config.hidden_size)
    codec = HubertUnitCodec.from_parts(hubert, centroids, layer=LAYER).to(device)
    seconds = sum(soundfile.info(path).duration for path in paths)
    return Contest(folder, paths, seconds, hubert.to(device), codec, device)


def run_ours(contest: Contest, output: Path, args: argparse.Namespace) -> None:
    source = file_source(list_audio_folder(contest.folder))
    tokenize_corpus(
        source,
        contest.codec,
        output,
        rules=PieceRules(),
        batch_seconds=args.batch_seconds,
        num_workers=args.num_workers,
    )


@torch.inference_mode()
def run_plain(contest: Contest, output: Path, batch_size: int, predict: Callable[[np.ndarray], np.ndarray]) -> None:
    config = contest.codec.config
    with open(output.with_suffix(".jsonl"), "a") as file:
        for first in range(0, len(contest.paths), batch_size):
            paths = contest.paths[first : first + batch_size]
            waveforms = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
            batch = nn.functional.pad(nn.utils.rnn.pad_sequence(waveforms, batch_first=True), (config.pad, config.pad))
            states = contest.hubert(batch.to(contest.device), output_hidden_states=True).hidden_states[config.layer]
            for path, waveform, clip in zip(paths, waveforms, states.cpu().numpy(), strict=True):
                frames = predict(clip[: len(waveform) // config.hop_length])
                runs = [(int(unit), len(list(run))) for unit, run in groupby(frames)]
                units, durations = zip(*runs, strict=True)
                file.write(json.dumps({"units": units, "duration": durations, "file_name": str(path)}) + "\n")


def make_kmeans(codec: HubertUnitCodec) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.cluster import KMeans

    centroids = codec.codebook.cpu().numpy()
    return KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids).predict


@contextmanager
def record_time(codec: HubertUnitCodec, spent: Counter[str]) -> Iterator[None]:
    """Add up the seconds spent in the parts of the encoder, and in all of `encode`, while the context lasts."""
    parts = {"convolutions": codec.encoder.feature_extractor, "transformer": codec.encoder.encoder}
    started: dict[str, float] = {}
    handles = []

    def now() -> float:
        if codec.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()

    for name, module in parts.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: started.update({name: now()})))
        handles.append(module.register_forward_hook(lambda *_, name=name: spent.update({name: now() - started[name]})))
    encode = codec.encode

    def timed_encode(*args, **kwargs):
        begin = now()
        output = encode(*args, **kwargs)
        spent["encode"] += now() - begin
        return output

    codec.encode = timed_encode
    try:
        yield
    finally:
        del codec.encode
        for handle in handles:
            handle.remove()


def report(contest: Contest, runs: dict[str, list[Duration]], spent: Counter[str]) -> None:
    is_cuda = contest.device.type == "cuda"
    device = torch.cuda.get_device_name() if is_cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{len(contest.paths)} clips, {contest.seconds:.0f} s of audio, {device}, {len(runs['ours'])} rounds")
    for clock in ("wall", "processor"):
        ours, plain = (np.array([getattr(duration, clock) for duration in runs[name]]) for name in ("ours", "plain"))
        print(
            f"by {clock} time: ours {spread(contest.seconds / ours)} × real time, "
            f"plain {spread(contest.seconds / plain)} × real time, ratio {spread(plain / ours)}"
        )

    total = sum(duration.wall for duration in runs["ours"])
    shares = {name: spent[name] for name in ("convolutions", "transformer")}
    shares["rest of the encoder, k-means"] = spent["encode"] - sum(shares.values())
    shares["listing, waiting for decoded audio, writing"] = total - spent["encode"]
    print("where our time goes:")
    for name, share in shares.items():
        print(f"  {share / total:5.1%} {name}")

    flops, peak = count_flops(contest.codec), measure_peak(contest.device)
    speed = contest.seconds * len(runs["ours"]) / total
    print(
        f"bound: {flops / 1e9:.1f} GFLOP per second of audio; matrix products in float32 reach {peak / 1e9:.0f} "
        f"GFLOP/s, which would be {peak / flops:.1f} × real time; we reach {speed * flops / peak:.0%} of that"
    )


def spread(values: np.ndarray) -> str:
    """The median of some values, and their range."""
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def count_flops(codec: HubertUnitCodec, seconds: int = 14) -> float:
    """Floating-point operations that encoding takes, per second of audio, in clips of the median length."""
    waveform = 0.1 * torch.randn(1, seconds * SAMPLING_RATE, device=codec.device)
    with FlopCounterMode(display=False) as counter:
        codec.encode(waveform)
    return counter.get_total_flops() / seconds


def measure_peak(device: torch.device, size: int = 2048, repetitions: int = 10) -> float:
    """Floating-point operations per second of the best of some float32 matrix products."""
    left, right = torch.randn(2, size, size, device=device)

    def multiply() -> None:
        torch.mm(left, right)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return 2 * size**3 / min(measure(multiply).wall for _ in range(repetitions))
