from itertools import accumulate, islice, pairwise

import pytest
from datasets import Dataset, Features, IterableDataset
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from slam_hf import HubertUnitTokenizer, SpeechTextTokenizer
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.quickstart import resolve_path
from slam_hf.training.arguments import CorpusConfig
from slam_hf.training.documents import (
    DocumentEncoder,
    Interleaving,
    check_documents,
    encode_documents,
    encode_without_end,
)
from slam_hf.training.packing import pack_documents


INTERLEAVING = Interleaving("random", 10, 0.3, seconds_per_frame=0.04, seed=0)

WORDS = ["Early", " in", " the", " morning"]


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTextTokenizer:
    """2,000 tokens of text, 50 units and two modality tokens."""
    return SpeechTextTokenizer.from_text_tokenizer(
        AutoTokenizer.from_pretrained(resolve_path("quickstart:tokenizer")), 50
    )


def utterances(count: int) -> list[dict]:
    """Rows of an aligned corpus: the i-th has units from i on, and four words of five frames each."""
    words = [
        {"word": word, "start_time": 0.2 * index, "end_time": 0.2 * (index + 1)} for index, word in enumerate(WORDS)
    ]
    return [
        {"units": [(i + j) % 50 for j in range(10)], "durations": [2] * 10, "aligned_text": words}
        for i in range(count)
    ]


def aligned(rows: list[dict], streaming: bool = False):
    features = Features({name: UNIT_CORPUS_FEATURES[name] for name in ("units", "durations", "aligned_text")})
    dataset = Dataset.from_list(rows, features)
    return dataset.to_iterable_dataset() if streaming else dataset


def corpus(modality: str) -> CorpusConfig:
    return CorpusConfig("user/corpus", modality=modality)


def test_documents_are_units_between_boundaries():
    corpus = Dataset.from_dict({"id": ["a", "b"], "units": [[0, 49, 3], [7]]})
    documents = encode_documents(corpus, DocumentEncoder(HubertUnitTokenizer(num_units=50)))
    assert documents[:] == {"input_ids": [[1, 2, 51, 5, 1], [1, 9, 1]]}


def test_units_outside_the_vocabulary_are_refused():
    corpus = Dataset.from_dict({"units": [[0, 50]]})
    with pytest.raises(ValueError, match="unit 50 is outside this vocabulary of units 0 to 49"):
        encode_documents(corpus, DocumentEncoder(HubertUnitTokenizer(num_units=50)))


@pytest.mark.parametrize("streaming", [False, True])
def test_speech_and_text_alone_have_no_modality_token(tokenizer, streaming):
    speech, text = Dataset.from_dict({"units": [[0, 49]]}), Dataset.from_dict({"text": ["in the morning"]})
    if streaming:
        speech, text = speech.to_iterable_dataset(), text.to_iterable_dataset()
    assert list(encode_documents(speech, DocumentEncoder(tokenizer))) == [{"input_ids": [1, 2000, 2049]}]
    (document,) = encode_documents(text, DocumentEncoder(tokenizer, "text"))
    assert document["input_ids"][0] == 1 and max(document["input_ids"]) < 2000
    assert tokenizer.decode(document["input_ids"][1:]) == "in the morning"


def test_ids_of_a_large_vocabulary_are_kept():
    class Large:
        def __len__(self):
            return 152_167

        def __call__(self, texts):
            return {"input_ids": [[151_700] for _ in texts]}

    documents = encode_documents(Dataset.from_dict({"text": ["a"]}), DocumentEncoder(Large(), "text"))
    assert documents[:] == {"input_ids": [[151_700]]}


def test_words_are_chosen_by_seed_pass_and_utterance_alone(tokenizer):
    rows = utterances(40)
    encode = DocumentEncoder(tokenizer, "interleaved", INTERLEAVING)

    def documents(rows: list[dict], epoch: int = 0, encode=encode) -> list[list[int]]:
        return encode(aligned(rows)[:], epoch)["input_ids"]

    first = documents(rows)
    assert documents(rows) == first
    assert documents(rows[::-1]) == first[::-1]
    assert documents(rows[7:9]) == first[7:9]
    other = DocumentEncoder(tokenizer, "interleaved", Interleaving("random", 10, 0.3, 0.04, seed=1))
    for changed in (documents(rows, epoch=1), documents(rows, encode=other)):
        # Of four words, one mask in sixteen is drawn again.
        assert 0 < sum(before == after for before, after in zip(first, changed, strict=True)) < 10


@pytest.mark.parametrize("streaming", [False, True])
def test_each_pass_over_a_corpus_chooses_anew(tokenizer, streaming):
    encode = DocumentEncoder(tokenizer, "interleaved", INTERLEAVING)
    stream = encode_without_end(aligned(utterances(30), streaming), encode, seed=5)
    assert isinstance(stream, IterableDataset)
    rows = [row["input_ids"] for row in stream.take(90)]
    assert [row["input_ids"] for row in stream.take(90)] == rows
    for epoch in range(3):
        expected = encode(aligned(utterances(30))[:], epoch)["input_ids"]
        assert sorted(rows[30 * epoch : 30 * (epoch + 1)]) == sorted(expected)


