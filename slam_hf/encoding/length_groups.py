"""Batches of about the same number of seconds with little padding."""

from collections.abc import Iterator, Sequence


def group_by_length(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    """Positions of items of similar lengths, the longest first. The sum of a group, padded to its longest item, is at
    most `max_total`; an item that is longer makes a group of its own."""
    group: list[int] = []
    for position in _longest_first(lengths):
        if group and lengths[group[0]] * (len(group) + 1) > max_total:
            yield group
            group = []
        group.append(position)
    if group:
        yield group


def fullest_group(lengths: Sequence[int], max_total: int) -> list[int]:
    """Positions of the group with the largest sum among those with little padding: no item is shorter than 0.8 of the
    longest, which comes first. `max_total` is as in [`group_by_length`]."""
    order = _longest_first(lengths)
    groups = []
    for first, longest in enumerate(order):
        candidates = order[first : first + max(1, max_total // lengths[longest])]
        groups.append([position for position in candidates if lengths[position] >= 0.8 * lengths[longest]])
    return max(groups, key=lambda group: sum(lengths[position] for position in group))


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda position: -lengths[position])
