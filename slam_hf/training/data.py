"""The data of a run: compares the codecs of corpora, holds documents out, and packs and mixes the rest."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
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
from huggingface_hub import DatasetCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from ..encoding.codec_identity import describe_codec
from ..processing_speech_lm import SpeechLMProcessor
from .arguments import CorpusConfig, PretrainArguments
from .packing import AnyDataset, encode_documents, map_processes, pack_documents, separate_documents


MAX_HELD_OUT = 100
"""Maximum number of rows that are held out by default."""

SHUFFLE_BUFFER = 1000
"""Packed sequences of a stream that are shuffled together."""

_UNITS = Features({"units": List(Value("uint16"))})


def check_codecs(corpora: list[CorpusConfig], processor: SpeechLMProcessor) -> None:
    """
    Compare what the cards of corpora say about their codec with each other, and with the codec of the model, which is
    loaded where there is something to compare. A corpus whose card does not name its codec is only reported.

    Raises:
        ValueError: there are two codecs, or two numbers of units.
    """
    made_by: dict[str, str] = {}
    for corpus in corpora:
        card = read_card(corpus)
        num_units, sha256 = card.get("num_units"), card.get("codec_sha256")
        if isinstance(num_units, int) and num_units != processor.tokenizer.num_units:
            raise ValueError(
                f"The corpus '{corpus.path}' has {num_units} units, and the model {processor.tokenizer.num_units}."
            )
        if isinstance(sha256, str):
            made_by.setdefault(sha256, f"'{corpus.path}' by {card.get('codec')}")
        else:
            PartialState().print(f"The corpus '{corpus.path}' has no card that names its codec, which is not checked.")
    if len(made_by) > 1:
        raise ValueError(
            f"The units of the corpora are of different codecs: {' and '.join(made_by.values())}. Units of one codec "
            "mean nothing in another: train on corpora of the same codec."
        )
    try:
        codec = processor.audio_tokenizer if made_by else None
    except OSError as error:
        PartialState().print(f"{error} The corpora are not compared with it.")
        return
    if codec is not None and (described := describe_codec(codec)).weights not in made_by:
        (corpus,) = made_by.values()
        raise ValueError(
            f"The units of the corpora are of another codec than the model's: {corpus}, and the model has "
            f"{described.name}. Name the codec that made the corpora."
        )


def read_card(corpus: CorpusConfig) -> dict[str, Any]:
    """What the card of a corpus says in its YAML, and nothing where there is no card."""
    path = Path(corpus.path) / "README.md"
    try:
        if not Path(corpus.path).is_dir():
            path = hf_hub_download(corpus.path, path.name, repo_type="dataset", revision=corpus.revision)
        return DatasetCard(Path(path).read_text("utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (EntryNotFoundError, OSError, ValueError):
        return {}


def load_corpora(args: PretrainArguments) -> tuple[list[Dataset | IterableDataset], Dataset | IterableDataset]:
    """
    Load the corpora to train on, and the held-out documents of all of them, with the column `units` (uint16).

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

    Each of `weights` is relative to the others; `None` for each corpus mixes them in proportion to their sizes. With
    weights, an epoch ends when every corpus has been seen whole; shorter ones begin again.

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


def is_held_out_split(wanted: str, default: str, trained_on: str, splits: list[str], path: str) -> bool:
    """Whether a dataset has the split that is `wanted` as held-out data, which may be an expression of `datasets` such
    as `"validation[:100]"`, and is not `trained_on`. A user's choice, other than the `default`, must be there."""
    parts = wanted.split("+")
    if all(part.partition("[")[0] in splits for part in parts):
        return not set(parts) & set(trained_on.split("+"))
    if wanted != default:
        raise ValueError(f"'{path}' has no split '{wanted}' to hold out, only {', '.join(splits)}.")
    return False


def hold_out(rows: AnyDataset, count: int | None, path: str) -> tuple[AnyDataset, AnyDataset]:
    """Split a dataset into the rows that remain and those at its beginning that are held out: `count`, or 1 % of the
    first 10,000, and at least 1. A `ValueError` says that no row would remain."""
    enough = 100 * MAX_HELD_OUT if count is None else count + 1
    total = sum(1 for _ in rows.take(enough)) if isinstance(rows, IterableDataset) else len(rows)
    if count is None:
        count = max(1, min(total // 100, MAX_HELD_OUT))
        PartialState().print(f"'{path}' has no split to hold out: {count} of its rows are held out of training.")
    if count >= total:
        raise ValueError(f"'{path}' has {total} row(s): to hold out {count} would leave none to train on.")
    return rows.skip(count), rows.take(count)
