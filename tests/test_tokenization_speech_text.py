import json
import re
import shutil

import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE, WordLevel
from transformers import AutoProcessor, AutoTokenizer, BertJapaneseTokenizer, PreTrainedTokenizerFast

from slam_hf import HubertUnitTokenizer, SpeechTextTokenizer
from slam_hf.tokenization_speech_text import LAYOUTS


@pytest.fixture
def folder(interleaved_checkpoint, tmp_path):
    """The interleaved checkpoint without its weights, in a folder that tests may change."""
    shutil.copy(interleaved_checkpoint / "config.json", tmp_path)
    shutil.copytree(interleaved_checkpoint / "text-tokenizer", tmp_path / "text-tokenizer")
    return tmp_path


@pytest.fixture
def cases(interleaved_checkpoint) -> list[dict]:
    return json.loads((interleaved_checkpoint / "interleaved.json").read_text())["cases"]


@pytest.fixture
def tokenizer(interleaved_checkpoint) -> SpeechTextTokenizer:
    return AutoTokenizer.from_pretrained(
        interleaved_checkpoint, text_tokenizer=interleaved_checkpoint / "text-tokenizer"
    )


def write_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def text_tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    """A text tokenizer with one token for each of these strings."""
    backend = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=tokens[0])


def test_vocabulary_is_text_then_units_then_modality_tokens(tokenizer):
    assert isinstance(tokenizer, SpeechTextTokenizer)
    assert (len(tokenizer), tokenizer.num_units) == (422, 40)
    assert (tokenizer.text_ids, tokenizer.unit_ids) == (range(380), range(380, 420))
    assert tokenizer.speech_ids == tokenizer.unit_ids
    assert tokenizer.convert_tokens_to_ids(["<Un0>", "<Un39>", "<speech>", "<text>"]) == [380, 419, 420, 421]
    assert (tokenizer.speech_token_id, tokenizer.text_token_id) == (420, 421)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 0, 1)
    assert (tokenizer.speech_token, tokenizer.text_token) == ("<speech>", "<text>")


def test_interleaved_strings_give_the_ids_of_the_reference(tokenizer, cases):
    assert len(cases) == 24
    for case in cases:
        assert tokenizer(case["string"])["input_ids"] == case["input_ids"]
        assert tokenizer.decode(case["input_ids"]) == "<|begin|>" + case["string"]


def test_units_alone_have_no_modality_token(tokenizer, interleaved_checkpoint):
    rows = json.loads((interleaved_checkpoint / "interleaved.json").read_text())["rows"]
    expected = np.load(interleaved_checkpoint / "reference.npz")["units_only_input_ids"]
    ids = tokenizer.encode_units([row["units"] for row in rows], padding=True, return_tensors="np")["input_ids"]
    assert ids.tolist() == expected.tolist()
    strings = [tokenizer.unit_string(row["units"]) for row in rows]
    assert tokenizer(strings, padding=True, return_tensors="np")["input_ids"].tolist() == expected.tolist()
    assert [units.tolist() for units in tokenizer.decode_units(expected)] == [row["units"] for row in rows]


