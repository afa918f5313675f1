"""Pairs of utterances to scores of several models: pairs per second, from files to records.

Both ways have the same clips, of the lengths of spoken stories, the same HuBERT-base at 25 Hz and the same language
models, all with random weights (they do not change the speed), and take turns. The plain way does for every model what
a script for one model does: it reads the files, pads them with zeros in the order of the files, runs all layers of
transformers' `HubertModel`, predicts the clusters with scikit-learn, and scores the padded units. Ours is
`evaluate_model.py` for one model after another, first with nothing cached and then with the units of the first run.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Config

from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.pairs import evaluate_pairs
from slam_hf.evaluation.report import save_evaluation
from slam_hf.processes import get_process_state

from .encode import LAYER, NUM_UNITS, Contest, make_kmeans, prepare


LANGUAGE_MODELS = {
    "12M": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6},
    "358M": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
}
"""Sizes by number of parameters; the second is that of the Slam models."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=16, help="Number of pairs.")
    parser.add_argument("--models", type=int, default=3, help="Number of models to score.")
    parser.add_argument("--size", choices=LANGUAGE_MODELS, default="12M", help="Parameters of a model.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each way has its turn.")
    parser.add_argument("--plain_batch_size", type=int, default=8, help="Clips in a batch of the plain way.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that decode ahead of ours.")
    parser.add_argument("--seed", type=int, default=0, help="Of the lengths and of the weights.")


def run(args: argparse.Namespace) -> None:
    os.environ["TQDM_DISABLE"] = "1"
    device = get_process_state().device
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contest = prepare(folder / "stories", 2 * args.pairs, args.seed, device)
        for number, path in enumerate(contest.paths):
            path.rename(path.with_name(f"{number // 2}_{'incorrect' if number % 2 else 'correct'}.flac"))
        contest.codec.save_pretrained(folder / "codec")
        models = [save_model(folder / f"model-{number}", args.size).to(device) for number in range(args.models)]
        predict = make_kmeans(contest.codec)
        ways: dict[str, Callable[[], None]] = {
            "cold": lambda: score_ours(models, folder, args.num_workers),
            "cached": lambda: score_ours(models, folder, args.num_workers),
            "plain": lambda: score_plain(models, contest, predict, args.plain_batch_size),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for round in range(args.rounds + 1):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for way, score in ways.items():
                shutil.rmtree(folder / "results", ignore_errors=True)
                start = time.perf_counter()
                score()
                if round > 0:  # the first round warms up
                    seconds[way].append(time.perf_counter() - start)
        report(contest, models, seconds)


def save_model(folder: Path, size: str) -> SpeechLMForCausalLM:
    base_config = Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **LANGUAGE_MODELS[size])
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config.to_dict(), vocab_size=NUM_UNITS + 2)).eval()
    model.save_pretrained(folder)
    HubertUnitTokenizer(NUM_UNITS).save_pretrained(folder)
    return SpeechLMForCausalLM.from_pretrained(folder).eval()


def score_ours(models: list[SpeechLMForCausalLM], folder: Path, num_workers: int) -> None:
    for model in models:
        args = EvaluationArguments(
            model=model.name_or_path,
            task="sstorycloze",
            data=str(folder / "stories"),
            output_dir=str(folder / "results" / Path(model.name_or_path).name),
            codec=str(folder / "codec"),
            cache_dir=str(folder / "cache"),
            num_workers=num_workers,
        )
        save_evaluation(evaluate_pairs(args, model), args.output_dir, model.num_parameters())


@torch.inference_mode()
def score_plain(
    models: list[SpeechLMForCausalLM],
    contest: Contest,
    predict: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
) -> None:
    paths = sorted((contest.folder).glob("*.flac"))
    for model in models:
        scores = []
        for side in ("correct", "incorrect"):
            files = [path for path in paths if path.stem.endswith(f"_{side}")]
            for start in range(0, len(files), batch_size):
                units = encode_plain(files[start : start + batch_size], contest, predict)
                input_ids = pad_sequence([torch.tensor([1, *row, 1]) for row in units], batch_first=True)
                scores += model.log_likelihood(input_ids.to(contest.device)).tolist()


def encode_plain(paths: list[Path], contest: Contest, predict: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """Ids of the deduplicated units, without those of the padding."""
    waveforms = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
    batch = pad(pad_sequence(waveforms, batch_first=True), (40, 40)).to(contest.device)
    states = contest.hubert(batch, output_hidden_states=True).hidden_states[LAYER]
    units = predict(states.flatten(0, 1).cpu().numpy()).reshape(states.shape[:2])
    kept = [row[: len(waveform) // 640] for row, waveform in zip(units, waveforms, strict=True)]
    return [row[np.r_[True, row[1:] != row[:-1]]] + 2 for row in kept]


def report(contest: Contest, models: list[SpeechLMForCausalLM], seconds: dict[str, list[float]]) -> None:
    is_cuda = contest.device.type == "cuda"
    device = torch.cuda.get_device_name() if is_cuda else f"CPU, {torch.get_num_threads()} threads"
    num_pairs = len(contest.paths) // 2
    print(
        f"{num_pairs} pairs of {contest.seconds / 2 / num_pairs:.1f} s, {len(models)} models of "
        f"{models[0].num_parameters() / 1e6:.0f}M parameters, {device}"
    )
    for way, runs in seconds.items():
        speeds = sorted(num_pairs * len(models) / run for run in runs)
        ratios = sorted(plain / run for plain, run in zip(seconds["plain"], runs, strict=True))
        print(
            f"{way:6}: {statistics.median(speeds):8.2f} pairs/s (median of {len(runs)}, {speeds[0]:.2f} to "
            f"{speeds[-1]:.2f}), {statistics.median(ratios):5.1f} × plain ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )
