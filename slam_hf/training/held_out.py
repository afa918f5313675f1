"""Rows of a dataset that are held out of training."""

from typing import TypeVar

from accelerate import PartialState
from datasets import Dataset, IterableDataset


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)

MAX_HELD_OUT = 100
"""Maximum number of rows that are held out by default."""


def is_held_out_split(wanted: str, default: str, trained_on: str, splits: list[str], path: str) -> bool:
    r"""
    Whether a dataset has the split that is to be held out. Without it, rows of the training split are.

    Args:
        wanted (`str`):
            The split, or an expression of `datasets` such as `"validation[:100]"`.
        default (`str`):
            The split that is wanted unless a user says otherwise, and which may be missing.
        trained_on (`str`):
            The training split.
        splits (`list[str]`):
            The splits of the dataset.
        path (`str`):
            The dataset.

    Raises:
        ValueError: a split that a user wants is missing.
    """
    parts = wanted.split("+")
    if all(part.partition("[")[0] in splits for part in parts):
        return not set(parts) & set(trained_on.split("+"))
    if wanted != default:
        raise ValueError(f"'{path}' has no split '{wanted}' to hold out, only {', '.join(splits)}.")
    return False


def hold_out(rows: AnyDataset, count: int | None, path: str) -> tuple[AnyDataset, AnyDataset]:
    r"""
    Hold out rows at the beginning of a dataset.

    Args:
        rows (`Dataset` or `IterableDataset`):
            The rows.
        count (`int`, *optional*):
            Number of rows to hold out. Defaults to 1 % of the first 10,000, and at least 1.
        path (`str`):
            The dataset.

    Returns:
        `tuple`: the rows that remain, and those that are held out.

    Raises:
        ValueError: no row would remain.
    """
    enough = 100 * MAX_HELD_OUT if count is None else count + 1
    total = sum(1 for _ in rows.take(enough)) if isinstance(rows, IterableDataset) else len(rows)
    if count is None:
        count = max(1, min(total // 100, MAX_HELD_OUT))
        PartialState().print(f"'{path}' has no split to hold out: {count} of its rows are held out of training.")
    if count >= total:
        raise ValueError(f"'{path}' has {total} row(s): to hold out {count} would leave none to train on.")
    return rows.skip(count), rows.take(count)