def test_saved_tokenizer_loads_with_and_without_this_package(tokenizer, cases, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert "pad_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    loaded, plain = AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert isinstance(loaded, SpeechTextTokenizer)
    assert (loaded.num_units, loaded.unit_ids, loaded.text_ids) == (40, range(380, 420), range(380))
    for case in cases:
        assert loaded(case["string"])["input_ids"] == plain(case["string"])["input_ids"] == case["input_ids"]
    assert loaded.get_vocab() == plain.get_vocab() == tokenizer.get_vocab()


def test_text_tokenizer_is_the_one_that_the_configuration_names(folder):
    write_config(folder, base_config={"_name_or_path": str(folder / "text-tokenizer"), "vocab_size": 380})
    assert AutoTokenizer.from_pretrained(folder).num_units == 40
    write_config(folder, base_config={"vocab_size": 380}, base_model_name=str(folder / "text-tokenizer"))
    assert AutoTokenizer.from_pretrained(folder).num_units == 40


def test_missing_text_tokenizer_is_asked_for(folder):
    match = "extends the text tokenizer 'meta-llama/Llama-3.2-3B'.*text_tokenizer=\"<Hub id or folder>\""
    with pytest.raises(OSError, match=match):
        AutoTokenizer.from_pretrained(folder)
    with pytest.raises(OSError, match="'missing/tokenizer', which cannot be loaded.*text_tokenizer="):
        AutoTokenizer.from_pretrained(folder, text_tokenizer="missing/tokenizer")


def test_number_of_units_is_checked(folder):
    kwargs = {"text_tokenizer": folder / "text-tokenizer"}
    assert AutoTokenizer.from_pretrained(folder, num_units=40, **kwargs).num_units == 40
    with pytest.raises(ValueError, match="has 40 units beside its text, and not 500"):
        SpeechTextTokenizer.from_pretrained(folder, num_units=500, **kwargs)


@pytest.mark.parametrize(("vocab_size", "left"), [(382, "0"), (300, "-82"), (70_000, "69,618")])
def test_vocabulary_that_fits_no_layout_is_refused(vocab_size, left, folder):
    write_config(folder, vocab_size=vocab_size, base_config={"vocab_size": vocab_size})
    match = f"vocabulary of {vocab_size:,} ids, and the text tokenizer '.*' 380. That leaves {left} ids for units"
    with pytest.raises(ValueError, match=match):
        AutoTokenizer.from_pretrained(folder, text_tokenizer=folder / "text-tokenizer")


def test_text_tokenizer_of_another_size_is_refused(folder):
    """As that of Qwen2 for a model that extends Qwen2.5."""
    write_config(folder, num_units=40, tokenizer_class="SpeechTextTokenizer")
    assert AutoTokenizer.from_pretrained(folder, text_tokenizer=folder / "text-tokenizer").num_units == 40
    text_tokenizer([f"w{index}" for index in range(361)]).save_pretrained(folder / "other")
    with pytest.raises(ValueError, match="has 40 units, and the text tokenizer '.*' of 361 tokens leaves 59 ids"):
        AutoTokenizer.from_pretrained(folder, text_tokenizer=folder / "other")


def test_interleaved_checkpoint_has_no_unit_tokenizer(folder):
    with pytest.raises(ValueError, match="the vocabulary of 422 ids extends that of a text model by units"):
        HubertUnitTokenizer.from_pretrained(folder)
    assert HubertUnitTokenizer.from_pretrained(folder, num_units=420).num_units == 420


def test_unit_checkpoint_has_no_text_tokenizer(published_checkpoint, interleaved_checkpoint):
    with pytest.raises(ValueError, match="a vocabulary of units alone, which extends no text tokenizer"):
        AutoTokenizer.from_pretrained(published_checkpoint, text_tokenizer=interleaved_checkpoint / "text-tokenizer")


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"vocab_size": 502, "base_config": {"_name_or_path": "a/b", "vocab_size": 151_936}}, HubertUnitTokenizer),
        ({"vocab_size": 50_002, "base_config": {"_name_or_path": "a/b", "vocab_size": 151_936}}, HubertUnitTokenizer),
        ({"vocab_size": 50_002}, HubertUnitTokenizer),
        ({"vocab_size": 50_002, "num_units": 50_000, "base_model_name": "a/b"}, HubertUnitTokenizer),
        ({"vocab_size": 128_758, "base_config": {"_name_or_path": "a/b", "vocab_size": 128_256}}, SpeechTextTokenizer),
        (
            {"vocab_size": 152_167, "base_config": {"vocab_size": 152_064}, "base_model_name": "a/b"},
            SpeechTextTokenizer,
        ),
        # Its tokenizer of 50,295 tokens, extended by 500 units, fits in the rows that the text model has unused.
        ({"vocab_size": 50_797, "base_config": {"_name_or_path": "a/b", "vocab_size": 51_200}}, SpeechTextTokenizer),
    ],
)
def test_kind_of_tokenizer_follows_from_the_configuration(config, kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "speech_language_model", **config}))
    if kind is HubertUnitTokenizer:
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        assert (type(tokenizer), tokenizer.num_units) == (kind, config["vocab_size"] - 2)
    else:
        with pytest.raises(OSError, match="extends the text tokenizer 'a/b'"):
            AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("token", ["<speech>", "<text>", "<Un0>", "<Un7>", "[Speech]", "[Hu0]"])
