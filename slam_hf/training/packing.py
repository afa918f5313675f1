"""Packs documents into sequences of a fixed length, without attention between documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset, disable_progress_bars
from trl import pack_dataset


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)

IGNORE_INDEX = -100

ROWS_TOGETHER = 1000
"""Rows that are encoded and packed together."""

MIN_FILL = 0.98
"""Where documents are cut, every packed sequence is at least this full, but for the last one of a thousand
documents."""


def pack_documents(
    documents: AnyDataset, context_length: int, num_proc: int | None = None, cut_documents: bool = True
) -> AnyDataset:
    r"""
    Pack documents into sequences of a fixed length. Every token is used exactly once.

    Documents stay whole where they fit, and those that are longer than a sequence are cut (TRL's `bfd_split`). With
    `cut_documents`, the sequences that this leaves too empty are filled again with their documents one after the
    other, cut where a sequence ends: a corpus of documents a little longer than half a sequence would otherwise waste
    almost half of every batch.

    Returns:
        `Dataset` or `IterableDataset`: rows with the columns `input_ids`, of at most `context_length` tokens, and
        `seq_lengths`, the lengths of the documents in them.
    """
    if isinstance(documents, IterableDataset):
        kwargs = {"parts": split(documents), "context_length": context_length, "cut_documents": cut_documents}
        return IterableDataset.from_generator(_packed, gen_kwargs=kwargs)
    processes = {"num_proc": num_proc, "batch_size": ROWS_TOGETHER}
    packed = pack_dataset(documents, context_length, strategy="bfd_split", map_kwargs=processes)
    if not cut_documents:
        return packed
    return (
        packed.with_format("arrow")
        .map(refill_sequences, batched=True, fn_kwargs={"context_length": context_length}, **processes)
        .with_format(None)
    )


def _packed(parts: list[IterableDataset], context_length: int, cut_documents: bool) -> Iterator[dict[str, list[int]]]:
    # Not by `map`: the key of a batch that a stream maps is made of those of its thousand rows, and after two maps
    # each key takes megabytes.
    disable_progress_bars()
    for documents in parts:
        for batch in documents.iter(ROWS_TOGETHER):
            yield from pack_documents(Dataset.from_dict(batch), context_length, cut_documents=cut_documents)


def split(stream: IterableDataset) -> list[IterableDataset]:
    """The shards of a stream. `IterableDataset.from_generator` divides a list of them among dataloader workers."""
    return [stream.shard(stream.num_shards, index) for index in range(stream.num_shards)]


def separate_documents(documents: AnyDataset, context_length: int, num_proc: int | None = None) -> AnyDataset:
    """Give each document a sequence of its own, cut to `context_length`, with the columns of [`pack_documents`]: what
    packing is compared with."""

    def cut(document: dict[str, list[int]]) -> dict[str, list[int]]:
        ids = document["input_ids"][:context_length]
        return {"input_ids": ids, "seq_lengths": [len(ids)]}

    return documents.map(cut, **map_processes(documents, num_proc))


def refill_sequences(sequences: pa.Table, context_length: int) -> pa.Table:
    """Put the documents of sequences that are less than 98 % full one after the other, and cut them where a sequence
    ends, if that needs fewer sequences."""
    sparse = pc.less(pc.list_value_length(sequences["input_ids"]), MIN_FILL * context_length)
    full, rest = sequences.filter(pc.invert(sparse)), sequences.filter(sparse)
    tokens = pc.list_flatten(rest["input_ids"]).combine_chunks()
    sequence_starts = np.arange(0, len(tokens), context_length)
    if len(sequence_starts) == len(rest):
        return sequences
    document_ends = np.cumsum(pc.list_flatten(rest["seq_lengths"]).to_numpy())
    edges = np.union1d(np.union1d(sequence_starts, document_ends), [0])
    first_pieces = np.searchsorted(edges[:-1], np.append(sequence_starts, len(tokens)))
    columns = {
        "input_ids": _lists(np.append(sequence_starts, len(tokens)), tokens, sequences.schema.field("input_ids").type),
        "seq_lengths": _lists(first_pieces, pa.array(np.diff(edges)), sequences.schema.field("seq_lengths").type),
    }
    return pa.concat_tables([full, pa.table(columns).select(full.column_names)])


def _lists(offsets: np.ndarray, values: pa.Array, list_type: pa.ListType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.cast(list_type.value_type)).cast(list_type)


def map_processes(dataset: AnyDataset, num_proc: int | None) -> dict[str, int | None]:
    """The argument `num_proc` of `map`, which an `IterableDataset` does not have."""
    return {} if isinstance(dataset, IterableDataset) else {"num_proc": num_proc}


@dataclass
class PackingCollator:
    r"""
    Collates packed sequences into tensors of a fixed shape, for a model that keeps the documents of a sequence apart.

    A sequence holds its documents one after the other, then padding:

    ```
    input_ids     <S>  a  b <S> | <S>  c <S> | <PAD> <PAD>
    position_ids    0  1  2   3 |   0  1   2 |     0     1
    labels       -100  a  b <S> | -100 c <S> |  -100  -100
    ```

    There is no `attention_mask`: the positions tell the model where documents begin. Without packing, there are no
    positions either. The number of the corpus of each sequence is kept, where it has one.

    Args:
        context_length (`int`):
            Length of a sequence with its padding, in tokens.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id of the padding.
        packing (`bool`, *optional*, defaults to `True`):
            Whether documents share a sequence.
    """

    context_length: int
    pad_token_id: int = 0
    packing: bool = True

    def __call__(self, sequences: Sequence[dict[str, list[int]]]) -> dict[str, torch.LongTensor]:
        rows = [self._row(sequence["input_ids"], sequence["seq_lengths"]) for sequence in sequences]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        if all("corpus" in sequence for sequence in sequences):
            batch["corpus"] = torch.tensor([sequence["corpus"] for sequence in sequences])
        return batch

    def _row(self, input_ids: list[int], lengths: list[int]) -> dict[str, np.ndarray]:
        padding = self.context_length - len(input_ids)
        ids = np.pad(np.asarray(input_ids, dtype=np.int64), (0, padding), constant_values=self.pad_token_id)
        labels = ids.copy()
        labels[np.cumsum(lengths) - lengths] = IGNORE_INDEX
        labels[len(input_ids) :] = IGNORE_INDEX
        row = {"input_ids": ids, "labels": labels}
        if self.packing:
            row["position_ids"] = np.concatenate([np.arange(length) for length in (*lengths, padding)])
        return row
