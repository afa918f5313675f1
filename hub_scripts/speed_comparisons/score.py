"""Pairs of utterances to scores of several models: pairs per second, from files to records.

All ways have the same clips, encoder and language models. The baseline does for every model what a script for one
does: it reads the files, encodes them in plain padded batches, and scores the padded units. Ours is
`evaluate_model.py` for one model after another, first with an empty cache of units, then with a full one.
"""

import shutil
import tempfile
from pathlib import Path

import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from slam_hf import HubertUnitTokenizer, SpeechLMForCausalLM
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.pairs import evaluate_pairs
from slam_hf.evaluation.report import save_evaluation

from .encode import NUM_UNITS, PLAIN_BATCH_SIZE, Encoders, make_clips, make_encoders
from .tokenize import NUM_WORKERS, deduplicate, write_clips
from .train import make_model
from .turns import Comparison, describe_device, take_turns


NUM_PAIRS = {"small": 4, "full": 128}
NUM_MODELS = 3


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    encoders = make_encoders(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(make_clips(2 * NUM_PAIRS[size], seed), folder / "stories")
        for number, path in enumerate(sorted((folder / "stories").iterdir())):
            path.rename(path.with_name(f"{number // 2}_{'incorrect' if number % 2 else 'correct'}.flac"))
        encoders.codec.save_pretrained(folder / "codec")
        models = [save_model(folder / f"model-{number}", size).to(device) for number in range(NUM_MODELS)]

        def score_cold() -> float:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            return score_cached()

        def score_cached() -> float:
            shutil.rmtree(folder / "results", ignore_errors=True)
            score_ours(models, folder, NUM_WORKERS[size])
            return NUM_PAIRS[size] * NUM_MODELS

        def score_plain() -> float:
            score_plainly(models, folder / "stories", encoders)
            return NUM_PAIRS[size] * NUM_MODELS

        turns = take_turns({"plain": score_plain, "empty cache": score_cold, "full cache": score_cached}, rounds)
    title = (
        f"Pairs to scores: {NUM_PAIRS[size]} pairs, {NUM_MODELS} models of {models[0].num_parameters() / 1e6:.0f}M "
    )
    return Comparison(f"{title}parameters, on {describe_device(device)}", "pairs/s", "plain", turns)


def save_model(folder: Path, size: str) -> SpeechLMForCausalLM:
    make_model(size).save_pretrained(folder)
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
def score_plainly(models: list[SpeechLMForCausalLM], stories: Path, encoders: Encoders) -> list[list[float]]:
    """Scores of all correct stories and then of all incorrect ones, for each model."""
    paths = [path for side in ("correct", "incorrect") for path in sorted(stories.glob(f"*_{side}.flac"))]
    scores: list[list[float]] = []
    for model in models:
        scores.append([])
        for start in range(0, len(paths), PLAIN_BATCH_SIZE):
            batch = paths[start : start + PLAIN_BATCH_SIZE]
            waveforms = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in batch]
            units = [deduplicate(frames)[0] for frames in encoders.encode_plainly(waveforms)]
            rows = [torch.tensor([1, *(unit + 2 for unit in row), 1]) for row in units]
            input_ids = pad_sequence(rows, batch_first=True).to(model.device)
            scores[-1] += model.log_likelihood(input_ids).tolist()
    return scores