def test_text_tokenizer_that_knows_speech_is_refused(token):
    with pytest.raises(ValueError, match=f"already holds {token}".replace("[", r"\[")):
        SpeechTextTokenizer.from_text_tokenizer(text_tokenizer(["a", "b", token]), num_units=10)


def test_text_tokenizer_with_gaps_is_refused():
    backend = Tokenizer(WordLevel({"a": 0, "b": 7}, unk_token="a"))
    with pytest.raises(ValueError, match="has 2 tokens and ids up to 7: units cannot follow a vocabulary with gaps"):
        SpeechTextTokenizer.from_text_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), num_units=10)


def test_text_tokenizer_must_be_a_fast_one(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[SEP]\n[PAD]\n[CLS]\n[MASK]\n")
    slow = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), word_tokenizer_type="basic")
    with pytest.raises(ValueError, match="units can only be added to a fast tokenizer"):
        SpeechTextTokenizer.from_text_tokenizer(slow, num_units=10)


def test_code_and_pickles_of_a_text_tokenizer_are_not_executed(folder):
    text, witness = folder / "text", folder / "witness"
    text.mkdir()
    (text / "code.py").write_text(f"open({str(witness)!r}, 'w')\n")
    (text / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["code.Tokenizer", null]}}')
    (text / "config.json").write_text('{"model_type": "unknown", "auto_map": {"AutoConfig": "code.Config"}}')
    (text / "vocab.pkl").write_bytes(f"cos\nmkdir\n(S'{witness}'\ntR.".encode())
    with pytest.raises(OSError, match="which cannot be loaded, without code of its repository"):
        AutoTokenizer.from_pretrained(folder, text_tokenizer=text)
    assert not witness.exists()


def test_only_the_caller_names_another_text_tokenizer(folder):
    other = text_tokenizer(["a", "b"])
    other.save_pretrained(folder / "other")
    (folder / "tokenizer_config.json").write_text(json.dumps({"text_tokenizer": str(folder / "other")}))
    with pytest.raises(OSError, match="extends the text tokenizer 'meta-llama/Llama-3.2-3B'"):
        AutoTokenizer.from_pretrained(folder)


def test_padding_id_does_not_change_how_text_is_split():
    """In Llama 3 and Qwen, id 0 is `!`, and `!!` is one token."""
    backend = Tokenizer(BPE({"!": 0, "!!": 1, "a": 2}, [("!", "!")]))
    tokenizer = SpeechTextTokenizer.from_text_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), num_units=3)
    assert tokenizer("a!!<speech><Un2>")["input_ids"] == [2, 1, 6, 5]
    batch = tokenizer(["a!!", "!"], padding=True)
    assert batch["input_ids"] == [[2, 1], [0, 0]]
    assert batch["attention_mask"] == [[1, 1], [1, 0]]


@pytest.mark.parametrize("add_eos_token", [False, True])
@pytest.mark.parametrize("add_bos_token", [False, True])
def test_sequences_begin_and_end_as_asked_for(tokenizer, add_bos_token, add_eos_token, tmp_path):
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, False)
    tokenizer.save_pretrained(tmp_path / "default")
    expected = [0] * add_bos_token + [383, 421, 66] + [1] * add_eos_token
    tokenizer.add_bos_token, tokenizer.add_eos_token = add_bos_token, add_eos_token
    assert tokenizer("<Un3><text>a")["input_ids"] == expected
    assert tokenizer.encode_units([3])["input_ids"] == [0] * add_bos_token + [383] + [1] * add_eos_token
    assert tokenizer.encode_prompt([[3], "a"]) == [0] * add_bos_token + [420, 383, 421, 66]
    tokenizer.save_pretrained(tmp_path / "switched")
    assert AutoTokenizer.from_pretrained(tmp_path / "switched")("<Un3><text>a")["input_ids"] == expected
    with_eos = AutoTokenizer.from_pretrained(tmp_path / "default", add_eos_token=True)
    assert with_eos("<Un3>")["input_ids"] == [0, 383, 1]


