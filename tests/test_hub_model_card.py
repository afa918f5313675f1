import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import run_with_hub
from transformers import AutoModelForCausalLM, AutoProcessor

from slam_hf import HubertUnitCodec, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.corpora.dataset_card import render_dataset_card
from slam_hf.evaluation.report import Evaluation, save_evaluation
from slam_hf.fingerprints import describe_model
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.model_card import ModelDescription, make_metadata, make_model_card, render_model_card
from slam_hf.hub.remote_code import export_remote_code
from slam_hf.quickstart import QUICKSTART_CORPUS
from slam_hf.run_record import (
    CorpusRecord,
    Emissions,
    Hardware,
    Reference,
    RunRecord,
    save_run_records,
)


EXPECTED = Path(__file__).parent / "fixtures" / "model_card.md"

PRETRAINING = RunRecord(
    objective="pretraining",
    base_model=None,
    corpora=[
        CorpusRecord(
            Reference("org/units", "0123456789abcdef"), "clean", "train", 2.0, 1200, 180_000, None, "org/codec"
        ),
        CorpusRecord(Reference("my corpus", is_local=True), None, "train", 1.0, 20, 4000, "f" * 64),
    ],
    recipe={"batch_size": 128, "context_length": 1024, "lr_scheduler_kwargs": {"min_lr": 5e-05}, "seed": 0},
    hardware=Hardware("NVIDIA RTX A5000", 2, "AMD EPYC"),
    num_steps=1000,
    num_tokens=130_000_000,
    padding=0.008,
    seconds=7320.4,
    tokens_per_second=16_500.2,
    mfu=0.321,
    validation={"validation loss (nats per unit)": [6.25, 2.5]},
    validation_steps=[0, 1000],
    emissions=Emissions(0.75, 0.25, ["Canada"], 7200.0),
    packages={"slam-hf": "0.1.0", "torch": "2.14.1"},
)
ALIGNMENT = RunRecord(
    objective="preference alignment",
    base_model=Reference("slam", is_local=True),
    corpora=[CorpusRecord(Reference("org/pairs", "89abcdef01234567"), None, "train", None, 64, None, None)],
    recipe={"beta": 0.1, "max_auto_bleu": 0.3},
    hardware=Hardware("AMD EPYC", 1, on_cpu=True),
    num_steps=10,
    seconds=59.6,
    validation={"held-out reward accuracy (%)": [0.0, 75.0]},
    validation_steps=[0, 10],
)


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_processor) -> Path:
    """A model with its processor, without codec and record."""
    folder = tmp_path / "secret" / "model"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


def evaluate(folder: Path, task: str, results: dict, settings: dict, num_skipped: int = 0) -> Path:
    """A summary as `hub_scripts/evaluate_model.py` writes it."""
    described = describe_model(SpeechLMForCausalLM.from_pretrained(folder))
    records = [{"skipped": "too short" if number < num_skipped else None} for number in range(1871)]
    data = {"name": f"secret/{task}", "hash": "0" * 64}
    evaluation = Evaluation(task, results, records, described, data, None, settings)
    return save_evaluation(evaluation, folder / "evaluation", num_parameters=10)


def test_a_card_says_what_was_measured(folder):
    save_run_records([PRETRAINING, ALIGNMENT], folder)
    (folder / "training_curve.png").write_bytes(b"\x89PNG")
    evaluate(folder, "tstorycloze", {"accuracy": 0.8204, "accuracy_interval": [0.8, 0.84]}, {}, num_skipped=3)
    judges = {"asr_model": {"name": "org/whisper"}, "text_lm": {"name": "org/llama"}}
    evaluate(folder, "genppl", {"genppl": 62.8, "genppl_interval": [60.125, 65.5]}, judges)
    card = render_model_card(folder, "user/slam", [folder / "evaluation"], license="mit")
    assert str(card) == EXPECTED.read_text("utf-8")


def test_results_are_metadata(folder):
    file = evaluate(folder, "sblimp", {"accuracy": 0.5886, "accuracy_interval": [0.57, 0.61]}, {})
    card = ModelCard(str(render_model_card(folder, "user/slam", [file])))
    [result] = card.data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("sblimp", "accuracy", 58.86)
    assert result.metric_name == "sBLIMP (%), 95 % interval 57 to 61"
    assert result.source_url is None


