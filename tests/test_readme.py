"""The README's Python, run as written against a Hub with tiny stand-ins for the published checkpoints."""

import re
import shutil
from pathlib import Path

import pytest
from loopback_hub import run_with_hub
from transformers import HubertConfig, HubertModel


README = Path(__file__).parents[1] / "README.md"

PREPARE = """
import os
from unittest.mock import patch
from huggingface_hub import HfApi
import slam_hf.pipeline_audio_to_audio
import torch

os.chdir({folder!r})
api = HfApi()
for name in ("slprl/slam", "slprl/slam_scaled"):
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path={checkpoint!r}, allow_patterns=["config.json", "model.safetensors"])
# A model of text and speech, whose repository holds no tokenizer.
api.create_repo("slprl/text")
api.upload_folder(repo_id="slprl/text", folder_path={interleaved!r} + "/text-tokenizer")
config = slam_hf.SpeechLMConfig.from_pretrained({interleaved!r}, vocab_size=380 + 502)
config.base_config._name_or_path = "slprl/text"
slam_hf.SpeechLMForCausalLM(config).save_pretrained("interleaved")
api.create_repo("slprl/SIMS-Llama3.2-3B")
api.upload_folder(repo_id="slprl/SIMS-Llama3.2-3B", folder_path="interleaved")
# The codec of the published checkpoints is no repository of the Hub.
vocoder = slam_hf.modeling_unit_hifigan.UnitHifiGan(
    slam_hf.configuration_hubert_unit_codec.UnitHifiGanConfig(upsample_initial_channel=32)
)
codec = slam_hf.HubertUnitCodec.from_parts("path/to/hubert", torch.randn(500, 48), layer=11, vocoder=vocoder)
patch("slam_hf.conversion.mhubert_25hz.published_codec", lambda: codec).start()
"""

CHECKS = """
assert result["audio"].dtype == "float32" and result["sampling_rate"] == 16_000
assert 0 < len(result["units"]) <= 150 and len(result["prompt_units"]) <= 75
assert all(0 <= unit < 500 for unit in units.tolist())
assert len(corpus[0]["units"]) == len(corpus[0]["durations"])
assert resynthesised.ndim == 1 and torch.isfinite(resynthesised).all()
assert isinstance(answer, str) and both.startswith("She said:") and spoken.dtype == "float32"
print("ran")
"""


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_every_python_block_runs(tmp_path, published_checkpoint, recordings):
    fixtures = published_checkpoint.parent
    config = HubertConfig.from_pretrained(fixtures / "hubert-25hz", num_hidden_layers=12)
    HubertModel(config).save_pretrained(tmp_path / "path/to/hubert")
    shutil.copy(fixtures / "hubert-25hz/kmeans.bin", tmp_path / "path/to")
    shutil.copy(fixtures / "unit-hifigan/g_00500000", tmp_path / "path/to")
    shutil.copy(fixtures / "unit-hifigan/config.json", tmp_path / "path/to")
    shutil.copy(recordings[0], tmp_path / "recording.flac")
    shutil.copytree(fixtures / "librispeech-units", tmp_path / "corpora/librispeech")
    shutil.copytree(README.parent / "slam_hf/metrics", tmp_path / "slam_hf/metrics")
    interleaved = str(fixtures / "interleaved-checkpoint")
    prepare = PREPARE.format(checkpoint=str(published_checkpoint), folder=str(tmp_path), interleaved=interleaved)
    assert len(python_blocks()) >= 3
    examples = re.findall("^>>> (.*)$", README.read_text(), flags=re.MULTILINE)
    assert len(examples) >= 6
    output = run_with_hub("\n".join([prepare, *examples, *python_blocks(), CHECKS]), tmp_path / "cache")
    assert output.split()[-1] == "ran"


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()))
def test_links_lead_to_files(link):
    assert (README.parent / link).exists()
