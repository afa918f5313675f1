"""Pretraining: useful tokens per second, packed against padded.

All ways train one model on the same documents with the same step (forward, backward, clipping, AdamW; bf16 autocast on
a GPU). The padded way makes each document a row and pads a batch to its longest. The packed way is that of
`hub_scripts/pretrain.py`. On a GPU it also has the largest batch that fits, and is compiled layer by layer, as
accelerate does it with `--dynamo_use_regional_compilation`. Useful tokens are those that are not padding. MFU is their
share of the peak in the GPU's data sheet.
"""

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from statistics import median

import numpy as np
import torch
from accelerate.utils import compile_regions
from datasets import Dataset, disable_progress_bars
from torch import nn
from trl.trainer.utils import compute_mfu

from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.training.documents import DocumentEncoder, encode_documents
from slam_hf.training.packing import IGNORE_INDEX, PackingCollator, pack_documents
from slam_hf.training.throughput import flops_per_token, peak_flops

from .turns import Comparison, describe_device, matmul_flops, take_turns


CONTEXT_LENGTH = 1024
BATCH_SIZE = 8
LARGER_BATCH_SIZES = (64, 32, 16)
STEPS = {"small": 1, "full": 5}
NUM_DOCUMENTS = {"small": 500, "full": 2000}

LENGTH_QUANTILES = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0], [70, 400, 635, 870, 1024, 1024]
"""Lengths of documents in tokens. Their mean is 620, the average length of a row of 1,024 in the published runs."""

BASE_CONFIGS = {
    "full": None,  # Qwen2.5-0.5B, 358M parameters: the architecture of the Slam models
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


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    disable_progress_bars()
    with device:
        model = make_model(size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    documents = make_documents(NUM_DOCUMENTS[size], seed)
    padding: dict[str, str] = {}

    def way(name: str, trained: nn.Module, batches: Iterator[Batch]) -> Callable[[], float]:
        # Made ahead, as the workers of a data loader do: for the trial, the round to warm up and the others.
        ready = iter([list(islice(batches, STEPS[size])) for _ in range(rounds + 2)])

        def train() -> float:
            taken = next(ready)
            tokens = sum(int((batch["input_ids"] != 0).sum()) for batch in taken)
            padding[name] = f"{1 - tokens / sum(batch['input_ids'].numel() for batch in taken):.1%}"
            train_steps(trained, optimizer, taken, device)
            return tokens

        return train

    packed, padded = packed_batches(documents, BATCH_SIZE), padded_batches(documents, BATCH_SIZE)
    ways = {"padded": way("padded", model, padded), "packed": way("packed", model, packed)}
    if device.type != "cpu":
        compiled = compile_regions(model)
        for batch_size in LARGER_BATCH_SIZES:
            batches, name = packed_batches(documents, batch_size), f"packed, {batch_size} rows"
            ways[name] = way(name, model, batches)
            try:
                ways[name]()
            except torch.OutOfMemoryError:
                del ways[name]
                continue
            finally:
                # After the error, whose traceback keeps the tensors of the batch that did not fit.
                optimizer.zero_grad()
                torch.cuda.empty_cache()
            name = f"packed, compiled, {batch_size} rows"
            ways[name] = way(name, compiled, batches)
            break
    turns = take_turns(ways, rounds)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    # 2 FLOPs per parameter forward and 4 backward, attention left out, so that the share is never overstated.
    limit = matmul_flops(device, dtype) / flops_per_token(model.num_parameters())
    mfu = {}
    if device.type != "cpu":
        speeds = {name: median(turn.work / turn.seconds for turn in turns[name]) for name in ways}
        flops, peak = flops_per_token(model.num_parameters()), peak_flops(device)
        mfu = {"MFU": {name: f"{compute_mfu(flops, speed, 1, peak):.1f}%" for name, speed in speeds.items()}}
    title = (
        f"Pretraining: {model.num_parameters():,} parameters, contexts of {CONTEXT_LENGTH}, batches of {BATCH_SIZE}"
    )
    return Comparison(
        title=f"{title}, on {describe_device(device)}",
        unit="useful tokens/s",
        baseline="padded",
        turns=turns,
        limits=dict.fromkeys(ways, limit),
        notes={"padding": {name: padding[name] for name in ways}} | mfu,
    )


def make_model(size: str) -> SpeechLMForCausalLM:
    return SpeechLMForCausalLM(SpeechLMConfig(base_config=BASE_CONFIGS[size]))


def make_documents(count: int, seed: int) -> Dataset:
    """Documents of random units."""
    generator = np.random.default_rng(seed)
    lengths = np.interp(generator.random(count), *LENGTH_QUANTILES).astype(int)
    units = [generator.integers(500, size=length - 2) for length in lengths]
    return encode_documents(Dataset.from_dict({"units": units}), DocumentEncoder(HubertUnitTokenizer(num_units=500)))


def padded_batches(documents: Dataset, batch_size: int) -> Iterator[Batch]:
    tokenizer = HubertUnitTokenizer()
    while True:
        for rows in documents.iter(batch_size):
            batch = dict(tokenizer.pad(rows, return_tensors="pt"))
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE_INDEX)
            yield batch


def packed_batches(documents: Dataset, batch_size: int) -> Iterator[Batch]:
    collate = PackingCollator(CONTEXT_LENGTH)
    rows = cycle(pack_documents(documents, CONTEXT_LENGTH).shuffle(seed=0))
    while True:
        yield collate(list(islice(rows, batch_size)))


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch], device: torch.device
) -> None:
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    loss.item()  # waits for the device
