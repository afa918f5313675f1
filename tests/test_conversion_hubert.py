import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, HubertModel, WhisperConfig

from slam_hf.conversion import read_hubert


FOLDER = Path(__file__).parent / "fixtures" / "hubert-25hz"


def test_hubert_is_loaded_in_float32(tmp_path):
    HubertModel.from_pretrained(FOLDER).to(torch.bfloat16).save_pretrained(tmp_path)
    hubert = read_hubert(tmp_path)
    assert {parameter.dtype for parameter in hubert.parameters()} == {torch.float32}
    assert not hubert.training


@pytest.mark.parametrize("config", [WhisperConfig(), BertConfig()], ids=lambda config: config.model_type)
def test_models_without_a_state_for_each_frame_are_refused(tmp_path, config):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"of type '{config.model_type}': it has no hidden state for each frame"):
        read_hubert(tmp_path)


def test_missing_weights_are_refused(tmp_path):
    shutil.copy(FOLDER / "config.json", tmp_path)
    weights = load_file(FOLDER / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read_hubert(tmp_path)
    del weights["encoder.layers.1.attention.q_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights of its encoder: encoder.layers.1.attention.q_proj.weight"):
        read_hubert(tmp_path)
