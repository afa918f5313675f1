import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from slam_hf import SpeechLMForCausalLM, SpeechTextTokenizer
from slam_hf.conversion.spiritlm import read_spiritlm


@pytest.fixture
def released(tmp_path):
    """A tiny Llama in the released form: 20 text tokens, 9 units, pitch and style, in a padded vocabulary."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{letter: index for index, letter in enumerate("abcdefg ", 3)}}
    backend = Tokenizer(BPE({**vocabulary, **{f"w{i}": i for i in range(11, 20)}}, []))
    text = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    SpeechTextTokenizer.from_text_tokenizer(text, num_units=9, layout="spiritlm").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del saved["auto_map"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**saved, "tokenizer_class": "LlamaTokenizer"}))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
        vocab_size=200,
        pad_token_id=None,
        bos_token_id=1,
        eos_token_id=2,
    )
    original = LlamaForCausalLM(config).eval()
    original.save_pretrained(tmp_path)
    return tmp_path, original


def test_model_and_tokenizer_are_those_of_the_original(released, tmp_path):
    folder, original = released
    model, tokenizer = read_spiritlm(folder)
    assert (tokenizer.num_units, tokenizer.text_ids, tokenizer.speech_ids) == (9, range(20), range(22, 195))
    assert tokenizer.convert_tokens_to_ids(["[Text]", "[Speech]", "[Hu0]", "[Pi0]", "[St99]"]) == [20, 21, 22, 31, 194]
    ids = torch.tensor([tokenizer.encode_prompt(["a b", [3, 8]], "text")])
    assert ids.tolist() == [[20, 3, 10, 4, 21, 25, 30, 20]]
    config = model.config
    assert (config.has_text, config.num_units, config.vocab_size) == (True, 9, 200)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert str(folder) not in json.dumps(config.to_dict())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, original(ids).logits)

    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path / "saved"), SpeechTextTokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, SpeechLMForCausalLM)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, original(ids).logits)


def test_text_lm_is_not_in_this_layout(released):
    folder, _ = released
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    backend = Tokenizer(BPE({"a": 0}, []))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    with pytest.raises(ValueError, match="a vocabulary of 1 tokens with neither <Un0> nor"):
        read_spiritlm(folder)
