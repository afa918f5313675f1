"""Rows that Python makes of files, as the tables that a builder gives."""

import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar

import datasets
import pyarrow as pa

from slam_hf.corpora.builders.named_dataset import NamedDataset


ROWS_PER_TABLE = 1000


class TablesOfRows(NamedDataset, datasets.ArrowBasedBuilder):
    """Reads the rows of each file with `read_rows`, as columns of `FEATURES`."""

    FEATURES: ClassVar[datasets.Features]

    def read_rows(self, file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.FEATURES)

    def _split_generators(self, dl_manager):
        # A file that was downloaded has lost its name.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"paths": dl_manager.download(names), "names": names})
            for split, names in self.config.data_files.items()
        ]

    def _generate_tables(self, paths, names):
        for file_number, (path, name) in enumerate(zip(paths, names, strict=True)):
            with open(path, "rb") as file:
                rows = self.read_rows(file, str(name))
                for number in itertools.count():
                    batch = list(itertools.islice(rows, ROWS_PER_TABLE))
                    if not batch:
                        break
                    table = pa.Table.from_pylist(batch, schema=self.FEATURES.arrow_schema)
                    yield datasets.builder.Key(file_number, number), table
