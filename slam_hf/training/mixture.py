"""Loads the corpora that a model is trained on, holds documents out, and packs and mixes the rest."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import (
    Dataset,
    Features,
    IterableDataset,
    List,
    Value,
    concatenate_datasets,
    get_dataset_split_names,
    interleave_datasets,
    load_dataset,
)

from .arguments import CorpusConfig, PretrainArguments
from .held_out import AnyDataset, hold_out, is_held_out_split
from .packing import encode_documents, map_processes, pack_documents, separate_documents


SHUFFLE_BUFFER = 1000
"""Packed sequences of a stream that are shuffled together."""

_UNITS = Features({"units": List(Value("uint16"))})


def load_corpora(args: PretrainArguments) -> tuple[list[Dataset | IterableDataset], Dataset | IterableDataset]:
    r"""
    Load the corpora, and the documents that are held out of them.

    Args:
        args ([`PretrainArguments`]):
            The corpora and how to hold out.

    Returns:
        `tuple`: the corpora to train on, and the held-out documents of all of them, with the column `units` (uint16).

    Raises:
        ValueError: a corpus has no column `units`, a unit that is outside the vocabulary, or too few documents.
    """
    training, validation = zip(*(_load_corpus(corpus, args) for corpus in args.datasets), strict=True)
    return list(training), concatenate_datasets(list(validation))


def _load_corpus(corpus: CorpusConfig, args: PretrainArguments) -> tuple[AnyDataset, AnyDataset]:
    documents = _load(corpus, corpus.split, args)
    if args.validation_documents is None:
        splits = get_dataset_split_names(
            corpus.path, corpus.name, data_files=corpus.data_files, revision=corpus.revision
        )
        if is_held_out_split(args.validation_split, "validation", corpus.split, splits, corpus.path):
            return documents, _load(corpus, args.validation_split, args)
    return hold_out(documents, args.validation_documents, corpus.path)


def _load(corpus: CorpusConfig, split: str, args: PretrainArguments) -> Dataset | IterableDataset:
    dataset = load_dataset(
        corpus.path,
        corpus.name,
        data_files=corpus.data_files,
        revision=corpus.revision,
        split=split,
        streaming=args.streaming,
    )
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if "units" not in columns:
        raise ValueError(
            f"'{corpus.path}' is not a tokenised corpus: it has the columns {columns}, and `units` is missing."
        )
    check = partial(_check_units, num_units=args.num_units, corpus=corpus.path)
    return (
        dataset.select_columns("units")
        .with_format("arrow")
        .map(check, batched=True, with_indices=True, features=_UNITS, **map_processes(dataset, args.dataset_num_proc))
        .with_format(None)
    )


def _check_units(documents: pa.Table, rows: list[int], num_units: int, corpus: str) -> pa.Table:
    units = documents["units"].combine_chunks()
    if not pa.types.is_nested(units.type) or not pa.types.is_integer(getattr(units.type, "value_type", units.type)):
        raise ValueError(f"'{corpus}', row {rows[0]}: `units` must be a list of whole numbers, got {units.type}.")
    values = units.flatten().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~((values >= 0) & (values < num_units)))
    if wrong.size > 0:
        row = rows[pc.list_parent_indices(units)[wrong[0]].as_py()]
        raise ValueError(
            f"'{corpus}', row {row}: unit {values[wrong[0]]} is outside the vocabulary of units 0 to {num_units - 1}."
        )
    if units.null_count > 0:
        raise ValueError(f"'{corpus}', row {rows[pc.index(units.is_null(), True).as_py()]}: `units` is null.")
    return pa.table({"units": units.cast(pa.list_(pa.uint16()))})


def pack_corpus(corpus: AnyDataset, args: PretrainArguments) -> AnyDataset:
    """Encode the documents of a corpus, and pack them into sequences or give each a sequence of its own."""
    documents = encode_documents(corpus, args.num_units, args.dataset_num_proc)
    pack = pack_documents if args.packing else separate_documents
    return pack(documents, args.context_length, args.dataset_num_proc)


def mix_corpora(
    corpora: list[Dataset] | list[IterableDataset], weights: list[float | None], seed: int
) -> Dataset | IterableDataset:
    r"""
    Mix the packed sequences of several corpora. They are equally long: shares of sequences are shares of tokens.

    Args:
        corpora (`list` of `Dataset` or `IterableDataset`):
            Packed corpora.
        weights (`list` of `float`):
            The share of each corpus, relative to the others. `None` for each mixes them in proportion to their sizes.
            With weights, an epoch ends when every corpus has been seen whole; shorter ones begin again.
        seed (`int`):
            Seed of the mixing, and of the order of a stream.

    Returns:
        `Dataset`, which the sampler shuffles; or an endless `IterableDataset`, which repeats its sequences in one
        shuffled order.

    Raises:
        ValueError: several streams without weights.
    """
    if None in weights:
        if len(corpora) > 1 and isinstance(corpora[0], IterableDataset):
            raise ValueError("The size of a stream is not known: give each corpus of `datasets` a `weight`.")
        mixed = concatenate_datasets(corpora)
    else:
        shares = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(corpora, probabilities=shares, seed=seed, stopping_strategy="all_exhausted")
    if isinstance(mixed, IterableDataset):
        # Endless, because the Trainer cannot resume a stream that has ended once.
        return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).repeat(None)
    return mixed
