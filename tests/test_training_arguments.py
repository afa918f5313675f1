"""What recipes and arguments may say; and every value of the recipes that a paper gives, against the paper."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainingArguments
from trl import DPOConfig

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.recipe_parser import RecipeParser
from slam_hf.training.arguments import CorpusConfig, ModelArguments, PretrainArguments
from slam_hf.training.budget import HORIZON, set_budget
from slam_hf.training.preferences import AlignArguments


RECIPES = Path(__file__).parent.parent / "hub_scripts" / "recipes"
ON_CPU = ["--use_cpu", "True"]
BASE = '{"hidden_size": 8}'


def read(name: str, *arguments: str) -> dict:
    """The arguments that a recipe gives the script, all in one."""
    dataclasses = (
        (AlignArguments, DPOConfig, ModelArguments)
        if name == "slam-dpo"
        else (PretrainArguments, TrainingArguments, ModelArguments)
    )
    parsed = RecipeParser(dataclasses).parse_args_and_config(
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


def test_sims_is_the_papers_recipe():
    expected = {
        "num_units": 500,
        "interleaving": "poisson",
        "interleaving_span": 10,
        "interleaving_share": 0.3,
        "context_length": 2048,
        "packing": True,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 5e-5},
        "warmup_steps": 0.01,
        "max_grad_norm": 0.5,
        "bf16": True,
    }
    check("sims", expected)
    corpora = {corpus.modality: corpus.weight for corpus in read("sims")["datasets"]}
    assert corpora == {"text": 0.202, "interleaved": 0.543, "speech": 0.254}


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": [{"path": ".", "modality": "both"}]}, "can be speech, text, interleaved, got 'both' for '.'"),
        ({"interleaving": "uniform"}, "`interleaving` can be poisson, span, random, got 'uniform'"),
        ({"interleaving_span": 0.5}, "`interleaving_span` must be at least 1"),
        ({"interleaving": "span", "interleaving_span": 2.5}, "a whole number for `interleaving: span`, got 2.5"),
        ({"interleaving_share": 0.0}, "`interleaving_share` must be above 0 and at most 1, got 0.0"),
        (
            {"base_config": {"hidden_size": 8}, "datasets": [{"path": ".", "modality": "text"}]},
            "A corpus of `datasets` has text: name the `text_tokenizer` of the new model",
        ),
    ],
)
def test_wrong_modalities_and_interleavings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainArguments(**options)


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


def test_a_recipe_for_fine_tuning_starts_from_a_published_speech_lm():
    expected = {
        "model_name_or_path": "slprl/slam_scaled",
        "datasets": [CorpusConfig("corpora/mine")],
        "validation_documents": None,
        "use_peft": False,
        "num_train_epochs": 3,
        "learning_rate": 1e-4,
    }
    check("finetune", expected)
    lora = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear", "learning_rate": 2e-4}
    check("finetune-lora", {**expected, **lora})
    for name in ("finetune", "finetune-lora"):
        recipe = read(name)
        assert recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] == 32


@pytest.mark.parametrize(
    ("recipe", "command", "expected"),
    [
        ("quickstart", ["--model_name_or_path", "x"], {"base_config": None, "model_name_or_path": "x"}),
        ("quickstart-interleaved", ["--model_name_or_path", "x"], {"base_config": None, "text_tokenizer": None}),
        ("slam", ["--base_config", BASE], {"base_config": {"hidden_size": 8}, "model_name_or_path": None}),
        ("slam", ["--base-config=" + BASE], {"model_name_or_path": None, "rope_theta": None}),
        ("slam", ["--max_train_hours", "24"], {"max_steps": -1, "max_train_hours": 24}),
        ("slam_scaled", ["--max_steps", "9"], {"max_steps": 9, "max_train_tokens": None}),
        ("slam", ["--num_train_epochs", "2"], {"max_steps": -1, "num_train_epochs": 2}),
        ("slam", ["--validation_split", "dev"], {"validation_documents": None, "validation_split": "dev"}),
        ("slam", ["--model_name_or_path", "x"], {"model_name_or_path": "x", "rope_theta": 10_000}),
        ("slam", ["--rope_theta", "-1"], {"rope_theta": None}),
    ],
)
def test_the_command_line_replaces_an_alternative_in_the_recipe(recipe, command, expected):
    arguments = read(recipe, *command)
    assert {key: arguments[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("contxt_length: 5", "The recipe has an unknown key 'contxt_length'. Did you mean 'context_length'"),
        ("learning-rate: 5", "unknown key 'learning-rate'. Did you mean 'learning_rate'"),
        (
            "datasets: [{path: a, wieght: 1}]",
            "A corpus of `datasets` has an unknown key 'wieght'. Did you mean 'weight'",
        ),
        ("datasets: [{name: a}]", "A corpus of `datasets` has no `path`"),
        ("datasets: [5]", "must be a path or a mapping with a `path`, got 5"),
        ("datasets: []", "Name at least one corpus in `datasets`"),
        ("datasets: [{path: a, weight: heavy}]", "must be positive, got heavy for 'a'"),
        ("datasets: [{path: a, weight: .nan}]", "must be positive, got nan for 'a'"),
        (
            "base_config: {hiden_size: 256}",
            "`base_config` has an unknown key 'hiden_size'. Did you mean 'hidden_size'",
        ),
        ("base_config: {model_type: gpt2, n_layers: 2}", "unknown key 'n_layers'. Did you mean 'n_layer'"),
        (
            "base_config: {model_type: qwen22}",
            "`base_config` has an unknown model type 'qwen22'. Did you mean 'qwen2'",
        ),
        ("base_config: {rms_norm_eps: 1e-6}", "`base_config` is not a configuration of qwen2: .*rms_norm_eps"),
        ("base_config: [1]", "`base_config` must be a mapping"),
        ("{base_config: {}, rope_theta: 5}", "`rope_theta` is for a text LM"),
        ("validation_documents: 0", "`validation_documents` must be a whole number and at least 1, got 0"),
        ("validation_documents: -3", "`validation_documents` must be a whole number and at least 1, got -3"),
        ("context_length: 1", "`context_length` must be a whole number and at least 2, got 1"),
        ("num_units: 500.5", "`num_units` must be a whole number and at least 1, got 500.5"),
        ("sample_steps: 0.5", "`sample_steps` must be a whole number and at least 1, got 0.5"),
        ("sample_steps: true", "`sample_steps` must be a whole number and at least 1, got True"),
        ("batch_size: true", "`batch_size` must be a whole number and at least 1, got True"),
        ("num_units: 1000000000", "`num_units` must be at most 65,534"),
        ("asr_model: x", "name the `prompt`"),
        ("load_in_4bit: true", "`load_in_4bit` and `load_in_8bit` are not supported"),
        ("load_in_8bit: true", "`load_in_4bit` and `load_in_8bit` are not supported"),
        ("bnb_4bit_quant_type: fp4", "`bnb_4bit_quant_type` has no effect"),
        ("use_bnb_nested_quant: true", "`use_bnb_nested_quant` has no effect"),
        ("lora_r: 4", "`lora_r` has no effect without `use_peft`"),
        ("lora_target_modules: [q_proj]", "`lora_target_modules` has no effect without `use_peft`"),
        ("use_dora: true", "`use_dora` has no effect without `use_peft`"),
        ("lora_task_type: SEQ_CLS", "`lora_task_type` must be CAUSAL_LM"),
        ("model_revision: v1", "`model_revision` has no effect without `model_name_or_path`"),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(tmp_path, recipe, message):
    (tmp_path / "recipe.yaml").write_text(recipe)
    parser = RecipeParser((PretrainArguments, TrainingArguments, ModelArguments))
    with pytest.raises(ValueError, match=message):
        parser.parse_args_and_config(["--config", str(tmp_path / "recipe.yaml"), *ON_CPU])


@pytest.mark.parametrize("datasets", ["corpora/big", "[corpora/big]", "{path: corpora/big}", "[{path: corpora/big}]"])
def test_a_recipe_names_a_corpus_by_its_path(tmp_path, datasets):
    (tmp_path / "recipe.yaml").write_text(f"datasets: {datasets}")
    parser = RecipeParser((PretrainArguments, TrainingArguments, ModelArguments))
    (args, *_) = parser.parse_args_and_config(["--config", str(tmp_path / "recipe.yaml"), *ON_CPU])
    assert args.datasets == [CorpusConfig("corpora/big")]


def test_a_corpus_that_is_neither_here_nor_on_the_hub_is_refused():
    for path in ("./nope", "a/b/c", "/nope", "../corpora/nope"):
        with pytest.raises(FileNotFoundError, match=f"The corpus '{path}' does not exist"):
            PretrainArguments(datasets=path)
    assert [CorpusConfig(path).path for path in ("user/corpus", "parquet", "hf://datasets/a/b/c")]


def test_a_recipe_may_give_what_transformers_moves_or_renames():
    base_config = {"model_type": "gpt2", "hidden_size": 8, "num_attention_heads": 2, "torch_dtype": "float32"}
    assert PretrainArguments(base_config=base_config).base_config == base_config
    PretrainArguments(base_config={"model_type": "llama", "rope_theta": 10_000.0, "rope_scaling": None})
    PretrainArguments(base_config=SpeechLMConfig().base_config.to_dict())


def test_a_budget_replaces_the_steps_of_a_recipe():
    parser = RecipeParser((PretrainArguments, TrainingArguments, ModelArguments))
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