def test_conditional_scores_are_beside_the_published_one(folder):
    results = {"accuracy": 0.7, "accuracy_interval": [0.65, 0.75]}
    results |= {name: {"accuracy": 0.8, "accuracy_interval": [0.75, 0.85]} for name in ("conditional", "pmi")}
    evaluate(folder, "tstorycloze_s2t", results, {})
    card = render_model_card(folder, "user/slam")
    rows = [line.split(" | ")[:3] for line in str(card).splitlines() if line.startswith("| tStoryCloze")]
    assert rows == [
        ["| tStoryCloze S→T ↑", "70.00", "65.00 to 75.00"],
        ["| tStoryCloze S→T ↑, by log p(ending given prompt)", "80.00", "75.00 to 85.00"],
        ["| tStoryCloze S→T ↑, by log p(ending given prompt) - log p(ending)", "80.00", "75.00 to 85.00"],
    ]
    [result] = card.data.eval_results
    assert (result.dataset_type, result.dataset_name, result.metric_value) == (
        "tstorycloze_s2t",
        "tStoryCloze S→T",
        70,
    )


def test_a_card_without_record_and_evaluations_claims_nothing(folder):
    card = render_model_card(folder, "user/slam")
    assert "This repository has no record of how the model was trained." in card.text
    assert "This model has not been evaluated." in card.text
    assert "No license was given: ask the authors before you use the model." in card.text
    assert "twist" not in card.text.lower()
    assert "![" not in card.text
    assert card.data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}


def test_results_of_other_weights_are_refused(folder, tmp_path):
    file = evaluate(folder, "sblimp", {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}, {})
    other = json.loads(file.read_text())
    other["model"]["weights"] = "0" * 64
    (tmp_path / "sblimp.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match="sblimp.json' has results of other weights than those in '.*model': evaluate"
    ):
        render_model_card(folder, "user/slam", [tmp_path])


def test_the_evaluations_beside_the_model_are_found(folder):
    evaluate(folder, "sblimp", {"accuracy": 0.5886, "accuracy_interval": [0.57, 0.61]}, {})
    (folder / "evaluation" / "notes.json").write_text("not a summary")
    assert "| sBLIMP ↑ | 58.86 |" in render_model_card(folder, "user/slam").text
    assert "This model has not been evaluated." in render_model_card(folder, "user/slam", evaluations=[]).text
    file = folder / "evaluation" / "sblimp.json"
    other = json.loads(file.read_text())
    file.write_text(json.dumps(other | {"model": other["model"] | {"weights": "0" * 64}}))
    with pytest.raises(ValueError, match="sblimp.json' has results of other weights than those in '.*model'"):
        render_model_card(folder, "user/slam")


def test_code_beside_the_weights_does_not_make_them_others(folder):
    file = evaluate(folder, "sblimp", {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}, {})
    export_remote_code(folder)
    assert "| sBLIMP ↑ | 50.00 |" in render_model_card(folder, "user/slam", [file]).text


def test_nothing_private_is_on_a_card(folder, tmp_path, tiny_codec, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    tiny_codec.save_pretrained(tmp_path / "secret" / "my-codec")
    processor = SpeechLMProcessor.from_pretrained(folder)
    processor.audio_tokenizer = HubertUnitCodec.from_pretrained(tmp_path / "secret" / "my-codec")
    processor.save_pretrained(folder)
    sources = [Reference.to(folder.parent / "corpus"), Reference.to(folder)]
    save_run_records([RunRecord("pretraining", sources[1], [CorpusRecord(sources[0])])], folder)
    file = evaluate(folder, "tstorycloze", {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}, {})
    card = str(render_model_card(folder, "user/slam", [file]))
    assert "secret" not in card
    assert str(tmp_path) not in card
    assert "- `corpus` (local)" in card
    assert "It was initialised from `model` (local)." in card
    assert "come from the codec `my-codec` (local): pass the folder of that codec." in card
    assert 'codec="path/to/my-codec")' in card
    assert ModelCard(card).data.base_model is None
    assert ModelCard(card).data.datasets is None


def test_the_base_model_of_the_metadata_is_the_last_one_that_others_have():
    model = ModelDescription(
        "slam",
        "user/slam",
        "qwen2",
        10,
        50,
        records=[RunRecord("pretraining", Reference("org/text-lm")), ALIGNMENT],
    )
    metadata = make_metadata(model)
    assert (metadata.base_model, metadata.datasets) == ("org/text-lm", ["org/pairs"])
    assert (
        "It was initialised from [`org/text-lm`](https://huggingface.co/org/text-lm)." in make_model_card(model).text
    )


def test_the_card_of_a_model_of_text_and_speech_shows_both(interleaved_checkpoint, tmp_path):
    text_tokenizer = interleaved_checkpoint / "text-tokenizer"
    AutoModelForCausalLM.from_pretrained(interleaved_checkpoint).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer).save_pretrained(tmp_path)
    card = render_model_card(tmp_path, "user/sims").text
    assert "a causal language model over text and 40 discrete speech units. It has" in card
    assert 'speak({"text": "Once upon a time"}, output_modality="text", seed=0)' in card
    assert 'tokenizer.ids_outside("speech")' in card