@pytest.mark.parametrize("output_modality", ["speech", "text"])
def test_prompts_are_those_of_the_reference(tokenizer, cases, interleaved_checkpoint, output_modality):
    spans = re.findall("<(text|speech)>((?:(?!<text>|<speech>).)*)", cases[0]["string"])
    parts = [[int(u) for u in re.findall(r"\d+", span)] if kind == "speech" else span for kind, span in spans]
    assert tokenizer.encode_prompt(parts) == cases[0]["input_ids"]
    expected = np.load(interleaved_checkpoint / "reference.npz")[f"prompt_{output_modality}"][0].tolist()
    assert tokenizer.encode_prompt(parts, output_modality) == expected


def test_modality_tokens_stand_where_the_modality_changes(tokenizer):
    assert tokenizer.encode_prompt([[3], [4]]) == [0, 383, 384]
    assert tokenizer.encode_prompt([[3], [4]], "speech") == [0, 420, 383, 384, 420]
    assert tokenizer.encode_prompt([np.array([3], dtype=np.uint16), "a", "a"]) == [0, 420, 383, 421, 66, 66]
    assert tokenizer.encode_prompt(["a"], "text") == [0, 421, 66, 421]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "A prompt needs a text or speech, and this one is empty"),
        (["a", "a <Un3>"], "The text of part 1 holds <Un3>, which stands for speech"),
        (["<text>a"], "The text of part 0 holds <text>"),
        ([[3, 40]], "part 0: unit 40 is outside this vocabulary"),
    ],
)
def test_bad_prompts_are_refused(tokenizer, parts, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.encode_prompt(parts)
    with pytest.raises(ValueError, match="A modality is 'speech' or 'text', and not 'audio'"):
        tokenizer.encode_prompt(["a"], "audio")


def test_spiritlm_layout(tmp_path):
    backend = Tokenizer(BPE({"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, 32_000)}}, []))
    backend.decoder = Fuse()
    text = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made = SpeechTextTokenizer.from_text_tokenizer(text, num_units=501, layout="spiritlm")
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "speech_language_model", "vocab_size": 32_768}))
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        assert (len(tokenizer), tokenizer.num_units) == (32_667, 501)
        assert (tokenizer.text_token_id, tokenizer.speech_token_id) == (32_000, 32_001)
        assert (tokenizer.unit_ids, tokenizer.speech_ids) == (range(32_002, 32_503), range(32_002, 32_667))
        names = ["[Text]", "[Speech]", "[Hu0]", "[Hu500]", "[Pi0]", "[Pi63]", "[St0]", "[St99]"]
        ids = [32_000, 32_001, 32_002, 32_502, 32_503, 32_566, 32_567, 32_666]
        assert tokenizer.convert_tokens_to_ids(names) == ids
        assert tokenizer("".join(names[1:]), add_special_tokens=False)["input_ids"] == ids[1:]
        assert tokenizer.encode_units([0, 500], add_special_tokens=False)["input_ids"] == [32_002, 32_502]
        assert tokenizer.unit_string([0, 500]) == "[Hu0][Hu500]"
        assert tokenizer.decode_units(ids).tolist() == [0, 500]
        assert tokenizer.decode(ids[1:]) == "".join(names[1:])


def test_modality_tokens_of_spiritlm_stand_only_where_the_modality_changes():
    text = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, [])))
    tokenizer = SpeechTextTokenizer.from_text_tokenizer(text, num_units=3, layout="spiritlm")
    speech, words, unit = tokenizer.speech_token_id, tokenizer.text_token_id, tokenizer.unit_ids[2]
    assert tokenizer.encode_prompt([[2], [2], "a"]) == [speech, unit, unit, words, 0]
    assert tokenizer.encode_prompt([[2]]) == tokenizer.encode_prompt([[2]], "speech") == [speech, unit]
    assert tokenizer.encode_prompt([[2]], "text") == [speech, unit, words]
    assert tokenizer.encode_prompt(["a"], "text") == [words, 0]


