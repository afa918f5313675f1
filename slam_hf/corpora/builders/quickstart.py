"""The corpus and the preference pairs that come with the package."""

from typing import Any

from datasets import load_dataset_builder
from datasets.packaged_modules.parquet.parquet import Parquet

from slam_hf.quickstart import resolve_path


class Quickstart(Parquet):
    """Gives the builder of the Parquet folder that `quickstart:corpus` or `quickstart:preferences` names."""

    def __new__(
        cls,
        cache_dir: str | None = None,
        dataset_name: str | None = None,
        config_name: str | None = None,
        **options: Any,
    ):
        return load_dataset_builder(resolve_path(dataset_name), config_name, cache_dir=cache_dir)