def test_every_file_of_a_stream_is_read_with_any_number_of_workers(tokenizer):
    encode = DocumentEncoder(tokenizer, "interleaved", INTERLEAVING)
    documents = aligned(utterances(30)).to_iterable_dataset(num_shards=3)
    stream = pack_documents(encode_without_end(documents, encode, seed=5), context_length=1000)
    first_pass = encode(aligned(utterances(30))[:], 0)["input_ids"]
    for num_workers in (1, 2):
        loaded = DataLoader(stream, batch_size=1, num_workers=num_workers, collate_fn=lambda rows: rows[0])
        seen = [ids for row in islice(loaded, 20) for ids in documents_of(row)]
        assert all(ids in seen for ids in first_pass)


def documents_of(sequence: dict[str, list[int]]) -> list[list[int]]:
    ends = list(accumulate(sequence["seq_lengths"]))
    return [sequence["input_ids"][start:end] for start, end in pairwise([0, *ends])]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_usable_times_are_left_out_and_counted(tokenizer, capsys, streaming):
    rows = utterances(6)
    rows[1]["aligned_text"] = None
    rows[2]["aligned_text"] = [dict(word, end_time=word["end_time"] + 10) for word in rows[2]["aligned_text"][-1:]]
    rows[3]["aligned_text"] = rows[3]["aligned_text"][::-1]
    rows[4]["aligned_text"] = [dict(word, word=" <text>") for word in rows[4]["aligned_text"]]
    checked = check_documents(aligned(rows, streaming), corpus("interleaved"), tokenizer, INTERLEAVING)
    assert [row["units"][0] for row in checked] == [0, 5]
    printed = capsys.readouterr().out
    for problem in ("no times of words", "times beyond the audio", "overlap or run backwards", "holds a token of"):
        assert f"1 × {problem}" in printed or problem in printed
    if not streaming:
        assert "'user/corpus', interleaved: 4 of 6 rows are left out: 1 × " in printed


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_without_text_are_left_out_and_counted(tokenizer, capsys, streaming):
    texts = Dataset.from_dict({"content": ["one", None, " ", "an <speech> tag", "<Un3>", "<p> is a tag"]})
    texts = texts.to_iterable_dataset() if streaming else texts
    config = CorpusConfig("user/corpus", modality="text", text_column="content")
    checked = check_documents(texts, config, tokenizer)
    assert [row["text"] for row in checked] == ["one", "<p> is a tag"]
    printed = capsys.readouterr().out
    if not streaming:
        assert "4 of 6 rows are left out: 2 × no text, 2 × a text that holds a token of speech" in printed


def test_a_corpus_without_a_usable_row_is_refused(tokenizer):
    rows = [{**row, "aligned_text": None} for row in utterances(3)]
    with pytest.raises(ValueError, match=r"no row can be used: 3 × no times of words. `slam-hf align-text` adds"):
        check_documents(aligned(rows), corpus("interleaved"), tokenizer, INTERLEAVING)
    with pytest.raises(ValueError, match="no row that can be used"):
        empty = check_documents(aligned(rows, streaming=True), corpus("interleaved"), tokenizer, INTERLEAVING)
        list(encode_without_end(empty, DocumentEncoder(tokenizer, "interleaved", INTERLEAVING), 0).take(1))


@pytest.mark.parametrize(
    ("modality", "columns", "message"),
    [
        ("interleaved", {"units": [[1]], "durations": [[1]]}, "`aligned_text` is missing. `slam-hf align-text`"),
        ("interleaved", {"units": [[1]]}, "`durations` and `aligned_text` are missing"),
        ("text", {"units": [[1]]}, "`text` is missing. Name its column of text: `text_column`"),
        ("text", {"text": [3]}, "row 0: `text` must be text, got int64"),
        ("interleaved", {"units": [[1]], "durations": [[1]], "aligned_text": [["a"]]}, "`aligned_text` must be list"),
        (
            "interleaved",
            {"units": [[1, 2]], "durations": [[1]], "aligned_text": [None]},
            "row 0: .*as many `durations`",
        ),
        ("interleaved", {"units": [[50]], "durations": [[1]], "aligned_text": [None]}, "row 0: unit 50 is outside"),
    ],
)
def test_what_is_not_a_corpus_of_its_modality_is_refused(tokenizer, modality, columns, message):
    with pytest.raises(ValueError, match=f"'user/corpus'.*{message}"):
        check_documents(Dataset.from_dict(columns), corpus(modality), tokenizer, INTERLEAVING)


def test_a_word_may_end_less_than_a_frame_behind_the_last_one(tokenizer):
    (row,) = utterances(1)  # of 0.8 s in frames
    row["aligned_text"] = [*row["aligned_text"][:-1], {"word": " x", "start_time": 0.6, "end_time": 0.83}]
    assert len(check_documents(aligned([row]), corpus("interleaved"), tokenizer, INTERLEAVING)) == 1
