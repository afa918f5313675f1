"""Makes a source of a `datasets` dataset with audio columns, loaded or streamed."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import (
    Audio,
    Dataset,
    DatasetBuilder,
    Features,
    GeneratorBasedBuilder,
    IterableDataset,
    Value,
    load_dataset_builder,
)
from datasets.fingerprint import Hasher

from .recordings import PAIR_CLIPS, Recording, Skipped, SkipReason, is_utf8, read_labels
from .source_arguments import SourceArguments
from .sources import CHUNK_SECONDS, Part, Row, RowsPart, Source
from .unit_rows import UNIT_ROW_SCHEMA


_WORDS = Features.from_arrow_schema(UNIT_ROW_SCHEMA)["aligned_text"]

ROWS_PER_PART = 256
"""Rows of a loaded dataset in one part: about an hour of utterances."""


@dataclass(frozen=True)
class RowReader:
    """Reads the recordings of a row from its columns.

    Without `id_column`, a row's id is its position. For preference pairs the clips are the columns `prompt`, `chosen`
    and `rejected`, and their texts those columns with `_text`. `label_columns` has the columns of `speaker` and
    `style`.
    """

    audio_column: str = "audio"
    id_column: str | None = None
    text_column: str = "text"
    has_pairs: bool = False
    label_columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def audio_columns(self) -> tuple[str, ...]:
        return PAIR_CLIPS if self.has_pairs else (self.audio_column,)

    def read(self, row: dict[str, Any], position: str) -> Row:
        id = position if self.id_column is None else row.get(self.id_column)
        id = str(id) if isinstance(id, int | float) else id
        if not self.has_pairs:
            text, words = row.get(self.text_column), row.get("aligned_text")
            return [_as_recording(id, row.get(self.audio_column), text, words, position, row, self.label_columns)]
        return [
            _as_recording(
                id and f"{id}/{clip}", row.get(clip), row.get(f"{clip}_text"), None, f"{position}/{clip}", row, {}
            )
            for clip in PAIR_CLIPS
        ]


def divide_dataset(dataset: Dataset, read_row: Callable[[dict[str, Any], str], Any]) -> list[Part]:
    """The parts of a loaded dataset. `read_row` takes a row and its position."""
    firsts, numbers = range(0, len(dataset), ROWS_PER_PART), range(len(dataset))
    parts = [numbers[first : first + ROWS_PER_PART] for first in firsts]
    return [RowsPart(partial(_read_rows, dataset, read_row, part), len(part)) for part in parts]


def _read_rows(
    dataset: Dataset, read_row: Callable[[dict[str, Any], str], Any], numbers: range, start: int
) -> Iterator[Any]:
    for number in numbers[start:]:
        yield read_row(dataset[number], f"{number:09d}")


def _read_shard(stream: IterableDataset, reader: RowReader, index: int, start: int) -> Iterator[Row]:
    """The rows of one of the files (shards) that a streamed dataset reads from."""
    shard = stream.shard(num_shards=stream.num_shards, index=index)
    # In a DataLoader worker, iterating over the dataset itself gives only that worker's share of the shards; `iter`
    # gives all rows.
    for number, batch in enumerate(shard.skip(start).iter(batch_size=1), start=start):
        yield reader.read({column: values[0] for column, values in batch.items()}, f"{index:05d}-{number:07d}")


def dataset_source(
    dataset: Dataset | IterableDataset,
    audio_column: str = "audio",
    id_column: str | None = None,
    text_column: str = "text",
    has_pairs: bool = False,
    label_columns: Mapping[str, str] | None = None,
    identity: dict[str, Any] | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Source:
    r"""
    Make a source of a dataset.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            One split. The shards of a streamed one are its parts, each read by one process.
        audio_column (`str`, *optional*, defaults to `"audio"`):
            Column of the recordings: `datasets.Audio`, paths or URLs, or the content of audio files.
        id_column (`str`, *optional*):
            Column of the rows' ids. Defaults to their positions.
        text_column (`str`, *optional*, defaults to `"text"`):
            Column of the transcripts, if there is one. Times come from `aligned_text`, if there is one.
        has_pairs (`bool`, *optional*, defaults to `False`):
            Whether the rows are preference pairs: three recordings, in the columns `prompt`, `chosen` and `rejected`,
            with their texts in the same columns with `_text`. `audio_column` and `text_column` are not read then.
        label_columns (`dict[str, str]`, *optional*):
            The columns of `speaker` and `style`, text or numbers, where they are read.
        identity (`dict`, *optional*):
            What distinguishes this version of the dataset from others. Defaults to its fingerprint; for a streamed
            dataset, to its description, which does not change when rows change.
        chunk_seconds (`float`, *optional*, defaults to 300.0):
            Seconds of audio in one chunk.

    Returns:
        [`Source`]

    Raises:
        ValueError: a column is missing or of another type.
    """
    reader = RowReader(audio_column, id_column, text_column, has_pairs, label_columns or {})
    dataset = _select_columns(dataset, reader)
    parts: list[Part]
    if isinstance(dataset, IterableDataset):
        parts = [RowsPart(partial(_read_shard, dataset, reader, shard)) for shard in range(dataset.num_shards)]
        described = {"dataset": dataset.info.dataset_name, "config": dataset.info.config_name}
        described |= {"split": str(dataset.split), "shards": dataset.num_shards}
    else:
        parts = divide_dataset(dataset, reader.read)
        described = {"fingerprint": dataset._fingerprint}
    columns = {"audio": reader.audio_columns, "id": id_column, "text": text_column, **reader.label_columns}
    return Source(parts, (identity or described) | {"columns": columns}, chunk_seconds, has_pairs)


def open_dataset(args: SourceArguments) -> Source:
    """Make a source of the dataset that the arguments name, stored or streamed. The first process on each machine lets
    `datasets` prepare a stored one."""
    builder = load_dataset_builder(args.source, args.dataset_config, data_dir=args.data_dir)
    identity = identify_split(builder, args.dataset_split)
    stream = builder.as_streaming_dataset(args.dataset_split) if args.streaming else None
    return dataset_source(
        load_split(builder, args.dataset_split, identity) if stream is None else stream,
        audio_column=args.audio_column,
        id_column=args.id_column,
        text_column=args.text_column,
        has_pairs=args.layout == "preference_pairs",
        label_columns=args.label_columns,
        identity=identity,
        chunk_seconds=args.chunk_seconds,
    )


def identify_split(builder: DatasetBuilder, split: str) -> dict[str, str]:
    """The version of a dataset: the commit of its files on the Hub, or the times of their last changes."""
    files = builder.config.data_files
    if split not in files:
        raise ValueError(f"{builder.dataset_name} has no split {split!r}. Choose a whole one: {', '.join(files)}.")
    origins = repr(files[split].origin_metadata)
    return {
        "dataset": builder.dataset_name,
        "config": builder.config.name,
        "split": split,
        "files": hashlib.sha256(origins.encode()).hexdigest(),
    }


def load_split(builder: DatasetBuilder, split: str, identity: dict[str, Any]) -> Dataset:
    """Prepare and load a split without decoding its audio. `identity` distinguishes this version of the dataset."""
    if not isinstance(builder, GeneratorBasedBuilder):
        builder.download_and_prepare()
        return builder.as_dataset(split)
    # `datasets` encodes rows that are generated in Python, and encoding `Audio` needs torchcodec even for a path.
    rows = _without_types(builder.as_streaming_dataset(split))
    return Dataset.from_generator(rows.__iter__, fingerprint=Hasher.hash(identity))


def _select_columns(dataset: Dataset | IterableDataset, reader: RowReader) -> Dataset | IterableDataset:
    dataset = dataset.with_format(None)
    # The columns of a stream may only be known from its first row.
    present = set(dataset.column_names or next(iter(dataset.take(1)), {}))
    required = {*reader.audio_columns, *filter(None, [reader.id_column]), *reader.label_columns.values()}
    if required - present:
        raise ValueError(f"The dataset has no column {min(required - present)!r}; it has {sorted(present)}.")
    texts = {f"{clip}_text" for clip in PAIR_CLIPS} if reader.has_pairs else {reader.text_column}
    times = set() if reader.has_pairs else {"aligned_text"}
    if dataset.features is not None:
        for column in texts & present:
            if dataset.features[column] not in (Value("string"), Value("large_string"), Value("null")):
                raise ValueError(f"Column {column!r} holds {dataset.features[column]}: expected text.")
        for column in times & present:
            words, expected = getattr(dataset.features[column], "feature", None), _WORDS.feature
            if not isinstance(words, dict) or words.keys() != expected.keys():
                raise ValueError(f"Column {column!r} holds {dataset.features[column]}: expected a list of {expected}.")
        for column in reader.audio_columns:
            feature = dataset.features[column]
            is_file = isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
            if not is_file and not isinstance(feature, Audio) and feature not in (Value("string"), Value("binary")):
                expected = "audio files, as `datasets.Audio` or as paths"
                raise ValueError(f"Column {column!r} holds {feature}: expected {expected}.")
    if dataset.column_names is not None:
        dataset = dataset.select_columns(sorted(required | ((texts | times) & present)))
    if isinstance(dataset, IterableDataset):
        return _without_types(dataset)
    for column in reader.audio_columns:
        if isinstance(dataset.features[column], Audio):
            dataset = dataset.cast_column(column, Audio(decode=False))
    return dataset


def _without_types(stream: IterableDataset) -> IterableDataset:
    """The rows of a stream as they are stored: with types, `datasets` would encode and decode the audio."""
    stream = stream.with_format(None)  # a copy
    stream.info.features = None
    return stream


def _as_recording(
    id: Any, audio: Any, text: Any, words: Any, position: str, row: Mapping[str, Any], label_columns: Mapping[str, str]
) -> Recording | Skipped:
    if audio is None or isinstance(audio, bytes):
        audio = {"bytes": audio, "path": None}
    try:
        return Recording(id, audio, text=text, aligned_text=words, **read_labels(row, label_columns))
    except ValueError as error:
        has_name = isinstance(id, str) and id and is_utf8(id)
        return Skipped(id if has_name else position, SkipReason.MALFORMED, str(error))
