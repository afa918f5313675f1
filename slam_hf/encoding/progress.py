"""Shows how far a job is: hours done, hours per hour, and time left."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from .ledger import Ledger
from .sources import Part


MIN_PAUSE = 1.0
"""Minimum number of seconds between two reads of the ledger."""


class JobProgress(tqdm):
    """Shows how much of a job is in the ledger, in a `with` block: one bar for all processes that encode, in hours of
    audio, those of earlier runs among them. Where the length of the parts is not known, it is estimated from their
    numbers of rows."""

    disable = True  # until there is a bar

    def __init__(self, parts: Sequence[Part], ledger: Ledger, disable: bool = False, desc: str = "Encoding"):
        self.parts = parts
        self.ledger = ledger
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        ledger.refresh()
        total = self.total_seconds
        super().__init__(
            desc=desc,
            total=None if total is None else total / 3600,
            initial=self.seconds_done / 3600,
            bar_format="{l_bar}{bar}| {hours} h done, {hours_per_hour:.1f} h per hour, {time_left} left",
            disable=disable,
        )
        if ledger.records and not disable:
            self.write(f"Continuing: {self.hours} h are encoded.", sys.stderr)

    def __enter__(self) -> "JobProgress":
        if not self.disable:
            self._thread.start()
        return self

    def __exit__(self, error: type | None, *details: object) -> None:
        self._ended.set()
        if not self.disable:
            self._thread.join()
        if error is None:
            self.show(max(self.seconds_done, self.total_seconds or 0.0))  # the total may be an estimate
        self.close()

    def _follow(self) -> None:
        pause = MIN_PAUSE
        while not self._ended.wait(pause):
            started = time.monotonic()
            with suppress(OSError):  # of the network, which the tasks report
                self.ledger.refresh()
            self.show(self.seconds_done)
            # Counting the chunks of a large job takes seconds: at most a fiftieth of the time is spent on it.
            pause = max(MIN_PAUSE, 50 * (time.monotonic() - started))

    def show(self, seconds: float) -> None:
        """Move the bar to `seconds` of audio. The total may change."""
        if (total := self.total_seconds) is not None:
            self.total = max(total, seconds) / 3600
        self.update(seconds / 3600 - self.n)

    @property
    def seconds_done(self) -> float:
        return sum(record.seconds for record in self.ledger.records.values())

    @property
    def total_seconds(self) -> float | None:
        rows: Counter[int] = Counter()  # of each part, up to the end of its last finished chunk
        for key, record in self.ledger.records.items():
            rows[key.part] = max(rows[key.part], record.next_row)
        lengths, nums_rows = [part.seconds for part in self.parts], [part.num_rows for part in self.parts]
        if None not in lengths:
            return sum(lengths)
        if None not in nums_rows and rows.total() > 0:
            return self.seconds_done / rows.total() * sum(nums_rows)
        return None

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
