import threading
import time
from dataclasses import dataclass

import pytest

from slam_hf.encoding import progress
from slam_hf.encoding.ledger import ChunkKey, ChunkRecord, Ledger
from slam_hf.encoding.progress import JobProgress


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


def test_the_bar_shows_hours_done_hours_per_hour_and_time_left(ledger):
    bar = JobProgress([FakePart(4 * 3600.0, 50)], ledger)
    bar.start_t -= 36.0

    bar.show(2.5 * 3600.0)

    # One hour of audio in 36 seconds; one and a half are left.
    assert str(bar).endswith("| 2.50 of 4.00 h done, 100.0 h per hour, 00:54 left")


def test_the_bar_does_without_a_total(ledger):
    bar = JobProgress([FakePart(None, None)], ledger)

    bar.show(7200.0)

    assert "| 2.00 h done" in str(bar)
    assert str(bar).endswith("? left")


@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([FakePart(7200.0, 50), FakePart(3600.0, 10)], 10_800.0),
        ([FakePart(None, 50), FakePart(None, 10)], 5400.0 / 20 * 60),  # estimated from the rows
        ([FakePart(None, None)], None),
    ],
)
def test_progress_is_what_the_ledger_has(ledger, parts, total):
    progress = JobProgress(parts, ledger, disable=True)

    assert (progress.seconds_done, progress.total_seconds) == (5400.0, total)


def test_a_job_says_that_it_continues_and_from_where(ledger, capsys):
    with JobProgress([FakePart(7200.0, 50), FakePart(3600.0, 10)], ledger, disable=False):
        pass

    assert "Continuing: 1.50 of 3.00 h are encoded.\n" in capsys.readouterr().err


def test_chunks_of_other_processes_are_counted_from_time_to_time(ledger, monkeypatch):
    monkeypatch.setattr(progress, "MIN_PAUSE", 0.01)
    counted = threading.Event()

    def refresh():
        ledger.records[ChunkKey(0, 2)] = record(30, 1000.0)
        counted.set()

    with JobProgress([FakePart(7200.0, 50), FakePart(3600.0, 10)], ledger) as job:
        monkeypatch.setattr(ledger, "refresh", refresh)
        assert counted.wait(10)
        while job.n < 6400.0 / 3600:
            time.sleep(0.01)


def test_the_bar_of_a_job_that_is_done_is_full(ledger):
    with JobProgress([FakePart(7200.0, 50)], ledger) as job:
        pass
    assert "100%" in str(job) and "| 2.00 of 2.00 h done" in str(job)

    with pytest.raises(ValueError, match="failed"), JobProgress([FakePart(7200.0, 50)], ledger) as job:
        raise ValueError("failed")
    assert "| 1.50 of 2.00 h done" in str(job)


def test_an_error_of_the_network_does_not_end_the_progress(ledger, monkeypatch):
    monkeypatch.setattr(progress, "MIN_PAUSE", 0.01)
    calls = []

    def refresh():
        calls.append(None)
        raise ConnectionError

    with JobProgress([FakePart(7200.0, 50)], ledger):
        monkeypatch.setattr(ledger, "refresh", refresh)
        while len(calls) < 2:
            time.sleep(0.01)