def test_a_repository_has_a_valid_name(folder):
    with pytest.raises(ValueError, match="Repo id"):
        render_model_card(folder, 'x"); import os #')


@pytest.mark.parametrize("license", ["MIT", "mit\ntags: [x]", "<b>mit</b>", "{{ 1 }}"])
def test_a_licence_is_one_of_the_hub(folder, tiny_codec, tmp_path, license):
    tiny_codec.save_pretrained(tmp_path / "codec")
    for render, path in ((render_model_card, folder), (render_codec_card, tmp_path / "codec")):
        with pytest.raises(ValueError, match="is not a licence of the Hub"):
            render(path, "user/slam", license=license)
    with pytest.raises(ValueError, match="is not a licence of the Hub"):
        render_dataset_card(QUICKSTART_CORPUS, "user/corpus", license)


SNIPPETS = """
import os, re, subprocess, sys
from huggingface_hub import HfApi
from slam_hf import HubertUnitCodec, HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.model_card import render_model_card
from slam_hf.hub.remote_code import export_remote_code

api = HfApi()
os.chdir({folder!r})
export_remote_code("codec")
cards = [render_codec_card("codec", "user/codec", license="mit")]
api.create_repo("user/codec")
api.upload_folder(repo_id="user/codec", folder_path="codec")

processor = SpeechLMProcessor.from_pretrained("model")
processor.audio_tokenizer = HubertUnitCodec.from_pretrained("user/codec")
processor.save_pretrained("model")
export_remote_code("model")
cards.append(render_model_card("model", "user/model", license="mit"))
api.create_repo("user/model")
api.upload_folder(repo_id="user/model", folder_path="model")
assert processor.audio_tokenizer.config._commit_hash[:7] in cards[1].text

counts = []
for card in cards:
    card.validate()
    blocks = re.findall(r"```python\\n(.*?)```", card.text, flags=re.DOTALL)
    ours, remote = [b for b in blocks if "slam_hf" in b], [b for b in blocks if "trust_remote_code" in b]
    assert len(ours) + len(remote) == len(blocks)
    checks = "assert result['audio'].size and len(result['units'])\\nassert len(units)\\n" if card is cards[1] else ""
    check = "\\nassert speech.isfinite().all() and len(units) == len(durations)\\n" if card is cards[0] else ""
    for blocked, code in (("", ours), ("import sys; sys.modules['slam_hf'] = None\\n", remote)):
        script = blocked + "\\n".join(code) + check + checks
        subprocess.run([sys.executable, "-c", script], check=True)
    counts.append((len(ours), len(remote)))
print("ran", counts)
"""


@pytest.mark.slow
def test_every_snippet_runs_with_and_without_the_package(folder, tmp_path, tiny_codec, recordings):
    folder.rename(tmp_path / "model")
    tiny_codec.save_pretrained(tmp_path / "codec")
    (tmp_path / "recording.flac").write_bytes(recordings[0].read_bytes())
    output = run_with_hub(SNIPPETS.format(folder=str(tmp_path)), tmp_path / "cache", timeout=580)
    assert output.splitlines()[-1] == "ran [(1, 1), (2, 2)]"


def test_a_text_lm_is_named_without_its_path(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"twist_init": True, "base_model_name": "/home/user/text-lm"}
    (folder / "config.json").write_text(json.dumps(config))
    card = render_model_card(folder, "user/slam")
    assert "It was initialised from the text language model `text-lm` (local) (TWIST initialisation)." in card.text
    assert "hassid2023textually" in card.text


def test_a_codec_has_no_card_of_a_model(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    with pytest.raises(ValueError, match="codec' holds a model of type 'hubert_unit_codec', and not a speech"):
        render_model_card(tmp_path / "codec", "me/codec")
