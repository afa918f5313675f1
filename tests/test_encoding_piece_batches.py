from dataclasses import dataclass

import numpy as np
import pytest
import soundfile

from slam_hf.encoding.ledger import ChunkKey, PendingPart
from slam_hf.encoding.piece_batches import ChunkEnd, ChunkPiece, ChunkPieces, make_batches, make_loader
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


def load(parts, pending=None, chunk_seconds=5.0, num_workers=0, max_seconds=4.0):
    pending = [PendingPart(ChunkKey(part, 0), 0) for part in range(len(parts))] if pending is None else pending
    rules = PieceRules(Segmentation(max_seconds, cut="fixed"))
    return list(make_loader(ChunkPieces(parts, pending, rules, RATE, 25.0, chunk_seconds), num_workers))


def outline(items):
    """Ids of each chunk, whose pieces come before its end, in order."""
    chunks, positions = {}, {}
    for item in items:
        if isinstance(item, ChunkPiece):
            positions.setdefault(item.chunk, []).append(item.position)
        else:
            chunks[item.chunk] = [piece.id for piece in item.pieces]
            assert positions.pop(item.chunk, []) == list(range(len(item.pieces)))
    assert not positions
    return chunks


def test_a_chunk_is_its_pieces_and_its_end(record):
    recordings = [record("a", 0.5), record("b", 1.0)]

    first, second, end = load([ListPart([[recording] for recording in recordings])])

    assert (first.chunk, first.position, second.position) == (ChunkKey(0, 0), 0, 1)
    np.testing.assert_array_equal(second.waveform, soundfile.read(recordings[1].audio, dtype="float32")[0])
    assert (end.next_row, end.is_last, end.skipped) == (2, True, [])
    assert [(piece.id, piece.waveform) for piece in end.pieces] == [("a", None), ("b", None)]
    assert end.seconds == pytest.approx(1.5)


def test_chunks_end_with_the_row_that_fills_them(record):
    rows = [[record("a", 3)], [record("b", 3)], [record("c", 1), record("d", 5)], [record("e", 1)]]

    items = load([ListPart(rows), ListPart([[record("f", 6)]])])

    assert outline(items) == {
        ChunkKey(0, 0): ["a", "b"],
        ChunkKey(0, 1): ["c", "d#t=0,4", "d#t=4"],
        ChunkKey(0, 2): ["e"],
        ChunkKey(1, 0): ["f#t=0,4", "f#t=4"],
    }
    ends = [item for item in items if isinstance(item, ChunkEnd)]
    assert [(end.next_row, end.is_last) for end in ends] == [(2, False), (3, False), (4, True), (1, True)]


def test_a_part_is_continued_where_its_last_chunk_ended(record):
    rows = [[record(id, 3)] for id in "abcde"]
    pending = [PendingPart(ChunkKey(0, 1), first_row=2)]

    assert outline(load([ListPart(rows)], pending)) == {
        ChunkKey(0, 1): ["c", "d"],
        ChunkKey(0, 2): ["e"],
    }


def test_skipped_recordings_are_rows_too(record, tmp_path):
    listed = Skipped("x", SkipReason.WRONGLY_NAMED, "")
    rows = [[listed], [Recording("y", str(tmp_path / "y.wav"))], [record("a", 1)]]

    _, end = load([ListPart(rows)])

    assert end.skipped == [listed, Skipped("y", SkipReason.UNREADABLE, "No such file or directory")]
    assert end.next_row == 3


