"""What comes with the package is what its cards and the recipes say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, GenerationConfig

from slam_hf import HubertUnitTokenizer
from slam_hf.encoding.codec_identity import describe_codec
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.benchmark_folder import read_benchmark
from slam_hf.evaluation.pairs import evaluate_pairs
from slam_hf.evaluation.units import join_units
from slam_hf.fingerprints import describe_model, hash_rows
from slam_hf.processing_speech_lm import load_codec
from slam_hf.public_names import public_name
from slam_hf.quickstart import QUICKSTART, QUICKSTART_CORPUS, resolve_path
from slam_hf.run_record import count_training_tokens, read_run_records
from slam_hf.training.documents import DocumentEncoder, encode_documents
from slam_hf.training.packing import pack_documents


RECIPES = Path(__file__).parent.parent / "hub_scripts" / "recipes"


def test_only_names_with_the_prefix_are_of_the_package():
    assert resolve_path("corpora/librispeech") == "corpora/librispeech"
    assert resolve_path("quickstart:corpus") == str(QUICKSTART_CORPUS)


def test_what_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match="'quickstart:corpse': slam-hf brings no such data with it"):
        resolve_path("quickstart:corpse")


def test_the_corpus_has_the_schema_of_tokenised_corpora(tmp_path):
    corpus = load_dataset(str(QUICKSTART_CORPUS), cache_dir=tmp_path)
    assert set(corpus) == {"train", "validation"}
    for split in corpus.values():
        for row in split.take(50):
            assert len(row["units"]) == len(row["durations"]) and sum(row["durations"]) == row["num_frames"]
            assert all(unit != other for unit, other in zip(row["units"], row["units"][1:], strict=False))


def test_words_of_the_corpus_join_to_its_texts_and_have_times_in_its_audio(tmp_path):
    corpus = load_dataset(str(QUICKSTART_CORPUS), cache_dir=tmp_path)
    for split in corpus.values():
        for row in split.take(50):
            assert "".join(word["word"] for word in row["aligned_text"]) == row["text"]
            times = [time for word in row["aligned_text"] for time in (word["start_time"], word["end_time"])]
            assert times == sorted(times) and times[-1] <= row["num_frames"] * 0.04


def test_the_recipe_trains_on_whole_stories(tmp_path):
    recipe = yaml.safe_load((RECIPES / "quickstart.yaml").read_text())
    stories = load_dataset(str(QUICKSTART_CORPUS), "stories", split="validation", cache_dir=tmp_path)
    sequences = pack_documents(
        encode_documents(stories, DocumentEncoder(HubertUnitTokenizer(num_units=recipe["num_units"]))),
        recipe["context_length"],
    )
    pieces = sum(map(len, sequences["seq_lengths"]))
    assert len(stories) <= pieces < 1.25 * len(stories)


@pytest.mark.parametrize("part", ["corpus", "preferences"])
def test_cards_name_the_codec_that_is_there(part):
    card = DatasetCard.load(QUICKSTART / part / "README.md")
    described = describe_codec(load_codec("quickstart:codec"))
    assert (card.data.codec, card.data.codec_sha256) == ("quickstart:codec", described.weights)


@pytest.mark.parametrize(
    ("task", "sha256"),
    [
        ("sstorycloze", "ef5f5975c4b9a9512e4a15a844a70021839a204101e6aae02dd6fa62822394a2"),
        ("tstorycloze", "701707fb346b1be3f52dbe98a51416030119ed51ddc945b247d562be92936fe6"),
    ],
)
def test_the_joined_parts_of_stories_are_the_stories_that_models_were_scored_on_before(task, sha256):
    folder = read_benchmark(f"{task}_t2t", resolve_path(f"quickstart:benchmarks/{task}"))
    units, texts = folder.utterances.units, folder.texts
    stories = [
        [name, join_units(units[pair.prompt], units[name])[0].tolist()] for pair in folder.pairs for name in pair.sides
    ]
    assert hash_rows(stories) == sha256
    assert all(texts[name].endswith(".") for pair in folder.pairs for name in pair.names)
    assert folder.texts["1_mutual"].startswith("Early in the morning, Victor saw a locked red chest")


def test_no_file_is_larger_than_ten_megabytes():
    assert max(path.stat().st_size for path in QUICKSTART.rglob("*")) < 10_000_000


def test_paths_in_the_package_have_the_name_that_finds_them(tmp_path):
    assert public_name(resolve_path("quickstart:benchmarks/sblimp")) == "quickstart:benchmarks/sblimp"
    assert public_name(tmp_path) == tmp_path.name


NO_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.getaddrinfo = socket.socket.connect = refuse
"""

