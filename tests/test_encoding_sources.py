import numpy as np
import pytest
import soundfile

from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.sources import FilePart, file_source, load_seconds, share_parts


@pytest.fixture
def record(tmp_path):
    def record(id, seconds, **kwargs):
        path = tmp_path / f"{id}.wav"
        soundfile.write(path, np.zeros(int(seconds * 8000)), 8000)
        return Recording(id, str(path), **kwargs)

    return record


def test_parts_take_recordings_until_they_have_enough(record):
    recordings = [record("a", 3), record("b", 3), record("c", 6), record("d", 1)]

    source = file_source(recordings, chunk_seconds=5.0)

    rows = [[recording] for recording in recordings]
    assert [list(part.read(0)) for part in source.parts] == [rows[:2], rows[2:3], rows[3:]]
    assert [part.seconds for part in source.parts] == [6.0, 6.0, 1.0]
    assert [part.num_rows for part in source.parts] == [2, 1, 1]


def test_only_the_excerpt_counts(record):
    recordings = [record("a", 9, offset=2.0, duration=3.0), record("b", 9, offset=7.0), record("c", 9, offset=10.0)]

    (part,) = file_source(recordings).parts

    assert part.seconds == 3.0 + 2.0


def test_files_without_a_length_fill_parts_too(tmp_path):
    missing = [Recording(str(i), str(tmp_path / f"{i}.wav")) for i in range(5)]

    source = file_source(missing, chunk_seconds=2.0)

    assert [part.num_rows for part in source.parts] == [2, 2, 1]
    assert [part.seconds for part in source.parts] == [0.0, 0.0, 0.0]


def test_a_part_is_read_from_any_row_on(record):
    recordings = [record("a", 1), record("b", 1), Skipped("c", SkipReason.WRONGLY_NAMED, "")]

    (part,) = file_source(recordings).parts

    assert list(part.read(0)) == [[recording] for recording in recordings]
    assert list(part.read(2)) == [[recordings[2]]]


def test_an_id_is_given_once(record):
    first, second = record("a", 1), record("a", 1, offset=0.5)

    (part,) = file_source([first, second]).parts

    skipped = Skipped("a", SkipReason.WRONGLY_NAMED, "an earlier recording has this id")
    assert list(part.read(0)) == [[first], [skipped]]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [record("a", 1), record("c", 1)],
        lambda record: [record("a", 1), record("b", 2)],
        lambda record: [record("a", 1), record("b", 1, offset=0.5)],
        lambda record: [record("a", 1), record("b", 1, text="other")],
        lambda record: [record("b", 1), record("a", 1)],
        lambda record: [record("a", 1)],
    ],
)
def test_another_input_has_another_identity(record, change):
    source = file_source([record("a", 1), record("b", 1)])

    assert file_source(change(record)).identity != source.identity


def test_the_identity_does_not_depend_on_where_the_files_are(record, tmp_path):
    source = file_source([record("a", 1)])
    elsewhere = tmp_path / "elsewhere.wav"
    elsewhere.write_bytes((tmp_path / "a.wav").read_bytes())

    assert file_source([Recording("a", str(elsewhere))]).identity == source.identity


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1.0), (0.5, 1.0), (7.5, 7.5)])
def test_every_recording_counts_at_least_a_second(seconds, expected):
    assert load_seconds(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([8.0, 1.0, 7.0, 2.0, 6.0], [[0, 1], [2, 3, 4]]),
        ([None, 1.0, 7.0, 2.0, 6.0], [[0, 1], [2, 3, 4]]),  # then rows count, and these have one each
        ([0.0, 50.0, 0.0], [[0], [1, 2]]),
        ([5.0], [[], [0]]),
        ([], [[], []]),
    ],
)
def test_parts_are_shared_by_seconds(seconds, expected):
    parts = [FilePart(None, 0, 1, length) for length in seconds]

    assert [list(share_parts(parts, rank, world_size=2)) for rank in range(2)] == expected


@pytest.mark.parametrize("world_size", [1, 2, 7, 40])
def test_every_part_is_in_one_share(world_size):
    generator = np.random.default_rng(0)
    for num_parts in range(30):
        parts = [FilePart(None, 0, 1, seconds) for seconds in generator.choice([0.0, 1.0, 300.0, 9e3], num_parts)]
        shares = [part for rank in range(world_size) for part in share_parts(parts, rank, world_size)]

        assert shares == list(range(num_parts))
