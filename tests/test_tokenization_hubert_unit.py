import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import slam_hf  # noqa: F401 (registers the Auto classes)
from slam_hf import HubertUnitTokenizer


@pytest.fixture(scope="module")
def librispeech(request) -> list[tuple[str, list[int]]]:
    """Text form and units of two LibriSpeech recordings, as published."""
    folder = request.path.parent / "fixtures" / "librispeech-clips"
    texts = [json.loads(line)["audio_repr"] for line in (folder / "tokens.jsonl").read_text().splitlines()]
    units = [json.loads(line)["units"] for line in (folder / "features.jsonl").read_text().splitlines()]
    return list(zip(texts, units, strict=True))


@pytest.fixture(scope="module")
def tokenizer() -> HubertUnitTokenizer:
    return HubertUnitTokenizer(num_units=500)


class OnAnAccelerator(torch.Tensor):
    """A tensor that NumPy cannot read before it is copied to the CPU."""

    def numpy(self, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *args):
        return self.numpy()

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_units_and_ids_on_an_accelerator(tokenizer):
    units = torch.tensor([3, 49, 3]).as_subclass(OnAnAccelerator)
    with pytest.raises(TypeError, match="cuda"):
        np.asarray(units)
    assert tokenizer.encode_units(units)["input_ids"] == [1, 5, 51, 5]
    assert tokenizer.decode_units(units).tolist() == [1, 47, 1]


def test_vocabulary_is_the_published_one(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 502
    assert tokenizer.convert_tokens_to_ids(["<PAD>", "<S>", "<Un0>", "<Un499>"]) == [0, 1, 2, 501]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 1)
    assert tokenizer.unk_token is None


def test_published_strings_give_the_published_ids(tokenizer, librispeech):
    for text, units in librispeech:
        ids = [1, *(unit + 2 for unit in units)]
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.encode_units(units)["input_ids"] == ids
        assert tokenizer.decode(ids) == "<S>" + text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.decode_units(ids).tolist() == units


def test_published_checkpoint_has_a_tokenizer_without_tokenizer_files(published_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(published_checkpoint)
    assert isinstance(tokenizer, HubertUnitTokenizer)
    assert tokenizer.num_units == 500
    assert tokenizer("<Un3><Un49>")["input_ids"] == [1, 5, 51]


def test_number_of_units_follows_from_the_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "speech_language_model", "vocab_size": 102}')
    assert AutoTokenizer.from_pretrained(tmp_path).num_units == 100
    (tmp_path / "config.json").write_text('{"model_type": "speech_language_model"}')
    with pytest.raises(ValueError, match="Pass `num_units=...`"):
        HubertUnitTokenizer.from_pretrained(tmp_path)
    assert HubertUnitTokenizer.from_pretrained(tmp_path, num_units=7).num_units == 7


@pytest.mark.parametrize("add_bos_token", [True, False])
@pytest.mark.parametrize("add_eos_token", [True, False])
def test_sequences_begin_and_end_as_asked_for(add_bos_token, add_eos_token, tmp_path):
    tokenizer = HubertUnitTokenizer(num_units=9, add_bos_token=add_bos_token, add_eos_token=add_eos_token)
    expected = [1] * add_bos_token + [5, 9] + [1] * add_eos_token
    assert tokenizer("<Un3><Un7>")["input_ids"] == expected
    assert tokenizer.encode_units([3, 7])["input_ids"] == expected
    assert tokenizer("<Un3><Un7>", add_special_tokens=False)["input_ids"] == [5, 9]
    assert tokenizer.encode_units([3, 7], add_special_tokens=False)["input_ids"] == [5, 9]

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, HubertUnitTokenizer)
    assert (loaded.num_units, loaded.add_bos_token, loaded.add_eos_token) == (9, add_bos_token, add_eos_token)
    assert loaded("<Un3><Un7>")["input_ids"] == expected
    switched = AutoTokenizer.from_pretrained(tmp_path, add_eos_token=not add_eos_token)
    assert switched("<Un3>")["input_ids"] == [1] * add_bos_token + [5] + [1] * (not add_eos_token)


