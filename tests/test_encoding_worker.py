import pytest

from slam_hf.encoding.sources import FilePart
from slam_hf.encoding.worker import share_parts


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([8.0, 1.0, 7.0, 2.0, 6.0], [[0, 1, 3], [2, 4]]),
        ([None, 1.0, 7.0, 2.0, 6.0], [[0, 2, 4], [1, 3]]),  # then rows count, and these have one each
    ],
)
def test_parts_are_shared_by_seconds(seconds, expected):
    parts = [FilePart((None,), length) for length in seconds]

    assert share_parts(parts, world_size=2) == expected
