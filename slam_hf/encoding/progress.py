"""Shows how far a tokenisation is: hours done, hours per hour, and time left."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from .ledger import Ledger
from .piece_batches import ChunkKey
from .sources import Part


class HoursBar(tqdm):
    r"""
    Progress bar in hours of audio.

    Args:
        seconds_before (`float`):
            Audio that earlier runs have tokenised.
        total_seconds (`float`, *optional*):
            Audio in all, where that is known.
        disable (`bool`, *optional*, defaults to `False`):
            Whether to show nothing.
    """

    def __init__(self, seconds_before: float, total_seconds: float | None = None, disable: bool = False):
        self.hours_before = seconds_before / 3600
        self.started_at = time.monotonic()
        super().__init__(
            total=None if total_seconds is None else total_seconds / 3600,
            initial=self.hours_before,
            bar_format="{l_bar}{bar}| {hours} h done, {hours_per_hour:.1f} h per hour, {time_left} left",
            disable=disable,
        )

    def show(self, seconds: float, total_seconds: float | None) -> None:
        """Move the bar to this much audio done, with what earlier runs did, of a total that may change."""
        if total_seconds is not None:
            self.total = max(total_seconds, seconds) / 3600
        self.update(seconds / 3600 - self.n)

    @property
    def format_dict(self) -> dict[str, Any]:
        fields = super().format_dict
        hours_elapsed = max(time.monotonic() - self.started_at, 1e-6) / 3600
        hours_per_hour = (self.n - self.hours_before) / hours_elapsed
        fields["hours"] = f"{self.n:.2f}" if self.total is None else f"{self.n:.2f} of {self.total:.2f}"
        fields["hours_per_hour"] = hours_per_hour
        fields["time_left"] = "?"
        if self.total is not None and hours_per_hour > 0:
            fields["time_left"] = self.format_interval(max(0.0, self.total - self.n) / hours_per_hour * 3600)
        return fields


class JobProgress:
    r"""
    Progress of all processes: what the ledger has, and what this process has encoded since.

    Args:
        parts (sequence of [`Part`]):
            The input. Where its length is not known, it is estimated from its number of rows.
        ledger ([`Ledger`]):
            The finished chunks.
        disable (`bool`):
            Whether to show nothing.
    """

    def __init__(self, parts: Sequence[Part], ledger: Ledger, disable: bool):
        self.parts = parts
        self.ledger = ledger
        self.unfinished: Counter[ChunkKey] = Counter()
        self.bar = HoursBar(self._seconds_done(), self._total_seconds(), disable=disable)

    def add_batch(self, chunk: ChunkKey, seconds: float) -> None:
        self.unfinished[chunk] += seconds
        self.bar.show(self._seconds_done(), self._total_seconds())

    def end_chunk(self, chunk: ChunkKey) -> None:
        self.unfinished.pop(chunk, None)
        if not self.bar.disable:
            self.ledger.refresh()
            self.bar.show(self._seconds_done(), self._total_seconds())

    def close(self) -> None:
        self.bar.close()

    def _seconds_done(self) -> float:
        return sum(record.seconds for record in self.ledger.records.values()) + sum(self.unfinished.values())

    def _total_seconds(self) -> float | None:
        seconds = [part.seconds for part in self.parts]
        if None not in seconds:
            return sum(seconds)
        rows = [part.num_rows for part in self.parts]
        rows_done = self._rows_done()
        if None in rows or rows_done == 0:
            return None
        return sum(rows) / rows_done * sum(record.seconds for record in self.ledger.records.values())

    def _rows_done(self) -> int:
        """Rows in the ledger: of each part, up to the end of its last finished chunk."""
        ends: Counter[int] = Counter()
        for key, record in self.ledger.records.items():
            ends[key.part] = max(ends[key.part], record.next_row)
        return sum(ends.values())
