"""Shows how far a job is: hours done, hours per hour, and time left."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from .ledger import ChunkKey, Ledger
from .sources import Part


class HoursBar(tqdm):
    """Progress bar in hours of audio, those that earlier runs have encoded included."""

    def __init__(self, seconds_before: float, total_seconds: float | None = None, disable: bool = False):
        super().__init__(
            desc="Encoding",
            total=None if total_seconds is None else total_seconds / 3600,
            initial=seconds_before / 3600,
            bar_format="{l_bar}{bar}| {hours} h done, {hours_per_hour:.1f} h per hour, {time_left} left",
            disable=disable,
        )

    def show(self, seconds: float, total_seconds: float | None) -> None:
        """Move the bar to `seconds` of audio. The total may change."""
        if total_seconds is not None:
            self.total = max(total_seconds, seconds) / 3600
        self.update(seconds / 3600 - self.n)

    @property
    def hours(self) -> str:
        return f"{self.n:.2f}" if self.total is None else f"{self.n:.2f} of {self.total:.2f}"

    @property
    def format_dict(self) -> dict[str, Any]:
        fields = super().format_dict
        hours_per_hour = (self.n - fields["initial"]) / max(fields["elapsed"], 1e-6) * 3600
        time_left = "?"
        if self.total is not None and hours_per_hour > 0:
            time_left = self.format_interval(max(0.0, self.total - self.n) / hours_per_hour * 3600)
        return fields | {"hours": self.hours, "hours_per_hour": hours_per_hour, "time_left": time_left}


class JobProgress:
    """Progress of all processes, in a `with` block: what the ledger has, and what this process has encoded since.
    Where the length of the parts is not known, it is estimated from their numbers of rows."""

    def __init__(self, parts: Sequence[Part], ledger: Ledger, disable: bool):
        self.parts = parts
        self.ledger = ledger
        self.unfinished: Counter[ChunkKey] = Counter()
        self.count_again_at = time.monotonic() + 10.0
        self._count()
        self.bar = HoursBar(self._seconds_done(), self.total_seconds, disable=disable)
        if ledger.records and not disable:
            self.bar.write(f"Continuing: {self.bar.hours} h are encoded.", sys.stderr)

    def __enter__(self) -> "JobProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def add_piece(self, chunk: ChunkKey, seconds: float) -> None:
        self.unfinished[chunk] += seconds
        self.bar.show(self._seconds_done(), self.total_seconds)

    def end_chunk(self, chunk: ChunkKey) -> None:
        self.unfinished.pop(chunk, None)
        self.seconds_finished += self.ledger.records[chunk].seconds
        started = time.monotonic()
        if not self.bar.disable and started >= self.count_again_at:
            self.ledger.refresh()
            self._count()
            # Of a large job, counting takes seconds: at most a fiftieth of the time is spent on it.
            self.count_again_at = started + max(10.0, 50 * (time.monotonic() - started))
        self.bar.show(self._seconds_done(), self.total_seconds)

    def _count(self) -> None:
        """Count what is in the ledger, where chunks of other processes appear."""
        self.seconds_finished = sum(record.seconds for record in self.ledger.records.values())
        rows: Counter[int] = Counter()  # of each part, up to the end of its last finished chunk
        for key, record in self.ledger.records.items():
            rows[key.part] = max(rows[key.part], record.next_row)
        lengths, nums_rows = [part.seconds for part in self.parts], [part.num_rows for part in self.parts]
        self.total_seconds = None
        if None not in lengths:
            self.total_seconds = sum(lengths)
        elif None not in nums_rows and rows.total() > 0:
            self.total_seconds = self.seconds_finished / rows.total() * sum(nums_rows)

    def _seconds_done(self) -> float:
        return self.seconds_finished + self.unfinished.total()
