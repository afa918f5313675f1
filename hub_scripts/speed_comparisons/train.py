"""Pretraining: useful tokens per second and model FLOPs utilisation, packed against padded.

All ways train one model on the same documents by the same step (forward, backward, clipping, AdamW; bf16 autocast on a
GPU), and take turns. The padded way makes each document a row and pads a batch to
its longest; the packed one is that of `hub_scripts/pretrain.py`.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from torch import nn

from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.training.packing import IGNORE_INDEX, PackingCollator, encode_documents, pack_documents
from slam_hf.training.throughput import flops_per_token, peak_flops

from .encode import LENGTH_QUANTILES


UNITS_PER_SECOND = 20.3
"""Deduplicated units of mHuBERT-25Hz in a second of LibriSpeech."""

LENGTHS = {
    "slam": ([0.0, 0.25, 0.5, 0.75, 0.9, 1.0], [70, 400, 635, 870, 1024, 1024]),
    "librispeech": (LENGTH_QUANTILES[0], [seconds * UNITS_PER_SECOND for seconds in LENGTH_QUANTILES[1]]),
}
"""Quantiles of the documents' lengths, in tokens. Those of `slam` are chosen so that their mean is 620, what a row of
1,024 held on average in the published runs."""

BASE_CONFIGS = {
    "slam": None,  # Qwen2.5-0.5B, 358M parameters
    "small": {
        "model_type": "qwen2",
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "tie_word_embeddings": True,
    },
}

Batch = dict[str, torch.Tensor]


@dataclass
class Turn:
    """What a turn took, in seconds of the clock and of the processor, and its tokens without and with padding."""

    seconds: float
    processor_seconds: float
    tokens: int
    slots: int


@dataclass
class Way:
    """A way to train: the model, compiled or not, its batches, and its turns."""

    model: nn.Module
    batches: Iterator[Batch]
    turns: list[Turn] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=BASE_CONFIGS, default=None, help="Default: slam on a GPU, small on a CPU.")
    parser.add_argument("--attn_implementation", default="sdpa", help="Of the packed and of the padded way.")
    parser.add_argument("--compile", action="store_true", help="Measure each way compiled, too.")
    parser.add_argument("--batch_size", type=int, default=8, help="Rows of a batch.")
    parser.add_argument("--context_length", type=int, default=1024, help="Tokens of a packed row.")
    parser.add_argument("--lengths", choices=LENGTHS, default="slam", help="How long the documents are.")
    parser.add_argument("--documents", type=int, default=2000, help="Number of documents.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each way has its turn.")
    parser.add_argument("--steps", type=int, default=None, help="Steps of a turn. Default: 20 on a GPU, 2 on a CPU.")
    parser.add_argument("--num_threads", type=int, default=None, help="Threads of PyTorch. Default: its own choice.")
    parser.add_argument("--seed", type=int, default=0, help="Of the documents and of the weights.")


def run(args: argparse.Namespace) -> None:
    disable_progress_bars()
    torch.set_num_threads(args.num_threads or torch.get_num_threads())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    steps = args.steps or (20 if on_gpu else 2)
    base_config = BASE_CONFIGS[args.model or ("slam" if on_gpu else "small")]

    torch.manual_seed(args.seed)
    config = SpeechLMConfig(base_config=base_config)
    model = SpeechLMForCausalLM._from_config(config, attn_implementation=args.attn_implementation).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    documents = make_documents(args.documents, args.lengths, args.context_length, args.seed)
    packed = packed_batches(documents, args.batch_size, args.context_length)
    padded = padded_batches(documents, args.batch_size)
    ways = {"packed": Way(model, packed), "padded": Way(model, padded)}
    if args.compile:
        # In this order: from the shapes of the padded batches, the compiler would conclude that all shapes vary.
        ways |= {f"{name}, compiled": Way(torch.compile(model), way.batches) for name, way in ways.items()}
    for way in ways.values():
        train(way, optimizer, steps, device)  # to warm up
    for _ in range(args.rounds):
        for way in ways.values():
            way.turns.append(train(way, optimizer, steps, device))
    report(ways, model.num_parameters(), device)


def make_documents(count: int, lengths: str, context_length: int, seed: int) -> Dataset:
    """Documents of random units; none is longer than a context."""
    generator = np.random.default_rng(seed)
    tokens = np.interp(generator.random(count), *LENGTHS[lengths])
    units = [generator.integers(500, size=int(length) - 2) for length in np.minimum(tokens, context_length)]
    return encode_documents(Dataset.from_dict({"units": units}), num_units=500)


def padded_batches(documents: Dataset, batch_size: int) -> Iterator[Batch]:
    tokenizer = HubertUnitTokenizer()
    while True:
        for rows in documents.iter(batch_size):
            batch = dict(tokenizer.pad(rows, return_tensors="pt"))
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)
            yield batch


def packed_batches(documents: Dataset, batch_size: int, context_length: int) -> Iterator[Batch]:
    contexts = pack_documents(documents, context_length).shuffle(seed=0)
    collate = PackingCollator(context_length)
    rows = cycle(contexts)
    while True:
        yield collate(list(islice(rows, batch_size)))


def train(way: Way, optimizer: torch.optim.Optimizer, steps: int, device: torch.device) -> Turn:
    """Train for some steps. Making batches is not measured."""
    batches = list(islice(way.batches, steps))
    tokens = sum(int((batch["input_ids"] != 0).sum()) for batch in batches)
    slots = sum(batch["input_ids"].numel() for batch in batches)
    start, processor_start = time.perf_counter(), time.process_time()
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = way.model(**{name: tensor.to(device) for name, tensor in batch.items()}, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(way.model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    loss.item()  # waits for the device
    return Turn(time.perf_counter() - start, time.process_time() - processor_start, tokens, slots)


def report(ways: dict[str, Way], parameters: int, device: torch.device) -> None:
    on_gpu = device.type == "cuda"
    peak = peak_flops(device)
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{parameters:,} parameters on {name}; peak {peak / 1e12:.3g} TFLOPs a second\n")
    print(f"| way | useful tokens/s | padding | MFU | against padded{'' if on_gpu else ', processor time'} |")
    print("|---|---|---|---|---|")
    for label, way in ways.items():
        speeds = [turn.tokens / turn.seconds for turn in way.turns]
        padding = statistics.median(1 - turn.tokens / turn.slots for turn in way.turns)
        mfu = statistics.median(speeds) * flops_per_token(parameters) / peak
        ratios = [
            cost(padded, on_gpu) / cost(turn, on_gpu)
            for padded, turn in zip(ways["padded"].turns, way.turns, strict=True)
        ]
        print(f"| {label} | {spread(speeds, ',.0f')} | {padding:.1%} | {mfu:.1%} | {spread(ratios, '.2f')} |")


def cost(turn: Turn, on_gpu: bool) -> float:
    """Seconds of a useful token; of the processor on a CPU, which others may use at the same time."""
    return (turn.seconds if on_gpu else turn.processor_seconds) / turn.tokens


def spread(values: list[float], form: str) -> str:
    """The median of some values, and their range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
