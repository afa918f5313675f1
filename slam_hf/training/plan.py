"""Prints the plan of a training run."""

import math
from collections import Counter
from itertools import accumulate

from datasets import Dataset, IterableDataset
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments

from .arguments import PretrainArguments
from .throughput import flops_per_token


BYTES_PER_TRAINED_PARAMETER = 16
"""A weight, its gradient and the two moments of AdamW in float32."""

SAMPLED_SEQUENCES = 1000
"""Number of packed sequences in the sample that shows how full they are and how many documents they cut."""


def batch_size(training_args: TrainingArguments) -> int:
    """Rows of an optimizer step over all processes, as the trainer's arguments say."""
    return training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size


def tokens_per_step(args: PretrainArguments, training_args: TrainingArguments) -> int:
    """Tokens of an optimizer step over all processes, with padding."""
    return (args.batch_size or batch_size(training_args)) * args.context_length


def describe_plan(
    args: PretrainArguments,
    training_args: TrainingArguments,
    model: PreTrainedModel,
    sequences: Dataset | IterableDataset,
) -> str:
    """Describe a run before it starts: parameters, batch, length, data and memory."""
    step_tokens = tokens_per_step(args, training_args)
    parameters = model.num_parameters()
    trained = model.num_parameters(only_trainable=True)
    lines = {
        "parameters": f"{parameters:,}" + ("" if trained == parameters else f", {trained:,} of them trained"),
        "batch": f"{step_tokens // args.context_length:,} packed sequences of {args.context_length:,} tokens, on "
        f"{training_args.world_size} process(es): {step_tokens:,} tokens per step",
        "length": _length(args, training_args, sequences, flops_per_token(parameters)),
        "memory": _memory(args, training_args, model),
    }
    if args.price_per_hour is not None:
        hours, price = args.max_train_hours, args.price_per_hour
        total = "known after the first steps" if hours is None else f"{hours * price:,.2f} for {hours:g} h"
        lines["cost"] = f"{total}, at {price:g} an hour"
    if isinstance(sequences, Dataset):
        packing = _packing(_sample(sequences), args.context_length, model.config.bos_token_id)
        lines["data"] = f"{len(sequences):,} packed sequences per epoch, {packing}"
    elif args.has_text and None not in (weights := [corpus.weight for corpus in args.datasets]):
        shares: Counter[str] = Counter()
        for corpus, weight in zip(args.datasets, weights, strict=True):
            shares[corpus.modality] += weight / sum(weights)
        lines["data"] = ", ".join(f"{share:.1%} {modality}" for modality, share in shares.items()) + ", of the tokens"
    return "\n".join(f"{name:<12}{line}" for name, line in lines.items())


def _length(
    args: PretrainArguments, training_args: TrainingArguments, sequences: Dataset | IterableDataset, flops: int
) -> str:
    step_tokens = tokens_per_step(args, training_args)
    if args.max_train_hours is not None:
        return f"as many steps as fit into {args.max_train_hours:g} h, known after the first steps"
    if args.max_train_tokens is not None:
        tokens = args.max_train_tokens
        fill, more = 1.0, " or a few more" if args.has_full_sequences else " or more"
        if not args.has_full_sequences and isinstance(sequences, Dataset):
            fill, more = _fill(_sample(sequences), args.context_length), " or so"
        steps = math.ceil(tokens / (step_tokens * fill))
        return f"{tokens:,} tokens, {tokens * flops:.2e} FLOPs, {steps:,} steps{more}"
    steps = training_args.max_steps
    if steps < 0:
        steps_per_epoch = math.ceil(len(sequences) * args.context_length / step_tokens)
        steps = math.ceil(training_args.num_train_epochs * steps_per_epoch)
    return f"{steps:,} steps, {steps * step_tokens:,} tokens with padding, {steps * step_tokens * flops:.2e} FLOPs"


def _memory(args: PretrainArguments, training_args: TrainingArguments, model: PreTrainedModel) -> str:
    trained = model.num_parameters(only_trainable=True)
    state = (model.num_parameters() - trained) * 4 + trained * BYTES_PER_TRAINED_PARAMETER
    tokens = training_args.train_batch_size * args.context_length
    bytes_per_value = 2 if training_args.bf16 or training_args.fp16 else 4
    activations = tokens * _activation_bytes_per_token(model.config.get_text_config(), bytes_per_value)
    return (
        f"{state / 2**30:.2f} GiB for weights, gradients and optimizer, about {activations / 2**30:.2f} GiB for "
        "activations, on each process (without sharding and checkpointing)"
    )


def _activation_bytes_per_token(config: PreTrainedConfig, bytes_per_value: int) -> int:
    # A layer with fused attention keeps for its backward pass: two norms, queries, keys, values, the output and two
    # residuals, each about as wide as the layer, and the four vectors of a gated feed-forward block.
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * width
    return config.num_hidden_layers * (8 * width + 4 * inner) * bytes_per_value


def _sample(sequences: Dataset) -> dict[str, list[list[int]]]:
    # Of the whole corpus: packing leaves the documents that it has to cut to the end.
    return sequences[:: math.ceil(len(sequences) / SAMPLED_SEQUENCES)]


def _fill(sequences: dict[str, list[list[int]]], context_length: int) -> float:
    return sum(map(sum, sequences["seq_lengths"])) / (len(sequences["seq_lengths"]) * context_length)


def _packing(sequences: dict[str, list[list[int]]], context_length: int, bos_token_id: int) -> str:
    """How full the sequences are, and how often documents are cut: the rest of a cut document lacks `<S>`. Some text
    tokenizers put nothing in front of a document, and then this is not known."""
    fill = _fill(sequences, context_length)
    begins = [
        ids[start] == bos_token_id
        for ids, lengths in zip(sequences["input_ids"], sequences["seq_lengths"], strict=True)
        for start in accumulate(lengths[:-1], initial=0)
    ]
    if not any(begins):
        return f"{fill:.1%} full"
    return f"{fill:.1%} full, {begins.count(False) / begins.count(True):.2f} cuts per document"
