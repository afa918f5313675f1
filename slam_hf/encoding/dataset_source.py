"""The input that a `datasets` dataset with audio columns makes, loaded or streamed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Audio, Dataset, Features, IterableDataset, Value

from .recordings import PAIR_CLIPS, Recording
from .sources import CHUNK_SECONDS, Part, Row, Source
from .unit_rows import UNIT_ROW_SCHEMA


ROWS_PER_PART = 256
"""Rows of a loaded dataset in one part: about an hour of utterances."""

_FILE = {"bytes": Value("binary"), "path": Value("string")}


@dataclass(frozen=True)
class RowReader:
    """Which columns of a row hold its recordings.

    Without `id_column`, a row's id is its position. For preference pairs the clips are the columns `prompt`, `chosen`
    and `rejected`, and their texts those columns with `_text`.
    """

    audio_column: str = "audio"
    id_column: str | None = None
    text_column: str = "text"
    has_pairs: bool = False

    @property
    def audio_columns(self) -> tuple[str, ...]:
        return PAIR_CLIPS if self.has_pairs else (self.audio_column,)

    def read(self, row: dict[str, Any], position: str) -> Row:
        id = position if self.id_column is None else str(row[self.id_column])
        if self.has_pairs:
            clips = ((clip, _as_file(row[clip]), row.get(f"{clip}_text")) for clip in PAIR_CLIPS)
            return [Recording(f"{id}/{clip}", audio, text=text) for clip, audio, text in clips]
        text, words = row.get(self.text_column), row.get("aligned_text")
        return [Recording(id, _as_file(row[self.audio_column]), text=text, aligned_text=words)]


@dataclass(frozen=True)
class DatasetPart:
    """Rows `first` to `last` (excluded) of a loaded dataset."""

    dataset: Dataset
    reader: RowReader
    first: int
    last: int
    seconds: float | None = None

    @property
    def num_rows(self) -> int:
        return self.last - self.first

    def read(self, start: int) -> Iterator[Row]:
        for number in range(self.first + start, self.last):
            yield self.reader.read(self.dataset[number], f"{number:09d}")


@dataclass(frozen=True)
class StreamPart:
    """One of the files (shards) that a streamed dataset reads from."""

    stream: IterableDataset
    reader: RowReader
    shard: int
    seconds: float | None = None
    num_rows: int | None = None

    def read(self, start: int) -> Iterator[Row]:
        shard = self.stream.shard(num_shards=self.stream.num_shards, index=self.shard)
        # In a DataLoader worker, iterating over the dataset itself gives the worker its share of the shards only;
        # `iter` gives all rows.
        for number, batch in enumerate(shard.skip(start).iter(batch_size=1), start=start):
            row = {column: values[0] for column, values in batch.items()}
            yield self.reader.read(row, f"{self.shard:05d}-{number:07d}")


def dataset_source(
    dataset: Dataset | IterableDataset,
    audio_column: str = "audio",
    id_column: str | None = None,
    text_column: str = "text",
    has_pairs: bool = False,
    identity: dict[str, Any] | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Source:
    r"""
    Make a source of a dataset.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            One split. The shards of a streamed one are its parts, each read by one process.
        audio_column (`str`, *optional*, defaults to `"audio"`):
            Column of the recordings: `datasets.Audio`, paths, or the content of audio files.
        id_column (`str`, *optional*):
            Column of the rows' ids. Defaults to their positions.
        text_column (`str`, *optional*, defaults to `"text"`):
            Column of what is said, if there is one. Times come from `aligned_text`, if there is one.
        has_pairs (`bool`, *optional*, defaults to `False`):
            Whether the rows are preference pairs: three recordings, in the columns `prompt`, `chosen` and `rejected`,
            with their texts in the same columns with `_text`. `audio_column` and `text_column` are not read then.
        identity (`dict`, *optional*):
            What tells this dataset from another version of it. Defaults to its fingerprint; for a streamed dataset,
            to its description, which does not see that rows have changed.
        chunk_seconds (`float`, *optional*, defaults to 300.0):
            Audio in one chunk.

    Returns:
        [`Source`]

    Raises:
        ValueError: a column is missing, or the audio column cannot be read as files.
    """
    reader = RowReader(audio_column, id_column, text_column, has_pairs)
    dataset = _select_columns(dataset, reader)
    parts: list[Part]
    if isinstance(dataset, IterableDataset):
        parts = [StreamPart(dataset, reader, shard) for shard in range(dataset.num_shards)]
        described = {"dataset": dataset.info.dataset_name, "config": dataset.info.config_name}
        described |= {"split": str(dataset.split), "shards": dataset.num_shards}
    else:
        firsts = range(0, len(dataset), ROWS_PER_PART)
        parts = [DatasetPart(dataset, reader, i, min(i + ROWS_PER_PART, len(dataset))) for i in firsts]
        described = {"fingerprint": dataset._fingerprint}
    columns = {"audio": reader.audio_columns, "id": id_column, "text": text_column}
    return Source(parts, (identity or described) | {"columns": columns}, chunk_seconds, has_pairs)


def _select_columns(dataset: Dataset | IterableDataset, reader: RowReader) -> Dataset | IterableDataset:
    if isinstance(dataset, IterableDataset) and dataset.features is None:
        dataset = dataset._resolve_features()
    present = set(dataset.features)
    wanted = {*reader.audio_columns, *([] if reader.id_column is None else [reader.id_column])}
    if wanted - present:
        raise ValueError(f"The dataset has no column {min(wanted - present)!r}; it has {sorted(present)}.")
    texts = {f"{clip}_text" for clip in PAIR_CLIPS} if reader.has_pairs else {reader.text_column}
    for column in texts & present:
        if dataset.features[column] not in (Value("string"), Value("large_string"), Value("null")):
            raise ValueError(f"Column {column!r} holds {dataset.features[column]}: expected text.")
    times = set() if reader.has_pairs else {"aligned_text"}
    for column in times & present:
        _check_times(dataset.features[column])
    dataset = dataset.select_columns(sorted(wanted | ((texts | times) & present)))
    for column in reader.audio_columns:
        dataset = _undecoded(dataset, column)
    return dataset


def _check_times(feature: Any) -> None:
    words = getattr(feature, "feature", None)
    expected = Features.from_arrow_schema(UNIT_ROW_SCHEMA)["aligned_text"].feature
    if not isinstance(words, dict) or words.keys() != expected.keys():
        raise ValueError(f"Column 'aligned_text' holds {feature}: expected a list of {expected}.")


def _undecoded(dataset: Dataset | IterableDataset, column: str) -> Dataset | IterableDataset:
    feature = dataset.features[column]
    if feature in (Value("string"), Value("binary"), _FILE):
        return dataset
    if not isinstance(feature, Audio):
        raise ValueError(f"Column {column!r} holds {feature}: expected audio files, as `datasets.Audio` or as paths.")
    # The rows of a stream that are made in Python pass through `Audio.encode_example`, which needs torchcodec even for
    # paths; a loaded dataset would be rewritten to change to the plain type.
    return dataset.cast_column(column, _FILE if isinstance(dataset, IterableDataset) else Audio(decode=False))


def _as_file(value: str | bytes | dict[str, Any] | None) -> str | dict[str, Any]:
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    return {"bytes": None, "path": None} if value is None else value
