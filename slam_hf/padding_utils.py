"""Splits padded batches into their rows, and makes batches of rows. Errors name the row.

A GPU is waited for once per batch, to check it. For each row, it would idle between one clip and the next.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence


AudioBatch = torch.Tensor | np.ndarray | Sequence[torch.Tensor | np.ndarray | Sequence[float]]
"""A padded batch of clips, or a list of clips."""

UnitBatch = torch.Tensor | np.ndarray | Sequence[torch.Tensor | np.ndarray | Sequence[int]]
"""A padded batch of sequences of integers, or a list of sequences."""


def as_tensor(values: Any, name: str) -> torch.Tensor:
    """A tensor of numbers in a tensor, an array or a list. A `ValueError` says that they are not."""
    try:
        return torch.as_tensor(np.require(values, requirements="CW") if isinstance(values, np.ndarray) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` must hold numbers, in a tensor, an array or lists: {error}") from error


def as_integers(values: Any, name: str) -> torch.LongTensor:
    """As [`as_tensor`], for integers of any size."""
    tensor = as_tensor(values, name)
    if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        raise ValueError(f"`{name}` must be integers, got {tensor.dtype} of shape {tuple(tensor.shape)}.")
    return tensor.long()


def as_batch(values: Any, name: str, padding: int) -> torch.LongTensor:
    """As [`as_integers`]. The sequences in a list may have different lengths, and are padded on the right."""
    if isinstance(values, list | tuple) and all(isinstance(row, torch.Tensor) or np.iterable(row) for row in values):
        rows = [as_integers(row, name) for row in values]
        if rows and all(row.ndim == 1 for row in rows):
            return pad_sequence(rows, batch_first=True, padding_value=padding)
    return as_integers(values, name)


def split_clips(
    input_values: AudioBatch, padding_mask: torch.Tensor | np.ndarray | None, min_samples: int
) -> list[torch.Tensor]:
    """
    The clips of a batch of mono audio of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`, each
    without the padding on its right, where the mask of shape `(batch_size, num_samples)` is 0. Or those of a list of
    clips of shape `(num_samples,)`, which are checked in the same way and several times as fast. All may be tensors,
    arrays or lists of numbers. `ValueError` where a type or a shape does not fit, or where a clip is too short or
    holds NaN or infinite samples.
    """
    is_list = isinstance(input_values, list | tuple)
    clips = [as_tensor(clip, "input_values") for clip in (input_values if is_list else [input_values])]
    if is_list and (padding_mask is not None or not clips or any(clip.ndim != 1 for clip in clips)):
        raise ValueError(
            "A list of clips holds tensors of shape (num_samples,), mono, and takes no `padding_mask`. With "
            '`return_tensors="pt"`, a feature extractor gives a padded batch in place of a list.'
        )
    for clip in clips:
        if not clip.is_floating_point():
            raise ValueError(f"`input_values` must be floating point samples between -1 and 1, got {clip.dtype}.")
    clips = [clip.float() for clip in clips]  # or a batch would have the type of its first clip
    # The sum is finite if all samples are, and takes a tenth of the time of a look at each of them.
    if is_list:
        sums = torch.stack([clip.sum(dtype=torch.float64) for clip in clips])
        num_samples, is_on_the_right = [len(clip) for clip in clips], [True] * len(clips)
        is_finite = sums.isfinite().tolist()
    else:
        clips, mask = _flatten_audio(clips[0], padding_mask)
        lengths = mask.view(torch.int8).sum(dim=1, dtype=torch.int32)  # booleans are slow to sum on a CPU
        are_equal = (mask == is_inside(lengths, clips.shape[1])).all(dim=1)
        sums = clips.where(mask, 0).sum(dim=1, dtype=torch.float64)
        num_samples, is_on_the_right, is_finite = torch.stack([lengths, are_equal, sums.isfinite()]).tolist()
    for i, (length, on_the_right, finite) in enumerate(zip(num_samples, is_on_the_right, is_finite, strict=True)):
        if not on_the_right:
            raise ValueError(f"`padding_mask` of clip {i} has 0 before 1: pad on the right.")
        if length < min_samples:
            raise ValueError(f"Clip {i} has {length} samples; a single frame takes {min_samples}.")
        if not finite:
            raise ValueError(f"Clip {i} holds NaN or infinite samples.")
    return [clip[:length] for clip, length in zip(clips, num_samples, strict=True)]


def _flatten_audio(batch: torch.Tensor, padding_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio and its mask of booleans, both of shape `(batch_size, num_samples)`."""
    if batch.ndim == 3 and batch.shape[1] != 1:
        raise ValueError(f"`input_values` has {batch.shape[1]} channels: average them, the codec is mono.")
    batch = _flatten(batch, "input_values", "num_samples")
    if padding_mask is None:
        return batch, batch.new_ones(batch.shape, dtype=torch.bool)
    padding_mask = as_tensor(padding_mask, "padding_mask")
    if padding_mask.shape != batch.shape:
        raise ValueError(f"`padding_mask` must have shape {tuple(batch.shape)}, got {tuple(padding_mask.shape)}.")
    return batch, padding_mask.to(batch.device).bool()


def split_units(audio_codes: UnitBatch, num_units: int, device: torch.device | str = "cpu") -> list[torch.LongTensor]:
    """
    The unit sequences of a batch of shape `(batch_size, 1, length)` or `(batch_size, length)`, each without the
    padding of -1 on its right, or of a list of sequences; on a device. `ValueError` where the type or the shape does
    not fit, or where a sequence is empty or holds what is not a unit.
    """
    batch = copy_to(as_batch(audio_codes, "audio_codes", padding=-1), torch.device(device))
    if batch.ndim == 3 and batch.shape[1] != 1:
        raise ValueError(f"`audio_codes` must be of one codebook, got shape {tuple(batch.shape)}.")
    batch = _flatten(batch, "audio_codes", "length")
    num_given = (batch != -1).sum(dim=1)
    is_after_end = ~is_inside(num_given, batch.shape[1])
    are_units = ((batch >= 0) & (batch < num_units) | is_after_end).all(dim=1)
    lengths, fits = torch.stack([num_given, are_units]).tolist()
    for i, length in enumerate(lengths):
        if not length:
            raise ValueError(f"Sequence {i} has no units.")
        if not fits[i]:
            raise ValueError(f"Sequence {i} must hold units from 0 to {num_units - 1}, padded on the right with -1.")
    return [row[:length] for row, length in zip(batch, lengths, strict=True)]


def split_durations(durations: UnitBatch, sequences: list[torch.LongTensor]) -> list[torch.LongTensor]:
    """
    The durations, in frames, of unit sequences from [`split_units`], without what follows the end of each.
    `ValueError` where the type or the shape does not fit, or where a unit lasts less than a frame.
    """
    count, longest = len(sequences), max(len(units) for units in sequences)
    durations = copy_to(as_batch(durations, "durations", padding=0), sequences[0].device)
    if durations.ndim != 2 or len(durations) != count or durations.shape[1] < longest:
        raise ValueError(f"`durations` must be integers of shape ({count}, {longest}), got {tuple(durations.shape)}.")
    lengths = copy_to(torch.tensor([len(units) for units in sequences]), durations.device)
    is_after_end = ~is_inside(lengths, durations.shape[1])
    for i, lasts in enumerate(((durations >= 1) | is_after_end).all(dim=1).tolist()):
        if not lasts:
            raise ValueError(f"Sequence {i} has a unit that lasts no frame: every duration must be at least 1.")
    return [row[: len(units)] for row, units in zip(durations, sequences, strict=True)]


def make_batches(
    rows: list[torch.Tensor], shapes: Iterable[tuple[int, int]], device: torch.device
) -> Iterator[tuple[list[int], torch.Tensor, torch.LongTensor]]:
    """
    Batches on a device of rows of shape `(length,)`, each padded with zeros to the shape of the batch that it belongs
    to. Rows with the same shape share batches. Yields the indices of the rows in a batch, the batch, and the length of
    each row. The last batch of a shape is filled up with rows of zeros, which count as whole.
    """
    by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, shape in enumerate(shapes):
        by_shape[shape].append(index)
    for (count, longest), members in by_shape.items():
        for start in range(0, len(members), count):
            indices = members[start : start + count]
            chosen = [rows[index] for index in indices]
            pin_memory = chosen[0].device.type == "cpu" and device.type == "cuda"
            batch = chosen[0].new_zeros((count, longest), pin_memory=pin_memory)
            for padded, row in zip(batch, chosen, strict=False):
                padded[: len(row)] = row
            lengths = torch.tensor([*map(len, chosen)] + [longest] * (count - len(chosen)))
            yield indices, copy_to(batch, device), copy_to(lengths, device)


def in_order(batches: list[torch.Tensor], indices: list[list[int]], length: int) -> torch.Tensor:
    """The rows of batches in the order of their indices, each padded or cut to a length."""
    rows = [
        nn.functional.pad(batch[: len(chosen)], (0, length - batch.shape[1]))
        for batch, chosen in zip(batches, indices, strict=True)
    ]
    order = torch.tensor([index for chosen in indices for index in chosen]).argsort()
    return torch.cat(rows).index_select(0, copy_to(order, rows[0].device))


def is_inside(lengths: torch.LongTensor, longest: int) -> torch.BoolTensor:
    """Which positions of rows belong to them and not to their padding, of shape `(batch_size, longest)`."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device. From memory that is not pinned, a GPU would have to finish its work first."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # as it is, if it is pinned
    return tensor.to(device, non_blocking=device.type == "cuda")


def _flatten(batch: torch.Tensor, name: str, last: str) -> torch.Tensor:
    """A batch of shape `(batch_size, length)`, from one that may have a dimension of channels or codebooks."""
    if batch.ndim not in (2, 3) or not len(batch):
        raise ValueError(
            f"`{name}` must have shape (batch_size, 1, {last}) or (batch_size, {last}), got {tuple(batch.shape)}."
        )
    return batch.flatten(1)