def test_a_part_without_rows_has_one_empty_chunk():
    assert load([ListPart([])]) == [ChunkEnd(ChunkKey(0, 0), next_row=0, is_last=True)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_chunks(record, num_workers):
    parts = [ListPart([[record(f"{part}-{row}", 1 + row)] for row in range(4)]) for part in range(3)]

    assert outline(load(parts, num_workers=num_workers)) == outline(load(parts))


def shape_of(num_samples):
    """Two pieces of at most 10 samples go together, or three of at most 20."""
    return (2, 10) if num_samples <= 10 else (3, 20)


def chunk_items(part, chunk, *lengths):
    key = ChunkKey(part, chunk)
    pieces = [ChunkPiece(key, position, np.zeros(length)) for position, length in enumerate(lengths)]
    return [*pieces, ChunkEnd(key, next_row=len(lengths))]


def batch_up(items, batch_shape=shape_of, wait_seconds=1000.0):
    """Batches as lists of (part, chunk, position), ends as (part, chunk)."""
    for item in make_batches(items, batch_shape, sampling_rate=1, wait_seconds=wait_seconds):
        if isinstance(item, list):
            yield [(*piece.chunk, piece.position) for piece in item]
        else:
            yield tuple(item.chunk) if isinstance(item, ChunkEnd) else item


def test_a_full_batch_has_pieces_of_one_padded_length_from_any_chunks():
    items = chunk_items(0, 0, 5, 15, 10, 9) + chunk_items(0, 1, 11, 20, 8) + chunk_items(1, 0, 12, 13, 14)

    assert list(batch_up(items)) == [
        [(0, 0, 0), (0, 0, 2)],
        [(0, 0, 1), (0, 1, 0), (0, 1, 1)],
        [(0, 0, 3), (0, 1, 2)],
        (0, 0),
        (0, 1),
        [(1, 0, 0), (1, 0, 1), (1, 0, 2)],
        (1, 0),
    ]


def test_a_chunk_ends_after_its_pieces_and_after_the_chunks_before_it():
    items = chunk_items(0, 0, 5) + chunk_items(0, 1, 15, 15, 15) + chunk_items(0, 2) + chunk_items(0, 3, 6)

    assert list(batch_up(items)) == [
        [(0, 1, 0), (0, 1, 1), (0, 1, 2)],
        [(0, 0, 0), (0, 3, 0)],
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
    ]


def test_what_is_left_of_a_chunk_waits_for_so_much_audio_and_no_longer():
    items = chunk_items(0, 0, 5, 12) + [item for chunk in range(1, 5) for item in chunk_items(0, chunk, 7, 7)]

    assert list(batch_up(items, wait_seconds=15.0))[:5] == [
        [(0, 0, 0), (0, 1, 0)],
        [(0, 1, 1), (0, 2, 0)],
        [(0, 0, 1)],
        (0, 0),
        (0, 1),
    ]


def test_a_batch_comes_as_soon_as_it_is_full():
    items = iter(chunk_items(0, 0, 5, 6, 7))

    assert next(batch_up(items)) == [(0, 0, 0), (0, 0, 1)]
    assert next(items).position == 2


def test_on_a_cpu_each_piece_is_a_batch_and_comes_at_once(tiny_codec):
    items = chunk_items(0, 0, 5, 15) + chunk_items(0, 1, 5)

    assert list(batch_up(items, tiny_codec.batch_shape)) == [
        [(0, 0, 0)],
        [(0, 0, 1)],
        (0, 0),
        [(0, 1, 0)],
        (0, 1),
    ]


def test_what_was_read_before_an_error_is_encoded():
    error = ConnectionError("The server does not answer.")

    assert list(batch_up([*chunk_items(0, 0, 5, 15), *chunk_items(0, 1, 6)[:1], error])) == [
        [(0, 0, 0), (0, 1, 0)],
        [(0, 0, 1)],
        (0, 0),
        error,
    ]


def test_batches_are_nearly_full_on_lengths_of_speech(tiny_codec):
    """Utterances of 1 to 17 s, and pieces of 40 s of long recordings, in chunks of 5 minutes."""
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random((100, 20)) < 0.8, rng.uniform(1, 17, (100, 20)), 40.0).astype(int).tolist()
    items = [item for chunk in range(100) for item in chunk_items(0, chunk, *lengths[chunk])]

    def fill(wait_seconds):
        """Share of audio in what goes through the encoder."""
        audio = encoded = 0
        for batch in make_batches(items, shape, 1, wait_seconds):
            if isinstance(batch, list):
                count, seconds = shape(len(batch[0].waveform))
                audio += sum(len(piece.waveform) for piece in batch)
                encoded += count * seconds
        return audio / encoded

    def shape(seconds):
        count, num_samples = tiny_codec.batch_shape(16_000 * seconds, batched=True)
        return count, num_samples / 16_000

    assert fill(wait_seconds=5 * 3600.0) > 0.9
    assert fill(wait_seconds=0.0) < 0.5
