import pytest

from slam_hf.encoding.length_groups import group_by_length


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([3], [[0]]),
        ([2, 5, 3, 5, 1], [[1, 3], [2, 0, 4]]),  # 5 + 5 fill a group of 10; 3 + 3 + 3 leave no room for a fourth
        ([12, 1, 1], [[0], [1, 2]]),  # longer than a group: alone
        ([4, 4, 4], [[0, 1], [2]]),  # equal lengths keep their order
    ],
)
def test_groups_fill_up_to_the_total_with_padding_counted(lengths, expected):
    assert list(group_by_length(lengths, max_total=10)) == expected
