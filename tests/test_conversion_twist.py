import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from slam_hf.conversion.twist import read_twist


def tiny_twist(kind: str) -> torch.nn.Module:
    """The released form: units from id `offset` on, padding 1, end of sequence 2."""
    torch.manual_seed(0)
    ids = {"vocab_size": 54, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if kind == "opt":
        config = OPTConfig(
            hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=16, **ids
        )
        model = OPTForCausalLM(config)
    else:
        config = LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.5,
            **ids,
        )
        model = LlamaForCausalLM(config)
    model.config.offset = 4
    return model.eval()


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_logits_are_those_of_the_original(kind, tmp_path):
    original = tiny_twist(kind)
    original.save_pretrained(tmp_path)
    model = read_twist(tmp_path)
    assert model.config.vocab_size == 52
    units = torch.tensor([[3, 49, 0, 7, 3]])
    with torch.no_grad():
        expected = original(units + 4).logits
        logits = model(units + 2).logits
    assert torch.equal(logits, torch.cat([expected[..., [1, 2]], expected[..., 4:]], dim=-1))
    assert model.config.base_config.bos_token_id == 1
    assert str(tmp_path) not in json.dumps(model.config.to_dict())


def test_fewer_units_than_ids(tmp_path):
    tiny_twist("opt").save_pretrained(tmp_path)
    assert read_twist(tmp_path, num_units=40).config.num_units == 40
    with pytest.raises(ValueError, match="there are no 60 units from 4 on, of 54 ids"):
        read_twist(tmp_path, num_units=60)


def test_models_that_are_not_of_twist_are_refused(tmp_path):
    model = tiny_twist("opt")
    model.config.eos_token_id = 10
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be ids besides the units, 4 to 53"):
        read_twist(tmp_path)
    del model.config.offset
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="config.json has no `offset`"):
        read_twist(tmp_path)
