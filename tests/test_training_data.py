import tracemalloc
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset, Features, IterableDataset, List, Value
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, EncodecFeatureExtractor

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor, SpeechTextTokenizer
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.processing_speech_lm import load_codec
from slam_hf.quickstart import QUICKSTART_CORPUS, resolve_path
from slam_hf.training import data
from slam_hf.training.arguments import CorpusConfig, PretrainArguments
from slam_hf.training.data import (
    check_codecs,
    check_same_rows,
    load_corpora,
    make_interleaving,
    mix_corpora,
    pack_corpus,
)
from slam_hf.training.documents import Interleaving


@pytest.fixture
def corpus(tmp_path):
    """A folder with one split: six documents, of which the i-th repeats unit i."""
    Dataset.from_dict({"id": list("abcdef"), "units": [[i, 9, i] for i in range(6)]}).to_parquet(
        tmp_path / "train.parquet"
    )
    return CorpusConfig(str(tmp_path))


def load_speech(args: PretrainArguments):
    """The documents of corpora of units, and those that are held out."""
    training, validation = load_corpora(args, HubertUnitTokenizer(num_units=args.num_units))
    return training, validation["speech"]


def packed(first_token: int, count: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [[token] for token in range(first_token, first_token + count)]})


def first_tokens(sequences, count: int | None = None) -> list[int]:
    return [sequence["input_ids"][0] for sequence in islice(sequences, count)]


