"""Batches of about the same number of seconds with little padding."""

from collections.abc import Iterator, Sequence


def group_by_length(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    """Positions of items of similar lengths, the longest first. The sum of a group, padded to its longest item, is at
    most `max_total`; an item that is longer makes a group of its own."""
    group: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if group and lengths[group[0]] * (len(group) + 1) > max_total:
            yield group
            group = []
        group.append(position)
    if group:
        yield group
