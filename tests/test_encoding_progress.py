from dataclasses import dataclass

import pytest

from slam_hf.encoding.ledger import ChunkKey, ChunkRecord, Ledger
from slam_hf.encoding.progress import HoursBar, JobProgress


@dataclass
class FakePart:
    seconds: float | None
    num_rows: int | None


def record(next_row, seconds):
    return ChunkRecord(next_row, False, seconds, 1, 1, 1, [])


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.records = {ChunkKey(0, 0): record(10, 3600.0), ChunkKey(0, 1): record(20, 1800.0)}
    return ledger


def test_the_bar_shows_hours_done_hours_per_hour_and_time_left():
    bar = HoursBar(seconds_before=3600.0, total_seconds=4 * 3600.0)
    bar.start_t -= 36.0

    bar.show(2 * 3600.0, total_seconds=None)

    # One hour of audio in 36 seconds; two are left.
    assert str(bar).endswith("| 2.00 of 4.00 h done, 100.0 h per hour, 01:12 left")


def test_the_bar_does_without_a_total():
    bar = HoursBar(seconds_before=0.0)

    bar.show(1800.0, total_seconds=None)

    assert "| 0.50 h done" in str(bar)
    assert str(bar).endswith("? left")


def test_progress_counts_the_ledger_and_what_is_under_way(ledger):
    progress = JobProgress([FakePart(7200.0, 50), FakePart(3600.0, 10)], ledger, disable=True)
    assert (progress._seconds_done(), progress.total_seconds) == (5400.0, 10_800.0)

    progress.add_piece(ChunkKey(1, 0), 600.0)
    assert progress._seconds_done() == 6000.0

    ledger.records[ChunkKey(1, 0)] = record(5, 900.0)
    progress.end_chunk(ChunkKey(1, 0))
    assert progress._seconds_done() == 6300.0


def test_a_total_that_is_not_known_is_estimated_from_the_rows(ledger):
    progress = JobProgress([FakePart(None, 50), FakePart(None, 10)], ledger, disable=True)

    assert progress.total_seconds == 5400.0 / 20 * 60


def test_a_stream_of_unknown_length_has_no_total(ledger):
    assert JobProgress([FakePart(None, None)], ledger, disable=True).total_seconds is None


def test_a_job_says_that_it_continues_and_from_where(ledger, capsys):
    with JobProgress([FakePart(7200.0, 50), FakePart(3600.0, 10)], ledger, disable=False):
        pass

    assert "Continuing: 1.50 of 3.00 h are encoded.\n" in capsys.readouterr().err


def test_chunks_of_other_processes_are_counted_from_time_to_time(ledger, monkeypatch):
    progress = JobProgress([FakePart(7200.0, 50), FakePart(3600.0, 10)], ledger, disable=False)

    def refresh():
        ledger.records[ChunkKey(0, 2)] = record(30, 1000.0)

    monkeypatch.setattr(ledger, "refresh", refresh)
    ledger.records[ChunkKey(1, 0)] = record(5, 900.0)
    progress.end_chunk(ChunkKey(1, 0))
    assert progress._seconds_done() == 6300.0

    progress.count_again_at -= 11.0
    ledger.records[ChunkKey(1, 1)] = record(10, 100.0)
    progress.end_chunk(ChunkKey(1, 1))
    assert progress._seconds_done() == 7400.0
