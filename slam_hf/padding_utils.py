"""Splits padded batches into their rows. Errors name the row.

The codec works on rows, since padding would change what normalises over time or convolves.
"""

import torch


def split_clips(input_values: torch.Tensor, padding_mask: torch.Tensor | None, min_samples: int) -> list[torch.Tensor]:
    """
    The clips of a batch of mono audio of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`, each
    without the padding on its right, where the mask of shape `(batch_size, num_samples)` is 0. `ValueError` where a
    type or a shape does not fit, or where a clip is too short or holds NaN or infinite samples.
    """
    if not input_values.is_floating_point():
        raise ValueError(f"`input_values` must be floating point samples between -1 and 1, got {input_values.dtype}.")
    if input_values.ndim == 3 and input_values.shape[1] != 1:
        raise ValueError(f"`input_values` has {input_values.shape[1]} channels: average them, the codec is mono.")
    batch = _flatten(input_values, "input_values", "num_samples")
    num_samples = [batch.shape[1]] * len(batch) if padding_mask is None else _read_mask(padding_mask, batch.shape)
    clips = [row[:length] for row, length in zip(batch, num_samples, strict=True)]
    for i, length in enumerate(num_samples):
        if length < min_samples:
            raise ValueError(f"Clip {i} has {length} samples; a single frame takes {min_samples}.")
    # For all clips at once: each transfer from a GPU waits for its work to finish.
    ends = torch.tensor(num_samples, device=batch.device)[:, None]
    is_audio = torch.arange(batch.shape[1], device=batch.device) < ends
    for i, is_finite in enumerate((batch.isfinite() | ~is_audio).all(dim=1).tolist()):
        if not is_finite:
            raise ValueError(f"Clip {i} holds NaN or infinite samples.")
    return clips


def split_units(audio_codes: torch.Tensor, num_units: int) -> list[torch.LongTensor]:
    """
    The unit sequences of a batch of shape `(batch_size, 1, length)` or `(batch_size, length)`, each without the
    padding of -1 on its right. `ValueError` where the type or the shape does not fit, or where a sequence is empty or
    holds what is not a unit.
    """
    if audio_codes.is_floating_point() or (audio_codes.ndim == 3 and audio_codes.shape[1] != 1):
        raise ValueError(f"`audio_codes` must be integers of one codebook, got {_describe(audio_codes)}.")
    batch = _flatten(audio_codes, "audio_codes", "length").long()
    lengths = (batch != -1).sum(dim=1).tolist()
    sequences = [row[:length] for row, length in zip(batch, lengths, strict=True)]
    for i, units in enumerate(sequences):
        if not len(units):
            raise ValueError(f"Sequence {i} has no units.")
        if units.min() < 0 or units.max() >= num_units:
            raise ValueError(f"Sequence {i} must hold units from 0 to {num_units - 1}, padded on the right with -1.")
    return sequences


def split_durations(durations: torch.Tensor, sequences: list[torch.LongTensor]) -> list[torch.LongTensor]:
    """
    The durations, in frames, of unit sequences from [`split_units`], without what follows the end of each.
    `ValueError` where the type or the shape does not fit, or where a unit lasts less than a frame.
    """
    count, longest = len(sequences), max(len(units) for units in sequences)
    if durations.is_floating_point() or durations.ndim != 2 or len(durations) != count or durations.shape[1] < longest:
        raise ValueError(f"`durations` must be integers of shape ({count}, {longest}), got {_describe(durations)}.")
    rows = [row[: len(units)] for row, units in zip(durations, sequences, strict=True)]
    for i, row in enumerate(rows):
        if row.min() < 1:
            raise ValueError(f"Sequence {i} has a unit that lasts no frame: every duration must be at least 1.")
    return rows


def _flatten(batch: torch.Tensor, name: str, last: str) -> torch.Tensor:
    """A batch of shape `(batch_size, length)`, from one that may have a dimension of channels or codebooks."""
    if batch.ndim not in (2, 3) or not len(batch):
        raise ValueError(
            f"`{name}` must have shape (batch_size, 1, {last}) or (batch_size, {last}), got {tuple(batch.shape)}."
        )
    return batch.flatten(1)


def _read_mask(padding_mask: torch.Tensor, shape: torch.Size) -> list[int]:
    """Number of samples in each row of `padding_mask`."""
    if padding_mask.shape != shape:
        raise ValueError(f"`padding_mask` must have shape {tuple(shape)}, got {tuple(padding_mask.shape)}.")
    mask = padding_mask.bool()
    lengths = mask.sum(dim=1)
    on_the_right = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    for i, fits in enumerate((mask == on_the_right).all(dim=1).tolist()):
        if not fits:
            raise ValueError(f"`padding_mask` of clip {i} has 0 before 1: pad on the right.")
    return lengths.tolist()


def _describe(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
