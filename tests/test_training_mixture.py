from collections import Counter
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset, IterableDataset

from slam_hf.quickstart import QUICKSTART_CORPUS
from slam_hf.training.arguments import CorpusConfig, PretrainArguments
from slam_hf.training.mixture import load_corpora, mix_contexts, pack_corpus


@pytest.fixture
def corpus(tmp_path):
    """A folder with one split: six documents, of which the i-th repeats unit i."""
    Dataset.from_dict({"id": list("abcdef"), "units": [[i, 9, i] for i in range(6)]}).to_parquet(
        tmp_path / "train.parquet"
    )
    return CorpusConfig(str(tmp_path))


def packed(first_token: int, count: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [[token] for token in range(first_token, first_token + count)]})


def first_tokens(contexts, count: int | None = None) -> list[int]:
    return [context["input_ids"][0] for context in islice(contexts, count)]


def test_the_quickstart_corpus_is_the_default():
    assert PretrainArguments().datasets == [CorpusConfig(str(QUICKSTART_CORPUS))]


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_documents_are_not_trained_on(corpus, streaming):
    args = PretrainArguments(datasets=[corpus, corpus], validation_documents=2, streaming=streaming)
    training, validation = load_corpora(args)
    assert [[row["units"][0] for row in documents] for documents in training] == [[2, 3, 4, 5]] * 2
    assert [row["units"][0] for row in validation] == [0, 1, 0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corpus_becomes_contexts(corpus, streaming):
    args = PretrainArguments(datasets=[corpus], validation_documents=2, context_length=10, streaming=streaming)
    (training,), _ = load_corpora(args)
    assert list(pack_corpus(training, args)) == [
        {"input_ids": [1, 4, 11, 4, 1, 1, 5, 11, 5, 1], "seq_lengths": [5, 5]},
        {"input_ids": [1, 6, 11, 6, 1, 1, 7, 11, 7, 1], "seq_lengths": [5, 5]},
    ]


def test_without_weights_corpora_count_as_their_size():
    assert first_tokens(mix_contexts([packed(0, 3), packed(10, 2)], [None, None], seed=0)) == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("streaming", [False, True])
def test_weights_are_shares_of_the_contexts(streaming):
    corpora = [packed(0, 400), packed(1000, 400), packed(2000, 400)]
    if streaming:
        corpora = [corpus.to_iterable_dataset() for corpus in corpora]
    tokens = np.array(first_tokens(mix_contexts(corpora, [3.0, 6.0, 1.0], seed=0), 2000))
    np.testing.assert_allclose(np.bincount(tokens // 1000) / 2000, [0.3, 0.6, 0.1], atol=0.03)


def test_with_weights_an_epoch_has_every_context_of_every_corpus():
    mixed = mix_contexts([packed(0, 10), packed(100, 40)], [0.5, 0.5], seed=0)
    assert set(first_tokens(mixed)) == {*range(10), *range(100, 140)}


def test_a_stream_repeats_its_contexts_without_end_each_once():
    stream = mix_contexts([packed(0, 50).to_iterable_dataset()], [None], seed=0)
    assert isinstance(stream, IterableDataset)
    tokens = first_tokens(stream, 150)
    assert tokens[:50] != list(range(50))
    assert Counter(tokens[:50]) == Counter(range(50))
    assert tokens[50:100] == tokens[:50]


def test_several_streams_need_weights():
    with pytest.raises(ValueError, match="give each corpus of `datasets` a `weight`"):
        mix_contexts([packed(0, 3).to_iterable_dataset()] * 2, [None, None], seed=0)


def test_what_is_no_corpus_is_refused(tmp_path):
    Dataset.from_dict({"text": ["hello"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="is no tokenised corpus: it has the columns"):
        load_corpora(PretrainArguments(datasets=[CorpusConfig(str(tmp_path))]))
