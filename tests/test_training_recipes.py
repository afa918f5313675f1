"""Every value of the recipes that a paper gives, against the paper."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainingArguments
from trl import DPOConfig, ModelConfig, TrlParser

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.training.arguments import CorpusConfig, PretrainArguments
from slam_hf.training.budget import HORIZON, set_budget
from slam_hf.training.preferences import AlignArguments


RECIPES = Path(__file__).parent.parent / "hub_scripts" / "recipes"
ON_CPU = ["--use_cpu", "True"]


def read(name: str, *arguments: str) -> dict:
    """The arguments that a recipe gives the script, all in one."""
    dataclasses = (
        (AlignArguments, DPOConfig, ModelConfig)
        if name == "slam-dpo"
        else (PretrainArguments, TrainingArguments, ModelConfig)
    )
    parsed = TrlParser(dataclasses).parse_args_and_config(
        ["--config", str(RECIPES / f"{name}.yaml"), *ON_CPU, *arguments]
    )
    return {key: value for group in parsed for key, value in vars(group).items()}


def check(name: str, expected: dict) -> None:
    recipe = read(name)
    assert {key: recipe[key] for key in expected} == expected


SLAM = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B",
    "base_config": None,
    "num_units": 500,
    "rope_theta": 10_000,
    "context_length": 1024,
    "learning_rate": 1e-3,
    "warmup_steps": 0.01,
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr": 5e-5},
    "max_grad_norm": 0.5,
    "bf16": True,
    "datasets": [
        CorpusConfig("corpora/libri-light"),
        CorpusConfig("corpora/librispeech"),
        CorpusConfig("corpora/stinystories"),
    ],
}


def test_slam_is_the_papers_table():
    check("slam", {**SLAM, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 16, "max_steps": 17_625})
    assert read("slam")["optim"].startswith("adamw_torch")


def test_slam_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = SpeechLMForCausalLM(SpeechLMConfig())  # of Qwen2.5-0.5B
    assert model.num_parameters() == 358_347_904


def test_slam_scaled_is_the_papers_table():
    check("slam_scaled", {**SLAM, "max_train_tokens": 16_700_000_000})
    recipe = read("slam_scaled")
    assert recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * 2 == 128


def test_slam_dpo_is_the_papers_table():
    expected = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 16,
        "learning_rate": 5e-5,
        "lr_scheduler_type": "inverse_sqrt",
        "beta": 0.1,
        "max_grad_norm": 0.5,
        "bf16": True,
        "max_steps": 813,
        "max_auto_bleu": 0.3,
        "precompute_ref_log_probs": True,
    }
    check("slam-dpo", expected)
    assert read("slam-dpo")["optim"].startswith("adamw_torch")


def test_twist_trains_opt_on_the_papers_tokens():
    expected = {
        "model_name_or_path": "facebook/opt-350m",
        "num_units": 500,
        "max_train_tokens": 10_800_000_000,
        # OPT-350M's own settings
        "learning_rate": 3e-4,
        "lr_scheduler_kwargs": {"lr_end": 3e-5, "power": 1.0},
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
    }
    check("twist-350m", expected)
    recipe = read("twist-350m")
    assert (
        8 * recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * recipe["context_length"]
        == 2**19
    )


def test_gslm_is_the_authors_command():
    base_config = {
        "hidden_size": 1024,
        "ffn_dim": 4096,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "tie_word_embeddings": True,
        "max_position_embeddings": 3072,
    }
    recipe = read("gslm")
    assert {key: recipe["base_config"][key] for key in base_config} == base_config
    expected = {
        "context_length": 3072,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "inverse_sqrt",
        "warmup_steps": 4000,
        "max_steps": 500_000,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": 100_501,
    }
    assert {key: recipe[key] for key in expected} == expected
    tokens = 8 * recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] * 3072
    assert tokens == pytest.approx(8 * 16 * 4096, rel=0.02)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_says_how_to_run_it_and_where_it_writes(path):
    text = path.read_text()
    assert "accelerate launch" in text.split("output_dir:")[0]
    assert f"--config hub_scripts/recipes/{path.name}" in text
    assert yaml.safe_load(text)["output_dir"] == f"outputs/{path.stem}"


def test_a_command_line_overrides_a_recipe():
    assert read("slam", "--max_steps", "5", "--datasets", "a", "b")["datasets"] == [
        CorpusConfig("a"),
        CorpusConfig("b"),
    ]
    recipe = read("quickstart", "--base_config", "null", "--model_name_or_path", "x")
    assert (recipe["base_config"], recipe["model_name_or_path"]) == (None, "x")


def test_a_budget_replaces_the_steps_of_a_recipe():
    parser = TrlParser((PretrainArguments, TrainingArguments, ModelConfig))
    command = ["--config", str(RECIPES / "slam.yaml"), *ON_CPU, "--max_steps", "-1", "--max_train_hours", "24"]
    args, training_args, _ = parser.parse_args_and_config(command)
    (budget,) = set_budget(args, training_args)
    assert (budget.seconds, training_args.max_steps) == (86_400, HORIZON)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([{"path": "a", "weight": 1.0}, {"path": "b"}], "Either every corpus of `datasets` has a `weight`, or none"),
        ([{"path": "a", "weight": 0.0}], "must be positive"),
    ],
)
def test_contradicting_weights_are_refused(datasets, message):
    with pytest.raises(ValueError, match=message):
        PretrainArguments(datasets=datasets)
