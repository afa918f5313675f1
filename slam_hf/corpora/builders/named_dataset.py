"""What `load_dataset` gives for the name of a builder alone."""

from pathlib import Path
from typing import Any

from datasets import load_dataset_builder
from datasets.data_files import DataFilesDict, get_data_patterns


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
                return load_dataset_builder(f"./{dataset_name}", config_name, cache_dir=cache_dir)
        return super().__new__(cls)
