"""Rows that Python makes, as the tables that a builder gives."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from datasets import Features
from datasets.builder import Key


ROWS_PER_TABLE = 1000


def as_tables(file_number: int, rows: Iterable[dict[str, Any]], features: Features) -> Iterator[tuple[Key, pa.Table]]:
    """Tables of the rows of a file, each with the key that tells it from the tables of other files."""
    rows = iter(rows)
    for number in itertools.count():
        batch = list(itertools.islice(rows, ROWS_PER_TABLE))
        if not batch:
            return
        yield Key(file_number, number), pa.Table.from_pylist(batch, schema=features.arrow_schema)
