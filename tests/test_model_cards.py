"""The cards of the published models are rendered, and give the paper's numbers as the paper's."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import run_with_hub

from slam_hf.evaluation.slamming_results import PUBLISHED
from slam_hf.evaluation.tasks import TASKS
from slam_hf.hub.model_card import describe_published


ROOT = Path(__file__).parents[1]
FAMILY = ROOT / "model_cards" / "slam_family.yaml"
NAMES = ["slam", "slam_scaled", "slam_without_dpo"]


def load(name: str) -> ModelCard:
    return ModelCard.load(ROOT / "model_cards" / f"{name}.md")


def table(card: ModelCard) -> dict[str, float]:
    results = card.text.partition("## Results")[2]
    return {name: float(value) for name, value in re.findall(r"^\| (\S+) [↑↓] \| (\S+) \|$", results, re.MULTILINE)}


def test_the_cards_are_those_that_the_script_renders(tmp_path, monkeypatch):
    script = str(ROOT / "hub_scripts" / "model_card.py")
    monkeypatch.setattr(sys, "argv", [script, str(FAMILY), "--output", str(tmp_path)])
    runpy.run_path(script, run_name="__main__")
    rendered = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert sorted(rendered) == [f"{name}.md" for name in NAMES]
    for name, text in rendered.items():
        assert (ROOT / "model_cards" / name).read_text("utf-8") == text


@pytest.mark.parametrize("name", NAMES)
def test_metadata_and_text_give_the_same_results(name):
    card = load(name)
    assert {result.dataset_name: result.metric_value for result in card.data.eval_results} == table(card)
    assert len(table(card)) == 5


@pytest.mark.parametrize("name", NAMES)
def test_results_are_the_papers_and_marked_so(name):
    card = load(name)
    [row] = [row for row in PUBLISHED if row.model == card.data.model_name]
    expected = {TASKS[task].heading: score.value for task, score in row.scores.items()}
    assert table(card) == expected
    assert all(result.source_name == "reported by the paper" for result in card.data.eval_results)
    assert all(result.source_url == "https://arxiv.org/abs/2502.15814" for result in card.data.eval_results)
    assert all(result.verified is False for result in card.data.eval_results)
    assert "**reported by the paper**" in card.text
    assert "The paper gives no intervals." in card.text


def test_a_model_without_a_repository_has_no_snippet():
    card = load("slam_without_dpo")
    assert "```python" not in card.text
    assert "hub_scripts/pretrain.py --config hub_scripts/recipes/slam_scaled.yaml" in card.text
    assert describe_published(FAMILY)["slam_without_dpo"].repo_id is None


SNIPPETS = """
import os, re
from pathlib import Path
from unittest.mock import patch
import torch
from huggingface_hub import ModelCard
import slam_hf.conversion
from slam_hf import AudioToAudioPipeline, HubertUnitCodec, SpeechLMForCausalLM, pipeline_audio_to_audio
from slam_hf.configuration_hubert_unit_codec import UnitHifiGanConfig
from slam_hf.modeling_unit_hifigan import UnitHifiGan

os.chdir({folder!r})
vocoder = UnitHifiGan(UnitHifiGanConfig(upsample_initial_channel=32))
codec = HubertUnitCodec.from_parts({hubert!r}, torch.randn(500, 48), layer=3, vocoder=vocoder)
patch("slam_hf.conversion.mhubert_25hz.published_codec", lambda: codec).start()
for name in ("slam", "slam_scaled"):
    SpeechLMForCausalLM.from_pretrained({checkpoint!r}).push_to_hub(f"slprl/{{name}}")
    card = ModelCard.load(Path({cards!r}) / f"{{name}}.md")
    card.validate()
    blocks = re.findall(r"```python\\n(.*?)```", card.text, flags=re.DOTALL)
    scope = {{}}
    for block in blocks:
        exec(block, scope)
    assert len(blocks) == 2 and len(scope["result"]["audio"]) and len(scope["units"])
print("ran")
"""


def test_the_snippets_run(tmp_path, published_checkpoint, recordings):
    (tmp_path / "recording.flac").write_bytes(recordings[0].read_bytes())
    script = SNIPPETS.format(
        folder=str(tmp_path),
        hubert=str(published_checkpoint.parent / "hubert-25hz"),
        checkpoint=str(published_checkpoint),
        cards=str(ROOT / "model_cards"),
    )
    assert run_with_hub(script, tmp_path / "cache").split()[-1] == "ran"


def test_the_script_renders_the_card_of_a_run_with_its_picture(tmp_path, monkeypatch, tiny_model):
    tiny_model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "training_curve.png").write_bytes(b"\x89PNG")
    script = str(ROOT / "hub_scripts" / "model_card.py")
    card = tmp_path / "cards" / "model.md"
    arguments = [str(tmp_path / "model"), "--repo_id", "user/model", "--license", "mit", "--output", str(card)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(script, run_name="__main__")
    assert ModelCard.load(card).data.license == "mit"
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "model")])
    (tmp_path / "model" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    runpy.run_path(script, run_name="__main__")
    assert ModelCard.load(tmp_path / "model" / "README.md").data.license == "cc-by-4.0"
    assert "](training_curve.png)" in card.read_text("utf-8")
    assert (card.parent / "training_curve.png").read_bytes() == b"\x89PNG"
