"""The data of a run: compares the codecs of corpora, holds documents out, and packs and mixes the rest."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import count

import numpy as np
import pyarrow.compute as pc
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import (
    Dataset,
    IterableDataset,
    concatenate_datasets,
    get_dataset_split_names,
    interleave_datasets,
    load_dataset,
)

from ..corpora.dataset_card import read_card
from ..encoding.codec_identity import describe_codec
from ..fingerprints import hash_rows
from ..processing_speech_lm import SpeechLMProcessor
from ..tokenization_hubert_unit import UnitTokenizer
from .arguments import CorpusConfig, PretrainArguments
from .documents import DocumentEncoder, Interleaving, check_documents, encode_documents, encode_without_end
from .packing import AnyDataset, pack_documents, separate_documents


MAX_HELD_OUT = 100
"""Maximum number of rows that are held out by default."""

SAMPLED_ROWS = 100
"""Rows that processes compare with each other."""

SHUFFLE_BUFFER = 1000
"""Packed sequences of a stream that are shuffled together."""


def check_codecs(corpora: list[CorpusConfig], processor: SpeechLMProcessor) -> None:
    """
    Compare what the cards of corpora of speech say about their codec with each other, and with the codec of the model,
    which is loaded where there is something to compare. A corpus whose card does not name its codec is only reported.

    Raises:
        ValueError: there are two codecs, or two numbers of units.
    """
    made_by: dict[str, str] = {}
    for corpus in corpora:
        if corpus.modality == "text":
            continue
        card = read_card(corpus.path, corpus.revision)
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


def make_interleaving(args: PretrainArguments, processor: SpeechLMProcessor, seed: int) -> Interleaving | None:
    """How to mix the speech and the text of interleaved corpora, or `None` if there are none. A `ValueError` says that
    the frame rate of their codec is not known, neither from their cards nor from the codec of the model."""
    corpora = [corpus for corpus in args.datasets if corpus.modality == "interleaved"]
    if not corpora:
        return None
    cards = [read_card(corpus.path, corpus.revision) for corpus in corpora]
    rates = [card["frame_rate"] for card in cards if card.get("frame_rate")]
    if not rates and processor.audio_tokenizer is None:
        raise ValueError(
            f"'{corpora[0].path}' has no card that says its `frame_rate`, which turns the times of words into units: "
            "name the `codec` of the corpus."
        )
    frame_rate = float(rates[0] if rates else processor.audio_tokenizer.frame_rate)
    return Interleaving(args.interleaving, args.interleaving_span, args.interleaving_share, 1 / frame_rate, seed)


def load_corpora(
    args: PretrainArguments, tokenizer: UnitTokenizer, interleaving: Interleaving | None = None
) -> tuple[list[AnyDataset], dict[str, AnyDataset]]:
    """
    Load the documents to train on, of each corpus, and the held-out documents of all corpora by modality, with the
    columns of [`check_documents`].

    Raises:
        ValueError: a corpus is not one of its modality, has a unit that is outside the vocabulary, or too few
            documents.
    """
    training, held_out = [], defaultdict(list)
    for corpus in args.datasets:
        documents, validation = _load_corpus(corpus, args, tokenizer, interleaving)
        training.append(documents)
        held_out[corpus.modality].append(validation)
    return training, {modality: concatenate_datasets(parts) for modality, parts in held_out.items()}


def _load_corpus(
    corpus: CorpusConfig, args: PretrainArguments, tokenizer: UnitTokenizer, interleaving: Interleaving | None
) -> tuple[AnyDataset, AnyDataset]:
    source = {"data_files": corpus.data_files, "revision": corpus.revision}

    def load(split: str) -> AnyDataset:
        rows = load_dataset(corpus.path, corpus.name, split=split, streaming=args.streaming, **source)
        return check_documents(rows, corpus, tokenizer, interleaving, args.dataset_num_proc)

    documents = load(corpus.split)
    if args.validation_documents is None:
        splits = get_dataset_split_names(corpus.path, corpus.name, **source)
        if is_held_out_split(args.validation_split, "validation", corpus.split, splits, corpus.path):
            held_out = load(args.validation_split)
            if next(iter(held_out), None) is None:
                raise ValueError(
                    f"'{corpus.path}': no row of the split '{args.validation_split}' can be used. Hold out rows of "
                    f"'{corpus.split}' with `validation_documents`."
                )
            return documents, held_out
    return hold_out(documents, args.validation_documents, corpus.path)


def pack_corpus(
    documents: AnyDataset,
    args: PretrainArguments,
    tokenizer: UnitTokenizer,
    modality: str = "speech",
    interleaving: Interleaving | None = None,
    held_out: bool = False,
) -> AnyDataset:
    """Encode the documents of a corpus, and pack them into sequences or give each a sequence of its own. To train on,
    an interleaved corpus is endless: each pass over it chooses anew which words are speech. Held-out documents are
    only cut where they are longer than a sequence: losses of both ways to pack can be compared."""
    encode = DocumentEncoder(tokenizer, modality, interleaving)
    if modality == "interleaved" and not held_out:
        encoded = encode_without_end(documents, encode, interleaving.seed)
    else:
        encoded = encode_documents(documents, encode, args.dataset_num_proc)
    if not args.packing:
        return separate_documents(encoded, args.context_length, args.dataset_num_proc)
    cut_documents = args.cut_documents and not held_out
    return pack_documents(encoded, args.context_length, args.dataset_num_proc, cut_documents)


def mix_corpora(
    corpora: list[Dataset | IterableDataset], weights: list[float | None], seed: int, full: bool = True
) -> Dataset | IterableDataset:
    r"""
    Mix the packed sequences of several corpora.

    Each of `weights` is a share of the tokens, relative to the others; `None` for each corpus mixes them in proportion
    to their sizes. If sequences are `full`, shares of tokens are shares of sequences. Otherwise their mean length is
    taken from each corpus, or of a stream, from its first thousand sequences. With weights, an epoch ends when every
    corpus has been seen whole; shorter ones begin again.

    Returns:
        `Dataset`, which the sampler shuffles; or, if there is a stream among the corpora, an endless
        `IterableDataset`, which shuffles its sequences a thousand at a time.

    Raises:
        ValueError: several corpora without weights, and a stream among them.
    """
    if not full and None not in weights:
        weights = [weight / _mean_length(corpus) for weight, corpus in zip(weights, corpora, strict=True)]
    if any(isinstance(corpus, IterableDataset) for corpus in corpora):
        corpora = [_without_end(corpus, seed) if isinstance(corpus, Dataset) else corpus for corpus in corpora]
    if None in weights:
        if len(corpora) > 1 and isinstance(corpora[0], IterableDataset):
            raise ValueError(
                "The size of a stream, or of an interleaved corpus, is not known: give each corpus of `datasets` a "
                "`weight`."
            )
        mixed = concatenate_datasets(corpora)
    else:
        shares = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(corpora, probabilities=shares, seed=seed, stopping_strategy="all_exhausted")
    if isinstance(mixed, IterableDataset):
        # Endless, because the Trainer cannot resume a stream that has ended once.
        mixed = mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).repeat(None)
        # As one shard, whose order depends neither on processes nor on workers.
        return IterableDataset.from_generator(_rows, gen_kwargs={"stream": mixed})
    return mixed


def _mean_length(sequences: Dataset | IterableDataset) -> float:
    if isinstance(sequences, IterableDataset):
        return np.mean([len(row["input_ids"]) for row in sequences.take(SHUFFLE_BUFFER)])
    return np.mean(pc.list_value_length(sequences.with_format("arrow")[:]["input_ids"]))


def check_same_rows(rows: AnyDataset) -> None:
    """Check that all processes have as many rows, and the same ones in a sample: machines may have different copies of
    the corpora. A stream is not checked. A `ValueError` says that they differ."""
    if isinstance(rows, Dataset):
        sample = rows.with_format(None)[:: math.ceil(len(rows) / SAMPLED_ROWS) or 1]
        if len(set(gather_object([hash_rows([len(rows), sample])]))) > 1:
            raise ValueError(
                "The machines have different data: give each the same files of the corpora, and the same versions of "
                "this package and of datasets."
            )


def _rows(stream: IterableDataset) -> Iterator[dict[str, list[int]]]:
    # `datasets` draws another order in a worker process, but not where it reads batches.
    for batch in stream.iter(1):
        yield {name: values[0] for name, values in batch.items()}


def _without_end(sequences: Dataset, seed: int) -> IterableDataset:
    """Pass over stored sequences without end, each time in another order."""
    return IterableDataset.from_generator(_shuffled_passes, gen_kwargs={"sequences": sequences, "seed": seed})


def _shuffled_passes(sequences: Dataset, seed: int) -> Iterator[dict[str, list[int]]]:
    for epoch in count():
        yield from sequences.shuffle(seed=seed + epoch)


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
