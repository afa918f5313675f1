"""Batches of about the same number of seconds with little padding."""

from collections.abc import Iterator, Sequence


BATCHES_PER_WINDOW = 16
"""Lengths are sorted among the pieces of this many batches."""


def group_by_length(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    r"""
    Group items of similar lengths, the longest first.

    Args:
        lengths (sequence of `int`):
            Lengths of the items.
        max_total (`int`):
            Most that a group may sum to once its items are padded to the longest. An item that is longer makes a
            group of its own.

    Yields:
        `list[int]`: the positions of a group's items in `lengths`.
    """
    group: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if group and lengths[group[0]] * (len(group) + 1) > max_total:
            yield group
            group = []
        group.append(position)
    if group:
        yield group