def test_the_quickstart_corpus_is_the_default():
    assert PretrainArguments().datasets == [CorpusConfig(str(QUICKSTART_CORPUS))]


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_documents_are_not_trained_on(corpus, streaming):
    args = PretrainArguments(datasets=[corpus, corpus], validation_documents=2, streaming=streaming)
    training, validation = load_speech(args)
    assert [[row["units"][0] for row in documents] for documents in training] == [[2, 3, 4, 5]] * 2
    assert [row["units"][0] for row in validation] == [0, 1, 0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corpus_becomes_packed_sequences(corpus, streaming):
    args = PretrainArguments(datasets=[corpus], validation_documents=2, context_length=10, streaming=streaming)
    (training,), _ = load_speech(args)
    assert list(pack_corpus(training, args, HubertUnitTokenizer(num_units=500))) == [
        {"input_ids": [1, 4, 11, 4, 1, 1, 5, 11, 5, 1], "seq_lengths": [5, 5]},
        {"input_ids": [1, 6, 11, 6, 1, 1, 7, 11, 7, 1], "seq_lengths": [5, 5]},
    ]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("modality", ["speech", "interleaved"])
def test_documents_to_train_on_may_be_cut_and_held_out_ones_are_whole(tmp_path, streaming, modality):
    words = [{"word": " so", "start_time": 0.0, "end_time": 0.4}]
    rows = {"units": [[i] * 10 for i in range(8)], "durations": [[1] * 10] * 8, "aligned_text": [words] * 8}
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    corpus, tokenizer = CorpusConfig(str(tmp_path), modality=modality), HubertUnitTokenizer(num_units=500)
    interleaving = None
    if modality == "interleaved":
        text_tokenizer = AutoTokenizer.from_pretrained(resolve_path("quickstart:tokenizer"))
        tokenizer = SpeechTextTokenizer.from_text_tokenizer(text_tokenizer, 500)
        interleaving = Interleaving("poisson", 1, 1.0, 0.04, seed=0)

    def lengths(documents, cut_documents, **kwargs):
        args = PretrainArguments(
            datasets=[corpus], context_length=16, streaming=streaming, cut_documents=cut_documents
        )
        sequences = pack_corpus(documents, args, tokenizer, modality, interleaving, **kwargs)
        return [row["seq_lengths"] for row in islice(sequences, 4)]

    args = PretrainArguments(datasets=[corpus], validation_documents=4, streaming=streaming)
    (training,), validation = load_corpora(args, tokenizer, interleaving)
    (length,) = lengths(training, False)[0]
    assert lengths(training, False) == [[length]] * 4
    assert lengths(training, True)[0] == [length, 16 - length]
    for cut_documents in (False, True):
        assert lengths(validation[modality], cut_documents, held_out=True) == [[length]] * 4


def test_without_weights_corpora_count_as_their_size():
    assert first_tokens(mix_corpora([packed(0, 3), packed(10, 2)], [None, None], seed=0)) == [0, 1, 2, 10, 11]


@pytest.mark.parametrize("streaming", [False, True])
def test_weights_are_shares_of_the_sequences(streaming):
    corpora = [packed(0, 400), packed(1000, 400), packed(2000, 400)]
    if streaming:
        corpora = [corpus.to_iterable_dataset() for corpus in corpora]
    tokens = np.array(first_tokens(mix_corpora(corpora, [3.0, 6.0, 1.0], seed=0), 2000))
    np.testing.assert_allclose(np.bincount(tokens // 1000) / 2000, [0.3, 0.6, 0.1], atol=0.03)


@pytest.mark.parametrize("streaming", [(False, False), (True, True), (True, False)])
def test_weights_are_shares_of_the_tokens_of_sequences_that_are_not_full(streaming):
    corpora = [Dataset.from_dict({"input_ids": [[i] * length] * 400}) for i, length in enumerate((12, 4))]
    for i in np.flatnonzero(streaming):
        corpora[i] = IterableDataset.from_generator(lambda corpus=corpora[i]: iter(corpus))
    rows = islice(mix_corpora(corpora, [1, 1], seed=0, full=False), 2000)
    tokens = [token for row in rows for token in row["input_ids"]]
    assert np.mean(tokens) == pytest.approx(0.5, abs=0.03)


def test_with_weights_an_epoch_has_every_sequence_of_every_corpus():
    mixed = mix_corpora([packed(0, 10), packed(100, 40)], [0.5, 0.5], seed=0)
    assert set(first_tokens(mixed)) == {*range(10), *range(100, 140)}


def test_a_stream_repeats_its_sequences_without_end_each_once():
    stream = mix_corpora([packed(0, 50).to_iterable_dataset()], [None], seed=0)
    assert isinstance(stream, IterableDataset)
    tokens = first_tokens(stream, 150)
    assert tokens[:50] != list(range(50))
    assert Counter(tokens[:50]) == Counter(range(50))
    assert tokens[50:100] == tokens[:50]


def test_a_stream_and_a_stored_corpus_mix_by_their_weights():
    stream, stored = IterableDataset.from_generator(lambda: iter(packed(0, 50))), packed(1000, 50)
    tokens = first_tokens(mix_corpora([stream, stored], [1.0, 3.0], seed=0), 2000)
    assert np.mean(np.array(tokens) >= 1000) == pytest.approx(0.75, abs=0.03)
    assert tokens == first_tokens(mix_corpora([stream, stored], [1.0, 3.0], seed=0), 2000)
    assert set(tokens) == {*range(50), *range(1000, 1050)}


def test_a_stream_and_a_stored_corpus_need_weights():
    with pytest.raises(
        ValueError, match="or of an interleaved corpus, is not known: give each corpus of `datasets` a"
    ):
        mix_corpora([packed(0, 3), packed(0, 3).to_iterable_dataset()], [None, None], seed=0)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_order_of_a_stream_does_not_depend_on_workers(num_workers):
    stream, stored = IterableDataset.from_generator(lambda: iter(packed(0, 50))), packed(1000, 50)
    mixed = mix_corpora([stream, stored], [1.0, 3.0], seed=0)
    loaded = DataLoader(mixed, batch_size=4, num_workers=num_workers, collate_fn=first_tokens)
    assert [token for batch in islice(loaded, 10) for token in batch] == first_tokens(mixed, 40)


def test_a_long_stream_does_not_take_more_memory_with_each_step(tmp_path):
    """The keys of rows of a stream that is mapped several times took gigabytes."""
    Dataset.from_dict({"units": [[i % 500, 3, i % 7] for i in range(2_500)]}).to_parquet(tmp_path / "train.parquet")
    args = PretrainArguments(datasets=str(tmp_path), validation_documents=1, context_length=10, streaming=True)
    (training,), _ = load_speech(args)
    stream = mix_corpora([pack_corpus(training, args, HubertUnitTokenizer(num_units=500))], [None], seed=0)
    tracemalloc.start()
    assert len(list(stream.take(1_500))) == 1_500
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_several_streams_need_weights():
    with pytest.raises(ValueError, match="give each corpus of `datasets` a `weight`"):
        mix_corpora([packed(0, 3).to_iterable_dataset()] * 2, [None, None], seed=0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("total", "held_out"), [(2, 1), (199, 1), (200, 2), (12_345, 100)])
def test_a_corpus_without_a_validation_split_holds_out_documents(tmp_path, capsys, total, held_out, streaming):
    Dataset.from_dict({"units": [[i % 500] for i in range(total)]}).to_parquet(tmp_path / "train.parquet")
    args = PretrainArguments(datasets=[str(tmp_path)], streaming=streaming)
    (training,), validation = load_speech(args)
    assert [row["units"][0] for row in validation] == [i % 500 for i in range(held_out)]
    assert [row["units"][0] for row in training] == [i % 500 for i in range(held_out, total)]
    assert f"has no split to hold out: {held_out} of its rows" in capsys.readouterr().out


def test_a_stream_without_a_row_to_hold_out_is_refused(tmp_path):
    for split, units in (("train", [[1]]), ("validation", [])):
        rows = Dataset.from_dict({"units": units}, features=Features({"units": List(Value("uint16"))}))
        rows.to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(
        ValueError, match="no row of the split 'validation' can be used. Hold out rows of 'train' with"
    ):
        load_speech(PretrainArguments(datasets=str(tmp_path), streaming=True))


def test_a_validation_split_is_held_out(tmp_path):
    files = {"train": str(tmp_path / "train.parquet"), "dev": str(tmp_path / "validation.parquet")}
    for unit, file in enumerate(files.values(), start=1):
        Dataset.from_dict({"units": [[unit]] * 2}).to_parquet(file)
    corpus = {"path": "parquet", "data_files": files}
    for datasets, options, expected in (
        (str(tmp_path), {}, [[2], [2]]),
        (corpus, {"validation_split": "dev"}, [[2], [2]]),
        (corpus, {}, [[1]]),
        ({"path": str(tmp_path), "split": "train+validation"}, {}, [[1]]),
    ):
        assert load_speech(PretrainArguments(datasets=datasets, **options))[1]["units"][:] == expected
    with pytest.raises(ValueError, match="has no split 'test' to hold out, only train, dev"):
        load_speech(PretrainArguments(datasets=corpus, validation_split="test"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("count", [6, 7, 1_000_000])
def test_no_corpus_is_held_out_whole(corpus, count, streaming):
    with pytest.raises(ValueError, match=rf"{corpus.path}' has 6 row\(s\): to hold out {count} would leave none"):
        load_speech(PretrainArguments(datasets=[corpus], validation_documents=count, streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_corpora_of_other_integers_mix(corpus, tmp_path_factory, streaming):
    folder = tmp_path_factory.mktemp("corpora")
    for name, kind in (("int64", List(Value("int64"))), ("fixed", List(Value("int32"), length=1))):
        rows = Dataset.from_dict({"units": [[49], [3]]}, Features({"units": kind}))
        rows.to_parquet(folder / name / "train.parquet")
    datasets = [corpus, str(folder / "int64"), str(folder / "fixed")]
    args = PretrainArguments(datasets=datasets, num_units=50, validation_documents=1, streaming=streaming)
    training, validation = load_speech(args)
    assert [row["units"] for row in validation] == [[0, 9, 0], [49], [49]]
    assert all(documents.features["units"] == List(Value("uint16")) for documents in [*training, validation])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([3, 50], "row 1234: unit 50 is outside the vocabulary of units 0 to 49"),
        ([-1], "row 1234: unit -1 is outside"),
        ([2**40], "row 1234: unit 1099511627776 is outside"),
        ([2, None], "row 1234: unit nan is outside"),
        (None, "row 1234: `units` is null"),
    ],
)
def test_a_wrong_unit_is_named_with_its_corpus_and_row(tmp_path, units, message, streaming):
    rows = [[1]] * 1500
    rows[1234] = units
    Dataset.from_dict({"units": rows}).to_parquet(tmp_path / "train.parquet")
    args = PretrainArguments(datasets=str(tmp_path), num_units=50, streaming=streaming)
    with pytest.raises(ValueError, match=f"'{tmp_path}', {message}"):
        (training,), _ = load_speech(args)
        list(training)


@pytest.mark.parametrize("units", [[0.5], ["<Un3>"], "<Un3>", 3, {"a": 3}, [[3]]])
def test_units_that_are_not_numbers_are_refused(tmp_path, units):
    Dataset.from_dict({"units": [units, units]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="row 0: `units` must be a list of whole numbers"):
        load_speech(PretrainArguments(datasets=str(tmp_path)))


def test_what_is_not_a_corpus_is_refused(tmp_path):
    Dataset.from_dict({"text": ["hello"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="is not a tokenised corpus: it has the columns"):
        load_speech(PretrainArguments(datasets=[CorpusConfig(str(tmp_path))]))


def processor(num_units=50, codec=None, reference=None):
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=num_units), codec, reference)


@pytest.fixture
def carded_corpus(tmp_path):
    """Makes a corpus with a card."""

    def make(name, **card):
        (tmp_path / name).mkdir()
        lines = "".join(f"{key}: {value}\n" for key, value in card.items())
        (tmp_path / name / "README.md").write_text(f"---\n{lines}---\n")
        return CorpusConfig(str(tmp_path / name))

    return make


@pytest.mark.parametrize("name", ["corpus", "preferences"])
def test_the_quickstart_data_are_of_the_quickstart_codec(name, tiny_codec, capsys):
    corpora = [CorpusConfig(f"quickstart:{name}")]
    check_codecs(corpora, processor(500, load_codec("quickstart:codec")))
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="has 500 units, and the model 50"):
        check_codecs(corpora, processor(50, tiny_codec))


def test_a_corpus_of_the_models_codec_is_accepted(carded_corpus, tiny_codec):
    made = carded_corpus("a", codec="x/y", codec_sha256=describe_codec(tiny_codec).weights, num_units=50)
    check_codecs([made, made], processor(50, tiny_codec))
    check_codecs([made], processor(50))


def test_a_corpus_of_another_codec_is_refused(carded_corpus, tiny_codec):
    made = carded_corpus("a", codec="x/y", codec_sha256="f" * 64, num_units=50)
    with pytest.raises(ValueError, match="of another codec than the model's: '.*/a' by x/y"):
        check_codecs([made], processor(50, tiny_codec))


def test_corpora_of_two_codecs_are_refused(carded_corpus):
    corpora = [carded_corpus(name, codec=f"x/{name}", codec_sha256=name * 64) for name in "ab"]
    with pytest.raises(ValueError, match="different codecs: '.*/a' by x/a and '.*/b' by x/b"):
        check_codecs(corpora, processor())


def test_a_corpus_that_does_not_name_its_codec_is_reported(carded_corpus, tiny_codec, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    corpora = [
        CorpusConfig(str(tmp_path / "bare")),
        carded_corpus("a", license="mit"),
        CorpusConfig("user/not-downloaded"),
    ]
    check_codecs(corpora, processor(50, tiny_codec))
    assert capsys.readouterr().out.count("has no card that names its codec") == 3


def test_a_corpus_of_text_has_no_codec(capsys):
    check_codecs([CorpusConfig("user/text", modality="text")], processor())
    assert capsys.readouterr().out == ""


def test_the_frame_rate_of_an_interleaved_corpus_is_that_of_its_card_or_of_the_codec(carded_corpus, tiny_codec):
    carded, bare = carded_corpus("a", frame_rate=50), carded_corpus("b", license="mit")
    for corpus, codec, seconds in ((carded, None, 1 / 50), (bare, tiny_codec, 1 / tiny_codec.frame_rate)):
        args = PretrainArguments(datasets=[{"path": corpus.path, "modality": "interleaved"}])
        assert make_interleaving(args, processor(codec=codec), seed=0).seconds_per_frame == pytest.approx(seconds)
    with pytest.raises(ValueError, match="/b' has no card that says its `frame_rate`.*name the `codec`"):
        make_interleaving(args, processor(), seed=0)
    assert make_interleaving(PretrainArguments(), processor(), seed=0) is None


def test_a_codec_that_cannot_be_loaded_is_reported(carded_corpus, tmp_path, capsys):
    reference = {"name_or_path": str(tmp_path / "gone"), "revision": None}
    check_codecs([carded_corpus("a", codec_sha256="f" * 64)], processor(reference=reference))
    assert "The corpora are not compared with it" in capsys.readouterr().out


def test_machines_with_other_copies_of_a_corpus_are_refused(monkeypatch):
    rows = Dataset.from_dict({"input_ids": [[n] for n in range(250)]}).with_format("numpy")
    others = {"as it is": rows, "shorter": rows.select(range(249)), "changed": rows.select([1, *range(1, 250)])}
    check_same_rows(rows)
    for kind, other in others.items():
        own = []
        with monkeypatch.context() as patch:
            patch.setattr(data, "gather_object", lambda digest, own=own: own.append(digest[0]) or digest)
            check_same_rows(other)
            patch.setattr(data, "gather_object", lambda digest, own=own: [*digest, *own])
            if kind == "as it is":
                check_same_rows(rows)
            else:
                with pytest.raises(ValueError, match="The machines have different data"):
                    check_same_rows(rows)
    check_same_rows(IterableDataset.from_generator(lambda: iter([])))
