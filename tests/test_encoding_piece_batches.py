from dataclasses import dataclass

import numpy as np
import pytest
import soundfile

from slam_hf.encoding.ledger import ChunkKey, PendingPart
from slam_hf.encoding.piece_batches import Batch, ChunkEnd, PieceBatches, make_loader
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.segmentation import Segmentation


RATE = 16_000


@dataclass
class ListPart:
    rows: list
    seconds: float | None = None
    num_rows: int | None = None

    def read(self, start):
        return iter(self.rows[start:])


@pytest.fixture
def record(tmp_path):
    def record(id, seconds):
        waveform = 0.1 * np.random.default_rng(hash(id) % 100).standard_normal(int(seconds * RATE))
        soundfile.write(tmp_path / f"{id}.wav", waveform, RATE, subtype="FLOAT")
        return Recording(id, str(tmp_path / f"{id}.wav"))

    return record


def load(parts, pending=None, chunk_seconds=5.0, batch_seconds=2.0, num_workers=0, max_seconds=4.0):
    pending = [PendingPart(ChunkKey(part, 0), 0) for part in range(len(parts))] if pending is None else pending
    rules = PieceRules(Segmentation(max_seconds, cut="fixed"))
    batches = PieceBatches(parts, pending, rules, RATE, 25.0, chunk_seconds, batch_seconds)
    return list(make_loader(batches, num_workers))


def outline(items):
    """Ids and batches of each chunk, in short."""
    chunks, batches = {}, {}
    for item in items:
        if isinstance(item, Batch):
            batches.setdefault(item.chunk, []).append(item.positions)
        else:
            chunks[item.chunk] = ([piece.id for piece in item.pieces], batches.pop(item.chunk, []))
    assert not batches
    return chunks


def test_a_chunk_is_its_batches_and_its_end(record):
    recordings = [record("a", 0.5), record("b", 1.0), record("c", 0.9)]

    first, second, end = load([ListPart([[recording] for recording in recordings])])

    assert (first.positions, second.positions) == ([1, 2], [0])
    assert first.lengths.tolist() == [16_000, 14_400]
    expected = soundfile.read(recordings[2].audio, dtype="float32")[0]
    np.testing.assert_array_equal(first.waveforms[1], np.pad(expected, (0, 1600)))
    assert (end.next_row, end.is_last, end.skipped) == (3, True, [])
    assert [(piece.id, piece.waveform) for piece in end.pieces] == [("a", None), ("b", None), ("c", None)]
    assert end.seconds == pytest.approx(2.4)


def test_chunks_end_with_the_row_that_fills_them(record):
    rows = [[record("a", 3)], [record("b", 3)], [record("c", 1), record("d", 5)], [record("e", 1)]]

    items = load([ListPart(rows), ListPart([[record("f", 6)]])])

    assert outline(items) == {
        ChunkKey(0, 0): (["a", "b"], [[0], [1]]),
        ChunkKey(0, 1): (["c", "d#t=0,4", "d#t=4"], [[1], [0, 2]]),
        ChunkKey(0, 2): (["e"], [[0]]),
        ChunkKey(1, 0): (["f#t=0,4", "f#t=4"], [[0], [1]]),
    }
    ends = [item for item in items if isinstance(item, ChunkEnd)]
    assert [(end.next_row, end.is_last) for end in ends] == [(2, False), (3, False), (4, True), (1, True)]


def test_a_part_is_continued_where_its_last_chunk_ended(record):
    rows = [[record(id, 3)] for id in "abcde"]
    pending = [PendingPart(ChunkKey(0, 1), first_row=2)]

    assert outline(load([ListPart(rows)], pending)) == {
        ChunkKey(0, 1): (["c", "d"], [[0], [1]]),
        ChunkKey(0, 2): (["e"], [[0]]),
    }


def test_skipped_recordings_are_rows_too(record, tmp_path):
    listed = Skipped("x", SkipReason.WRONGLY_NAMED, "")
    rows = [[listed], [Recording("y", str(tmp_path / "y.wav"))], [record("a", 1)]]

    _, end = load([ListPart(rows)])

    assert end.skipped == [listed, Skipped("y", SkipReason.UNREADABLE, "No such file or directory")]
    assert end.next_row == 3


def test_a_part_without_rows_has_one_empty_chunk():
    assert load([ListPart([])]) == [ChunkEnd(ChunkKey(0, 0), next_row=0, is_last=True)]


def test_a_batch_comes_once_its_audio_is_read(record):
    lengths = [1, 0.5, 0.9, 0.5, 0.6, 1, 0.4, 0.5]
    read = []

    class CountingPart(ListPart):
        def read(self, start):
            for row in super().read(start):
                read.append(row)
                yield row

    part = CountingPart([[record(f"{number}", seconds)] for number, seconds in enumerate(lengths)])
    pending = [PendingPart(ChunkKey(0, 0), 0)]
    items = iter(PieceBatches([part], pending, PieceRules(), RATE, 25.0, chunk_seconds=100.0, batch_seconds=2.0))

    # 2.4 s wait, of which 1 and 0.9 s are similar.
    assert (next(items).positions, len(read)) == ([0, 2], 3)
    # 2.6 s wait: 0.6, 0.5 and 0.5 s are more than 1 s.
    assert (next(items).positions, len(read)) == ([4, 1, 3], 6)
    assert [item.positions for item in items if isinstance(item, Batch)] == [[5], [7, 6]]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_chunks(record, num_workers):
    parts = [ListPart([[record(f"{part}-{row}", 1 + row)] for row in range(4)]) for part in range(3)]

    assert outline(load(parts, num_workers=num_workers)) == outline(load(parts))