CONTINUE = """
from transformers import pipeline
import slam_hf, slam_hf.quickstart

speak = pipeline("audio-to-audio", model="quickstart:model")
prompt = slam_hf.quickstart.resolve_path("quickstart:prompt.flac")
result = speak(prompt, prompt_duration=3.0, do_sample=False, max_new_tokens=24)
print(*result["units"].tolist(), len(result["audio"]))
"""


def test_the_model_continues_the_recording_without_a_network():
    code, environment = NO_NETWORK + CONTINUE, {**os.environ, "HF_HUB_OFFLINE": "0"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    *units, length = map(int, shown.stdout.split())
    assert units[:12] == [105, 27, 491, 166, 388, 393, 220, 219, 182, 287, 216, 278]
    assert units[12:] == [225, 60, 318, 405, 382, 12, 124, 168, 334, 56, 378, 378]
    assert length == 59_520


@pytest.mark.parametrize(
    ("auto_class", "loaded"),
    [
        (AutoConfig, "SpeechLMConfig"),
        (AutoModel, "SpeechLMForCausalLM"),
        (AutoModelForCausalLM, "SpeechLMForCausalLM"),
        (AutoProcessor, "SpeechLMProcessor"),
        (AutoTokenizer, "HubertUnitTokenizer"),
        (GenerationConfig, "GenerationConfig"),
    ],
)
def test_the_model_has_a_name_that_every_auto_class_knows(auto_class, loaded):
    assert type(auto_class.from_pretrained("quickstart:model")).__name__ == loaded
    with pytest.raises(FileNotFoundError, match="slam-hf brings no such data with it, but benchmarks, codec"):
        auto_class.from_pretrained("quickstart:modle")


def test_the_model_loads_in_float32_and_has_the_codec_of_the_package():
    model = AutoModelForCausalLM.from_pretrained("quickstart:model")
    assert (model.dtype, model.name_or_path) == (torch.float32, "quickstart:model")
    assert describe_model(model) == {
        "name": "quickstart:model",
        "revision": None,
        "weights": "facdeffe3e6a598a688bfa1fd504bb700beb49a38324114d06b1bc761dbce77c",
    }
    assert AutoProcessor.from_pretrained("quickstart:model").audio_tokenizer.name_or_path == "quickstart:codec"
    assert count_training_tokens(read_run_records("quickstart:model")) == 2_953_683


def test_the_scores_on_the_models_card_are_those_of_its_weights(tmp_path):
    model = AutoModelForCausalLM.from_pretrained("quickstart:model").eval()
    args = EvaluationArguments("quickstart:model", "sblimp", "quickstart:benchmarks/sblimp", str(tmp_path))
    evaluation = evaluate_pairs(args, model)
    scores = {result.dataset_name: result.metric_value for result in card().data.eval_results}
    assert round(100 * evaluation.results["accuracy"], 2) == scores["sBLIMP in miniature"] == 56.07


def test_the_models_card_names_its_corpus_and_the_licences():
    assert card().data.license == "mit"
    assert "](../corpus/README.md)" in card().text and "Apache-2.0" in card().text and "WordNet" in card().text


def card() -> ModelCard:
    return ModelCard.load(QUICKSTART / "model" / "README.md")
