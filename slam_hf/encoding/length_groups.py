"""Batches of about the same number of seconds with little padding."""

from collections.abc import Iterator, Sequence


def group_by_length(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    r"""
    Group items of similar lengths, the longest first.

    Args:
        lengths (sequence of `int`):
            Lengths of the items.
        max_total (`int`):
            Maximum sum of a group once its items are padded to the longest. An item that is longer makes a group of
            its own.

    Yields:
        `list[int]`: the positions of a group's items in `lengths`.
    """
    group: list[int] = []
    for position in _longest_first(lengths):
        if group and lengths[group[0]] * (len(group) + 1) > max_total:
            yield group
            group = []
        group.append(position)
    if group:
        yield group


def fullest_group(lengths: Sequence[int], max_total: int) -> list[int]:
    r"""
    Choose the group with the largest sum among those with little padding: no item is shorter than 0.8 of the longest.

    Args:
        lengths (sequence of `int`):
            Lengths of the items.
        max_total (`int`):
            Maximum sum of the group once its items are padded to the longest. An item that is longer makes a group of
            its own.

    Returns:
        `list[int]`: the positions of its items in `lengths`, the longest first.
    """
    order = _longest_first(lengths)
    groups = []
    for first, longest in enumerate(order):
        candidates = order[first : first + max(1, max_total // lengths[longest])]
        groups.append([position for position in candidates if lengths[position] >= 0.8 * lengths[longest]])
    return max(groups, key=lambda group: sum(lengths[position] for position in group))


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda position: -lengths[position])