def test_saved_files_load_without_this_package(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    plain = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert plain("<Un3><Un49>")["input_ids"] == tokenizer("<Un3><Un49>")["input_ids"]
    assert plain.decode([1, 5, 51]) == "<S><Un3><Un49>"


def test_batches_are_padded_on_the_asked_side(tokenizer):
    right = tokenizer(["<Un0>", "<Un1><Un2>"], padding=True, return_tensors="pt")
    assert right["input_ids"].tolist() == [[1, 2, 0], [1, 3, 4]]
    assert right["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    left = HubertUnitTokenizer(num_units=9, padding_side="left")
    units = [np.array([0], dtype=np.uint16), np.array([1, 2], dtype=np.uint16)]
    padded = left.encode_units(units, padding=True, return_tensors="pt")
    assert padded["input_ids"].tolist() == [[0, 1, 2], [1, 3, 4]]
    assert padded["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert [units.tolist() for units in left.decode_units(padded["input_ids"])] == [[0], [1, 2]]


@pytest.mark.parametrize("units", [[1, 2], range(1, 3), np.array([1, 2], dtype=np.uint16), torch.tensor([1, 2])])
def test_units_come_as_lists_arrays_and_tensors(tokenizer, units):
    assert tokenizer.encode_units(units)["input_ids"] == [1, 3, 4]
    assert tokenizer.encode_units(units, return_tensors="pt")["input_ids"].tolist() == [[1, 3, 4]]
    assert tokenizer.decode_units(tokenizer.encode_units(units)["input_ids"]).tolist() == [1, 2]


def test_empty_utterance_is_no_error(tokenizer):
    assert tokenizer("")["input_ids"] == [1]
    assert tokenizer.encode_units([])["input_ids"] == [1]
    assert tokenizer.decode_units([]).tolist() == []


def test_sixty_five_thousand_units(tmp_path):
    HubertUnitTokenizer(num_units=65_000).save_pretrained(tmp_path)
    tokenizer = HubertUnitTokenizer.from_pretrained(tmp_path)
    units = np.array([0, 64_999, 31_999], dtype=np.uint16)
    assert tokenizer.encode_units(units)["input_ids"] == [1, 2, 65_001, 32_001]
    assert tokenizer("<Un0><Un64999><Un31999>")["input_ids"] == [1, 2, 65_001, 32_001]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Un500>", "<Un500> at character 0 is outside this vocabulary of <Un0> to <Un499>"),
        ("<Un3><Un777>", "<Un777> at character 5 is outside"),
        ("<Un3> <Un4>", "' <Un4>' at character 5 is not a unit"),
        ("<Un3>hello", "'hello' at character 5 is not a unit"),
        ("<S><Un03>", "'<Un03>' at character 3 is not a unit"),
        ("<Un-1>", "'<Un-1>' at character 0 is not a unit"),
        (["<Un1>", "<UNK>"], "'<UNK>' at character 0 is not a unit"),
    ],
)
def test_text_that_is_no_unit_is_an_error(tokenizer, text, message):
    with pytest.raises(ValueError) as error:
        tokenizer(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([1, 500], "the sequence: unit 500 is outside this vocabulary of units 0 to 499"),
        ([[1], [2, -1]], "sequence 1: unit -1 is outside"),
        ([0.5], "expected integers of shape \\(units,\\), got float64"),
        ([[[1]]], "got int64 of shape \\(1, 1, 1\\)"),
        ([[1, 2], 3], "sequence 1: expected integers"),
        ("<Un3>", "the sequence: expected integers"),
        (torch.tensor(3), "Expected one or several sequences of integers"),
        ({3, 4}, "Expected one or several sequences of integers"),
    ],
)
def test_values_that_are_no_units_are_an_error(tokenizer, units, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.encode_units(units)
    if units != [1, 500]:  # the id of a unit
        with pytest.raises(ValueError, match=message.replace("unit", "id")):
            tokenizer.decode_units(units)


def test_ids_outside_the_vocabulary_are_an_error(tokenizer):
    for decode in (tokenizer.decode, tokenizer.decode_units):
        with pytest.raises(ValueError, match="id 502 is outside this vocabulary of ids 0 to 501"):
            decode([1, 502])
    with pytest.raises(ValueError, match="'<Un500>' is not in this vocabulary"):
        tokenizer.convert_tokens_to_ids("<Un500>")


def test_a_vocabulary_needs_a_unit():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        HubertUnitTokenizer(num_units=0)


def test_added_token_is_not_a_unit():
    tokenizer = HubertUnitTokenizer(num_units=9)
    tokenizer.add_tokens(["<speech>"])
    assert tokenizer("<Un3><speech><Un8>")["input_ids"] == [1, 5, 11, 10]
    assert tokenizer.decode([5, 11]) == "<Un3><speech>"
    assert tokenizer.decode_units([1, 5, 10]).tolist() == [3, 8]
    with pytest.raises(ValueError, match="the sequence: id 11 is outside this vocabulary of ids 0 to 10"):
        tokenizer.decode_units([5, 11])
    with pytest.raises(ValueError, match="unit 9 is outside"):
        tokenizer.encode_units([9])
    with pytest.raises(ValueError, match="<Un9> at character 13 is outside this vocabulary"):
        tokenizer("<Un3><speech><Un9>")


def test_errors_in_a_batch_name_the_row():
    tokenizer = HubertUnitTokenizer(num_units=9)
    with pytest.raises(ValueError, match="sequence 1: unit 9 is outside"):
        tokenizer.encode_units([[1, 2], [3, 9]])
    with pytest.raises(ValueError, match="sequence 1: id 11 is outside"):
        tokenizer.decode_units([[1, 2], [3, 11]])
    with pytest.raises(ValueError, match="text 1: <Un9> at character 5 is outside"):
        tokenizer(["<Un1>", "<Un2><Un9>"])


@pytest.mark.parametrize("num_units", [65_537, 10_000_000, 10**9])
def test_number_of_units_that_no_corpus_stores_is_refused(num_units, tmp_path):
    match = f"`num_units` must be at most 65,536, which a corpus can store, got {num_units:,}"
    with pytest.raises(ValueError, match=match):
        HubertUnitTokenizer(num_units=num_units)
    config = {"tokenizer_class": "HubertUnitTokenizer", "num_units": num_units}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=match):
        HubertUnitTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "speech_language_model", "vocab_size": num_units + 2})
    )
    with pytest.raises(ValueError, match=match):
        HubertUnitTokenizer.from_pretrained(tmp_path)


def test_padded_model_has_the_units_that_it_names(tmp_path):
    config = {"model_type": "speech_language_model", "vocab_size": 64, "num_units": 50}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert AutoTokenizer.from_pretrained(tmp_path).num_units == 50


@pytest.mark.parametrize("name", ["pad_token", "bos_token", "eos_token"])
def test_special_tokens_are_those_of_the_vocabulary(name):
    with pytest.raises(ValueError, match="`eos_token` must be <PAD>, <S> and <S>, got .*<Un3>"):
        HubertUnitTokenizer(num_units=50, **{name: "<Un3>"})


@pytest.mark.parametrize("num_units", ["50", True, 2.0])
def test_the_number_of_units_is_a_whole_number(num_units):
    with pytest.raises(ValueError, match="whole number"):
        HubertUnitTokenizer(num_units=num_units)
