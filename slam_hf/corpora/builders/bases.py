"""What builders have in common: how `load_dataset` finds their data, and the columns that they give."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import datasets
import pyarrow as pa
from datasets.data_files import DataFilesDict, get_data_patterns
from datasets.packaged_modules.parquet.parquet import Parquet


ROWS_PER_TABLE = 1000


class NamedDataset:
    """A builder that reads `data_dir` or `data_files`. Without them, its name means the folder of that name where
    there is one, as it does without this package."""

    def __new__(
        cls,
        cache_dir: str | None = None,
        dataset_name: str | None = None,
        config_name: str | None = None,
        data_files: DataFilesDict | None = None,
        data_dir: str | None = None,
        **options: Any,
    ):
        if dataset_name is not None and data_dir is None and Path(dataset_name).is_dir():
            # Where neither is given, `datasets` passes all files of the working directory.
            folder = Path.cwd().as_posix()
            if data_files == DataFilesDict.from_patterns(get_data_patterns(folder), base_path=folder):
                return datasets.load_dataset_builder(f"./{dataset_name}", config_name, cache_dir=cache_dir)
        return super().__new__(cls)


class KnownParquet(NamedDataset, Parquet):
    """Reads Parquet as `datasets` does, with the types of `FEATURES`. Other columns keep the types of the files."""

    FEATURES: ClassVar[datasets.Features]
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Columns of `FEATURES` that files may lack: they are null then."""

    def _split_generators(self, dl_manager):
        splits = super()._split_generators(dl_manager)
        missing = self.FEATURES.keys() - self.OPTIONAL - self.info.features.keys()
        if missing and self.config.columns is None:
            raise ValueError(
                f"The files are not {self.dataset_name!r}: they have no column {min(missing)!r}, "
                f"only {sorted(self.info.features)}. `load_dataset('parquet', ...)` reads any columns."
            )
        wanted = self.FEATURES.keys() if self.config.columns is None else self.config.columns
        known = {name: feature for name, feature in self.FEATURES.items() if name in wanted}
        self.info.features = datasets.Features(known | {n: f for n, f in self.info.features.items() if n not in known})
        return splits


class TablesOfRows(NamedDataset, datasets.ArrowBasedBuilder):
    """Reads the rows of each file with `read_rows`, as columns of `FEATURES`."""

    FEATURES: ClassVar[datasets.Features]

    def read_rows(self, file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=self.FEATURES)

    def _split_generators(self, dl_manager):
        splits = []
        for split, names in self.config.data_files.items():
            # A file that was downloaded has lost its name.
            files = {"paths": dl_manager.download(list(names)), "names": list(names)}
            splits.append(datasets.SplitGenerator(name=split, gen_kwargs=files))
        return splits

    def _generate_tables(self, paths, names):
        for file_number, (path, name) in enumerate(zip(paths, names, strict=True)):
            with open(path, "rb") as file:
                rows = self.read_rows(file, name)
                for number in itertools.count():
                    batch = list(itertools.islice(rows, ROWS_PER_TABLE))
                    if not batch:
                        break
                    table = pa.Table.from_pylist(batch, schema=self.FEATURES.arrow_schema)
                    yield datasets.builder.Key(file_number, number), table
