"""Packing of documents into contexts of a fixed length, without attention between documents."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, Features, IterableDataset, List, Value
from trl import pack_dataset

from ..tokenization_hubert_unit import HubertUnitTokenizer


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)

IGNORE_INDEX = -100

MIN_FILL = 0.98
"""A context is never emptier than this, except for the last one of a thousand documents."""


def encode_documents(corpus: AnyDataset, num_units: int, num_proc: int | None = None) -> AnyDataset:
    r"""
    Turn a tokenised corpus into documents of ids, `<S> units <S>`.

    Args:
        corpus (`Dataset` or `IterableDataset`):
            Rows with a column `units`.
        num_units (`int`):
            Number of units of the codec.
        num_proc (`int`, *optional*):
            Number of processes; not for an `IterableDataset`.

    Returns:
        `Dataset` or `IterableDataset`: rows with the column `input_ids`.

    Raises:
        ValueError: a unit is outside the vocabulary.
    """
    tokenizer = HubertUnitTokenizer(num_units=num_units, add_eos_token=True)

    def encode(batch: dict[str, Any]) -> dict[str, list[list[int]]]:
        return {"input_ids": tokenizer.encode_units(batch["units"])["input_ids"]}

    return corpus.select_columns("units").map(
        encode,
        batched=True,
        remove_columns="units",
        features=Features({"input_ids": List(Value("uint16"))}),
        **_processes(corpus, num_proc),
    )


def pack_documents(documents: AnyDataset, context_length: int, num_proc: int | None = None) -> AnyDataset:
    r"""
    Put documents together into contexts, each token of a thousand documents exactly once.

    Documents stay whole where they fit (TRL's best-fit decreasing); longer ones than a context are cut. Documents of
    contexts that remain too empty are put into contexts one after the other, and cut where a context ends: a corpus
    of documents a little longer than half a context would otherwise waste almost half of every batch.

    Args:
        documents (`Dataset` or `IterableDataset`):
            Rows with the column `input_ids`.
        context_length (`int`):
            Length of a context, in tokens.
        num_proc (`int`, *optional*):
            Number of processes; not for an `IterableDataset`.

    Returns:
        `Dataset` or `IterableDataset`: rows with the columns `input_ids`, of at most `context_length`, and
        `seq_lengths`, the lengths of the documents in it.
    """
    processes = _processes(documents, num_proc)
    packed = pack_dataset(documents, context_length, strategy="bfd_split", map_kwargs=processes)
    return (
        packed.with_format("arrow")
        .map(refill_contexts, batched=True, fn_kwargs={"context_length": context_length}, **processes)
        .with_format(None)
    )


def separate_documents(documents: AnyDataset, context_length: int, num_proc: int | None = None) -> AnyDataset:
    r"""
    Give each document a context of its own, and cut what is longer: what packing is compared with.

    Args:
        documents (`Dataset` or `IterableDataset`):
            Rows with the column `input_ids`.
        context_length (`int`):
            Length of a context, in tokens.
        num_proc (`int`, *optional*):
            Number of processes; not for an `IterableDataset`.

    Returns:
        `Dataset` or `IterableDataset`: rows with the columns of [`pack_documents`].
    """

    def cut(document: dict[str, list[int]]) -> dict[str, list[int]]:
        ids = document["input_ids"][:context_length]
        return {"input_ids": ids, "seq_lengths": [len(ids)]}

    return documents.map(cut, **_processes(documents, num_proc))


def refill_contexts(contexts: pa.Table, context_length: int) -> pa.Table:
    r"""
    Put the documents of contexts that are less than 98 % full one after the other, and cut them where a context ends,
    if that needs fewer contexts.

    Args:
        contexts (`pa.Table`):
            Columns `input_ids` and `seq_lengths`.
        context_length (`int`):
            Length of a context, in tokens.

    Returns:
        `pa.Table`: the same columns and tokens.
    """
    sparse = pc.less(pc.list_value_length(contexts["input_ids"]), MIN_FILL * context_length)
    full, rest = contexts.filter(pc.invert(sparse)), contexts.filter(sparse)
    tokens = pc.list_flatten(rest["input_ids"]).combine_chunks()
    context_starts = np.arange(0, len(tokens), context_length)
    if len(context_starts) == len(rest):
        return contexts
    document_ends = np.cumsum(pc.list_flatten(rest["seq_lengths"]).to_numpy())
    edges = np.union1d(np.union1d(context_starts, document_ends), [0])
    first_pieces = np.searchsorted(edges[:-1], np.append(context_starts, len(tokens)))
    columns = {
        "input_ids": _lists(np.append(context_starts, len(tokens)), tokens, contexts.schema.field("input_ids").type),
        "seq_lengths": _lists(first_pieces, pa.array(np.diff(edges)), contexts.schema.field("seq_lengths").type),
    }
    return pa.concat_tables([full, pa.table(columns).select(full.column_names)])


def _lists(offsets: np.ndarray, values: pa.Array, list_type: pa.ListType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.cast(list_type.value_type)).cast(list_type)


def _processes(dataset: AnyDataset, num_proc: int | None) -> dict[str, int | None]:
    return {} if isinstance(dataset, IterableDataset) else {"num_proc": num_proc}


@dataclass
class PackingCollator:
    r"""
    Collates packed contexts into tensors of a fixed shape, for a model that keeps the documents of a context apart.

    A row holds its documents one after the other, then padding:

    ```
    input_ids     <S>  a  b <S> | <S>  c <S> | <PAD> <PAD>
    position_ids    0  1  2   3 |   0  1   2 |     0     1
    labels       -100  a  b <S> | -100 c <S> |  -100  -100
    ```

    There is no `attention_mask`: the positions tell the model where documents begin.

    Args:
        context_length (`int`):
            Length of a row, in tokens.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id that fills a row.
    """

    context_length: int
    pad_token_id: int = 0

    def __call__(self, contexts: Iterable[dict[str, list[int]]]) -> dict[str, torch.LongTensor]:
        rows = [self._row(context["input_ids"], context["seq_lengths"]) for context in contexts]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def _row(self, input_ids: list[int], lengths: list[int]) -> dict[str, np.ndarray]:
        padding = self.context_length - len(input_ids)
        ids = np.pad(np.asarray(input_ids, dtype=np.int64), (0, padding), constant_values=self.pad_token_id)
        labels = ids.copy()
        labels[np.cumsum(lengths) - lengths] = IGNORE_INDEX
        labels[len(input_ids) :] = IGNORE_INDEX
        positions = np.concatenate([np.arange(length) for length in (*lengths, padding)])
        return {"input_ids": ids, "position_ids": positions, "labels": labels}
