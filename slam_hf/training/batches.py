"""Gives each optimizer step the same sequences in the same order, on any number of processes."""

import math
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset, concatenate_datasets
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from .packing import IGNORE_INDEX
from .plan import batch_size


EMPTY = {"input_ids": [], "seq_lengths": [0], "corpus": 0}
"""A sequence of padding alone, which has neither tokens nor loss."""


def divide_batch(training_args: TrainingArguments, num_sequences: int, with_gaps: bool = True) -> None:
    r"""
    Divide the sequences of an optimizer step among the processes: set `gradient_accumulation_steps`, and lower
    `per_device_train_batch_size` where fewer suffice. `with_gaps`, some places stay empty where there is a remainder.

    Raises:
        ValueError: there is a remainder, and no place can stay empty; or another argument would change the batches.
    """
    given = batch_size(training_args)
    _check_arguments(training_args)
    if given == num_sequences:
        return
    devices = training_args.world_size * max(1, training_args.n_gpu)
    if num_sequences % devices and not with_gaps:
        raise ValueError(
            f"{devices} processes do not divide the batch of this run, of {num_sequences:,}: start another number."
        )
    share = math.ceil(num_sequences / devices)
    accumulation = math.ceil(share / training_args.per_device_train_batch_size)
    while share % accumulation and not with_gaps:
        accumulation += 1
    training_args.gradient_accumulation_steps = accumulation
    training_args.per_device_train_batch_size = math.ceil(share / accumulation)
    num_empty = batch_size(training_args) - num_sequences
    PartialState().print(
        f"The batch is {num_sequences:,}, not {given:,}: per_device_train_batch_size is now "
        f"{training_args.per_device_train_batch_size}, and gradient_accumulation_steps {accumulation}."
        + (f" {num_empty} more places, which the processes have, stay empty." if num_empty else "")
    )


def _check_arguments(training_args: TrainingArguments) -> None:
    others = {name: getattr(training_args, name) for name in ("auto_find_batch_size", "dataloader_drop_last")}
    others["accelerator_config.split_batches"] = training_args.accelerator_config.split_batches
    others["train_sampling_strategy"] = training_args.train_sampling_strategy != "random"
    others["average_tokens_across_devices"] = not training_args.average_tokens_across_devices
    if refused := [f"`{name}`" for name, is_set in others.items() if is_set]:
        raise ValueError(
            f"Leave out {' and '.join(refused)}: a run keeps its batches, and their loss, on any number of processes. "
            "Where they do not fit into memory, lower `per_device_train_batch_size` and, by as much, raise "
            "`gradient_accumulation_steps`."
        )


class BatchTrainer(Trainer):
    r"""
    A `Trainer` whose batches depend on the seed and the step, but not on the number of processes. The last batch of an
    epoch, and each batch that the processes do not divide, is filled with empty sequences, where the `Trainer` repeats
    others. The loss of an evaluation is the mean over its tokens, where that of the `Trainer` is the mean over batches
    and counts repeated sequences.

    Args:
        num_sequences (`int`):
            Number of sequences in an optimizer step, over all processes.
        train_dataset (`Dataset` or `IterableDataset`):
            Packed sequences. A stream must be endless.
        trainer_args:
            The other arguments of the `Trainer`.
    """

    def __init__(self, num_sequences: int, train_dataset: Dataset | IterableDataset, **trainer_args: Any):
        num_places = batch_size(trainer_args["args"])
        self.num_sequences, self.num_places = num_sequences, num_places
        if isinstance(train_dataset, Dataset):
            empty = {name: EMPTY[name] for name in train_dataset.features}
            empty = Dataset.from_list([empty], features=train_dataset.features)
            train_dataset = concatenate_datasets([train_dataset, empty])
        elif num_places > num_sequences:
            kwargs = {"stream": train_dataset, "num_sequences": num_sequences, "num_places": num_places}
            train_dataset = IterableDataset.from_generator(_filled, gen_kwargs=kwargs)
        super().__init__(train_dataset=train_dataset, **trainer_args)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if not isinstance(self.train_dataset, Dataset):
            return None
        empty_row = len(self.train_dataset) - 1
        return StepSampler(self, empty_row, self.num_sequences, self.num_places, empty_row)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> tuple:
        labels, dataloader = inputs["labels"], self.accelerator.gradient_state
        if dataloader.end_of_dataloader and dataloader.remainder > 0:  # the other rows of all processes are repeated
            labels[max(0, dataloader.remainder - self.args.process_index * len(labels)) :] = IGNORE_INDEX
        # The loss is the sum over the tokens of this process, divided by their mean number in a process.
        num_tokens = self.accelerator.reduce((labels[:, 1:] != IGNORE_INDEX).sum().float(), "mean")
        loss, *others = super().prediction_step(model, inputs, *args, **kwargs)
        # Without a token, the loss is NaN: a fragment of a document may have nothing but its first token.
        self.eval_sums.append(torch.stack([(loss * num_tokens).where(num_tokens > 0, 0.0), num_tokens]))
        return loss, *others

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        self.eval_sums: list[torch.Tensor] = []
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.eval_sums:
            loss, num_tokens = self.accelerator.gather(torch.stack(self.eval_sums)).cpu().double().sum(dim=0)
            output.metrics[f"{metric_key_prefix}_loss"] = (loss / num_tokens).item()
        return output


class StepSampler(Sampler):
    """The indices of an epoch, step by step: a number of rows in the order of the `Trainer` on one process, and in
    each place that they leave, the empty row, or the first rows again. The number of steps so far tells the epoch."""

    def __init__(self, trainer: Trainer, num_rows: int, per_step: int, num_places: int, empty_row: int | None = None):
        self.trainer, self.num_rows, self.per_step = trainer, num_rows, per_step
        self.num_places, self.empty_row = num_places, empty_row
        self.num_steps = math.ceil(num_rows / per_step)

    def __len__(self) -> int:
        return self.num_steps * self.num_places

    def __iter__(self) -> Iterator[int]:
        args, state = self.trainer.args, self.trainer.state
        seed = args.seed if args.data_seed is None else args.data_seed
        generator = torch.Generator().manual_seed(seed + state.global_step // self.num_steps)
        order = torch.randperm(self.num_rows, generator=generator).tolist()
        for start in range(0, self.num_rows, self.per_step):
            step = order[start : start + self.per_step]
            fill = cycle(order if self.empty_row is None else [self.empty_row])
            yield from step + list(islice(fill, self.num_places - len(step)))


def _filled(stream: IterableDataset, num_sequences: int, num_places: int) -> Iterator[dict[str, list[int]]]:
    sequences = iter(stream)
    while step := list(islice(sequences, num_sequences)):
        yield from step + [EMPTY] * (num_places - len(step))
