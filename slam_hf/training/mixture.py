"""The corpora that a model is trained on: held-out documents, mixing, streaming."""

from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets, load_dataset

from .arguments import CorpusConfig, PretrainArguments
from .packing import AnyDataset, encode_documents, pack_documents, separate_documents


SHUFFLE_BUFFER = 1000
"""Contexts of a stream that are shuffled together."""


def load_corpora(args: PretrainArguments) -> tuple[list[Dataset | IterableDataset], Dataset | IterableDataset]:
    r"""
    Load the corpora, and the documents that are held out of them.

    Args:
        args ([`PretrainArguments`]):
            The corpora and how to hold out.

    Returns:
        `tuple`: the corpora to train on, and the held-out documents of all of them, with the column `units`.

    Raises:
        ValueError: a corpus has no column `units`.
    """
    training, validation = [], []
    for corpus in args.datasets:
        documents = _load(corpus, corpus.split, args.streaming)
        if args.validation_documents is None:
            held_out = _load(corpus, args.validation_split, args.streaming)
        else:
            held_out = documents.take(args.validation_documents)
            documents = documents.skip(args.validation_documents)
        training.append(documents)
        validation.append(held_out)
    return training, concatenate_datasets(validation)


def _load(corpus: CorpusConfig, split: str, streaming: bool) -> Dataset | IterableDataset:
    dataset = load_dataset(
        corpus.path,
        corpus.name,
        data_files=corpus.data_files,
        revision=corpus.revision,
        split=split,
        streaming=streaming,
    )
    if "units" not in (dataset.column_names or []):
        raise ValueError(
            f"{corpus.path} is no tokenised corpus: it has the columns {dataset.column_names}, and `units` is missing."
        )
    return dataset.select_columns("units")


def pack_corpus(corpus: AnyDataset, args: PretrainArguments) -> AnyDataset:
    """The documents of a corpus, encoded and packed into contexts, or each in a context of its own."""
    documents = encode_documents(corpus, args.num_units, args.dataset_num_proc)
    put_into_contexts = pack_documents if args.packing else separate_documents
    return put_into_contexts(documents, args.context_length, args.dataset_num_proc)


def mix_contexts(
    corpora: list[Dataset] | list[IterableDataset], weights: list[float | None], seed: int
) -> Dataset | IterableDataset:
    r"""
    Mix the contexts of several corpora. As contexts are equally long, shares of them are shares of tokens.

    Args:
        corpora (`list` of `Dataset` or `IterableDataset`):
            Packed corpora.
        weights (`list` of `float`):
            The share of each, relative to the others; `None` for each mixes them as large as they are. With weights,
            an epoch ends when each corpus has been seen whole; those that end before begin again.
        seed (`int`):
            Seed of the mixing, and of the order of a stream.

    Returns:
        `Dataset`, whose order is the sampler's matter; or an endless `IterableDataset`, which repeats its contexts in
        one shuffled order.

    Raises:
        ValueError: several streams without weights.
    """
    if None in weights:
        if len(corpora) > 1 and isinstance(corpora[0], IterableDataset):
            raise ValueError("How large a stream is, is not known: give each corpus of `datasets` a `weight`.")
        mixed = concatenate_datasets(corpora)
    else:
        shares = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(corpora, probabilities=shares, seed=seed, stopping_strategy="all_exhausted")
    if isinstance(mixed, IterableDataset):
        # Endless, because the Trainer cannot resume a stream that has ended once.
        return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).repeat(None)
    return mixed
