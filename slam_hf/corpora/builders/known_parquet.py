"""Parquet files with columns that are known beforehand."""

from typing import ClassVar

from datasets import Features
from datasets.packaged_modules.parquet.parquet import Parquet

from slam_hf.corpora.builders.named_dataset import NamedDataset


class KnownParquet(NamedDataset, Parquet):
    """Reads Parquet as `datasets` does, with the types of `FEATURES`. Other columns keep the types of the files."""

    FEATURES: ClassVar[Features]
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
        self.info.features = Features(known | {n: f for n, f in self.info.features.items() if n not in known})
        return splits
