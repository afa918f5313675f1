"""The exported text LM, loaded by transformers alone, and by vLLM where there is one."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_causal_lms import tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.conversion.text_lm import save_text_lm


BASES = {
    "qwen2": {"tie_word_embeddings": True},  # its query, key and value have biases
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    "qwen2 with a sliding window": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "opt": {},
    "gpt_neox": {},
}
SERVED = {
    name: {**overrides, "hidden_size": 128, "num_attention_heads": 4, "head_dim": 32}
    for name, overrides in BASES.items()
    if name in ("qwen2", "llama", "qwen2 with a sliding window", "opt")
}
PROMPTS = [[7, 3, 49], [5, 9, 0, 11, 28, 16, 2, 1, 44], [30]]

GENERATE = """
import json, sys
from vllm import LLM, SamplingParams
folder, prompts, texts = json.load(sys.stdin)
lm = LLM(folder, dtype="float32", gpu_memory_utilization=0.1, max_model_len=128, enforce_eager=True)
greedy = SamplingParams(temperature=0, max_tokens=24)
outputs = [lm.generate([{"prompt_token_ids": ids} for ids in prompts], greedy), lm.generate(texts, greedy)]
results = [[(list(output.outputs[0].token_ids), output.outputs[0].text) for output in group] for group in outputs]
print("RESULTS", json.dumps(results))
"""


def build(name: str, overrides: dict, num_units: int = 50, vocab_size: int = 52) -> SpeechLMForCausalLM:
    base_config = tiny_config(name.split()[0]).to_dict() | overrides
    torch.manual_seed(0)
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config, num_units=num_units, vocab_size=vocab_size))
    for weight_name, weight in model.named_parameters():
        if weight_name.endswith("bias"):  # they start at zero
            torch.nn.init.normal_(weight, std=0.5)
    return model.eval()


def continue_prompts(model: SpeechLMForCausalLM, prompts: list[list[int]], count: int) -> list[list[int]]:
    options = {"max_new_tokens": count, "do_sample": False}
    return [model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist() for ids in prompts]


@pytest.mark.parametrize("name", BASES)
def test_transformers_loads_the_export_as_a_text_lm(name, tmp_path):
    model, tokenizer = build(name, BASES[name]), HubertUnitTokenizer(50)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").is_file()
    save_text_lm(SpeechLMForCausalLM.from_pretrained(tmp_path / "model"), tokenizer, tmp_path / "text")

    text_lm = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert type(text_lm) is type(model.lm)
    assert text_lm.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert text_lm.generation_config.eos_token_id == 1
    assert text_lm.generation_config.pad_token_id == 0
    ids = torch.randint(2, 52, (2, 24))
    with torch.no_grad():
        assert torch.equal(text_lm(ids).logits, model(ids).logits)

    plain = AutoTokenizer.from_pretrained(tmp_path / "text")
    assert type(plain).__module__.startswith("transformers.")
    assert plain("<Un7><Un3>")["input_ids"] == [1, 9, 5]
    assert plain.decode([1, 9, 5, 1], skip_special_tokens=True) == "<Un7><Un3>"
    assert plain.pad_token_id == 0


def test_files_of_the_export_name_nothing_of_this_package(tmp_path):
    save_text_lm(build("qwen2", {}), HubertUnitTokenizer(50), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("qwen2", ["Qwen2ForCausalLM"])
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not any("auto_map" in path.read_text() for path in tmp_path.glob("*.json"))


@pytest.mark.parametrize("tie", [False, True])
def test_padding_of_the_vocabulary_is_cut_off(tie, tmp_path):
    model = build("llama", {"tie_word_embeddings": tie}, num_units=38, vocab_size=64)
    ids = torch.randint(2, 40, (2, 16))
    with torch.no_grad():
        expected = model(ids).logits[..., :40]
    prompts = [[1, 5, 9], [1, 20]]
    tokens = continue_prompts(model, prompts, 20)
    save_text_lm(model, HubertUnitTokenizer(38), tmp_path)
    text_lm = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert text_lm.config.vocab_size == 40
    assert text_lm.generation_config.suppress_tokens is None
    with torch.no_grad():
        torch.testing.assert_close(text_lm(ids).logits, expected)
    assert continue_prompts(text_lm, prompts, 20) == tokens


def test_sequences_without_a_first_boundary_stay_without_one(tmp_path):
    save_text_lm(build("opt", {}), HubertUnitTokenizer(50, add_bos_token=False), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("<Un7><Un3>")["input_ids"] == [9, 5]


@pytest.mark.slow
@pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="VLLM_PYTHON names no Python with vLLM")
@pytest.mark.parametrize("name", SERVED)
def test_vllm_generates_the_same_greedy_tokens(name, tmp_path):
    model, tokenizer = build(name, SERVED[name]), HubertUnitTokenizer(50)
    ids = [tokenizer.encode_units(units)["input_ids"] for units in PROMPTS]
    texts = ["".join(f"<Un{unit}>" for unit in units) for units in PROMPTS]
    expected = continue_prompts(model, ids, 24)
    save_text_lm(model, tokenizer, tmp_path)
    results = generate_with_vllm(tmp_path, ids, texts)
    for tokens, _ in results:
        assert tokens == expected
    decoded = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
    assert [text for _, texts in results for text in texts] == [*decoded, *decoded]


def generate_with_vllm(
    folder: Path, ids: list[list[int]], texts: list[str]
) -> list[tuple[list[list[int]], list[str]]]:
    """Greedy tokens and their text, of prompts as ids and of prompts as text."""
    finished = subprocess.run(
        [os.environ["VLLM_PYTHON"], "-c", GENERATE],
        input=json.dumps([str(folder), ids, texts]),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
        check=True,
    )
    line = next(line for line in finished.stdout.splitlines() if line.startswith("RESULTS "))
    return [tuple(map(list, zip(*group, strict=True))) for group in json.loads(line.removeprefix("RESULTS "))]