def test_sentencepiece_model_in_the_layout_of_spiritlm(tmp_path):
    pieces = LAYOUTS["spiritlm"].tokens(num_units=9)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small text of a few words"] * 50),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=30,
        hard_vocab_limit=False,
        model_type="bpe",
    )
    (tmp_path / "added_tokens.json").write_text(
        json.dumps({piece: index for index, piece in enumerate(pieces, start=number_of_pieces(tmp_path))})
    )
    tokenizer = SpeechTextTokenizer.from_pretrained(tmp_path)
    assert tokenizer.num_units == 9
    assert tokenizer.text_ids == range(number_of_pieces(tmp_path))
    ids = tokenizer("[Speech][Hu3][Pi63][St0]", add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.convert_tokens_to_ids(["[Speech]", "[Hu3]", "[Pi63]", "[St0]"])


def number_of_pieces(folder) -> int:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()


def test_text_tokenizer_in_the_repository_is_extended(folder, cases):
    shutil.copy(folder / "text-tokenizer" / "tokenizer.json", folder)
    shutil.copy(folder / "text-tokenizer" / "tokenizer_config.json", folder)
    tokenizer = SpeechTextTokenizer.from_pretrained(folder)
    assert tokenizer.num_units == 40
    assert tokenizer(cases[0]["string"])["input_ids"] == cases[0]["input_ids"]
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == tokenizer.get_vocab()


def test_text_model_with_unused_rows_has_no_units(folder):
    """Qwen2.5 has 151,936 rows, and 151,665 tokens."""
    write_config(folder, model_type="qwen2")
    with pytest.raises(ValueError, match="config.json is of a model of type 'qwen2', which has no units"):
        SpeechTextTokenizer.from_pretrained(folder, text_tokenizer=folder / "text-tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "text-tokenizer" / name, folder)
    with pytest.raises(ValueError, match="with neither <Un0> nor"):
        SpeechTextTokenizer.from_pretrained(folder)


def test_saved_tokenizer_of_text_and_units_is_not_one_of_units(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the vocabulary of 422 ids extends that of a text model by units"):
        HubertUnitTokenizer.from_pretrained(folder)


def test_broken_layout_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in saved["added_tokens"]:
        token["content"] = {"<Un3>": "<Un4>", "<Un4>": "<Un3>"}.get(token["content"], token["content"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="<Un3> has the id 384 in this vocabulary, and 383 in its layout"):
        AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model": {"type": "BPE"}}', '{"model": {}, "added_tokens": []}']
)
def test_a_damaged_tokenizer_is_named(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=str(folder)):
        AutoTokenizer.from_pretrained(folder)


def test_tokenizer_of_text_alone_is_refused(folder):
    match = "a vocabulary of 380 tokens with neither <Un0> nor \\[Hu0\\] is not one of text and units"
    with pytest.raises(ValueError, match=match):
        SpeechTextTokenizer.from_pretrained(folder / "text-tokenizer")


def test_tokenizer_with_more_tokens_than_the_model_is_refused(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    write_config(folder, vocab_size=421)
    with pytest.raises(ValueError, match="the tokenizer has 422 tokens, and config.json 421"):
        AutoTokenizer.from_pretrained(folder)


def test_ids_outside_a_modality(tokenizer):
    speech, text = tokenizer.ids_outside("speech"), tokenizer.ids_outside("text")
    assert sorted(set(range(422)) - set(speech)) == [1, *range(380, 420)]
    assert sorted(set(range(422)) - set(text)) == list(range(380))
    with pytest.raises(ValueError, match="'speech' or 'text', and not 'audio'"):
        tokenizer.ids_outside("audio")


def test_values_that_are_not_units_are_an_error(tokenizer):
    with pytest.raises(ValueError, match="sequence 1: unit 40 is outside this vocabulary of units 0 to 39"):
        tokenizer.encode_units([[1], [40]])
    with pytest.raises(ValueError, match="id 422 is outside this vocabulary of ids 0 to 421"):
        tokenizer.decode_units(torch.tensor([5, 422]))


def test_unit_tokenizer_has_the_same_surface():
    tokenizer = HubertUnitTokenizer(num_units=9)
    assert (tokenizer.unit_ids, tokenizer.speech_ids, tokenizer.text_ids) == (range(2, 11), range(2, 11), range(0))
    assert (tokenizer.speech_token_id, tokenizer.text_token_id) == (None, None)
