"""The Python of the READMEs, run as written against a Hub with tiny stand-ins for the published checkpoints; and the
links between them."""

import re
import shutil
from pathlib import Path

import pytest
from loopback_hub import run_with_hub
from transformers import HubertConfig, HubertModel


ROOT = Path(__file__).parents[1]
MANUAL = [ROOT / "README.md", ROOT / "slam_hf/README.md", *sorted(ROOT.glob("hub_scripts/**/README.md"))]
DOCUMENTS = [*MANUAL, *sorted(ROOT.glob("slam_hf/quickstart/*/README.md"))]

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


def find_all(pattern: str) -> list[str]:
    return re.findall(pattern, "\n".join(path.read_text() for path in MANUAL), flags=re.DOTALL | re.MULTILINE)


def test_every_python_block_runs(tmp_path, published_checkpoint, recordings):
    fixtures = published_checkpoint.parent
    config = HubertConfig.from_pretrained(fixtures / "hubert-25hz", num_hidden_layers=12)
    HubertModel(config).save_pretrained(tmp_path / "path/to/hubert")
    shutil.copy(fixtures / "hubert-25hz/kmeans.bin", tmp_path / "path/to")
    shutil.copy(fixtures / "unit-hifigan/g_00500000", tmp_path / "path/to")
    shutil.copy(fixtures / "unit-hifigan/config.json", tmp_path / "path/to")
    shutil.copy(recordings[0], tmp_path / "recording.flac")
    shutil.copytree(fixtures / "librispeech-units", tmp_path / "corpora/librispeech")
    shutil.copytree(ROOT / "slam_hf/metrics", tmp_path / "slam_hf/metrics")
    interleaved = str(fixtures / "interleaved-checkpoint")
    prepare = PREPARE.format(checkpoint=str(published_checkpoint), folder=str(tmp_path), interleaved=interleaved)
    blocks, examples = find_all(r"^```python\n(.*?)```"), find_all(r"^>>> ([^\n]*)$")
    assert len(blocks) >= 5 and len(examples) >= 6
    output = run_with_hub("\n".join([prepare, *examples, *blocks, CHECKS]), tmp_path / "cache")
    assert output.split()[-1] == "ran"


def headings(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall("^#+ (.*)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)", document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in headings(path), f"{target}#{anchor}"
