"""Makes the runs with the scripts that users call. Each leaves a model and its scores in a folder."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from transformers import AutoConfig
from transformers.hf_argparser import HfArg

from slam_hf.training.arguments import ModelArguments, PretrainArguments
from slam_hf.training.initialization import initial_model
from slam_hf.training.throughput import flops_per_token
from slam_hf.unit_vocabulary import NUM_SPECIAL_TOKENS


SCRIPTS = Path(__file__).parents[1]


def read_recipe(name: str) -> dict[str, Any]:
    """The values of a recipe."""
    return yaml.safe_load((SCRIPTS / "recipes" / name).read_text("utf-8"))


BENCHMARKS: dict[str, str] = read_recipe("quickstart.yaml")["benchmarks"]
"""The data that every run is scored on, by task."""

TEXT_LM_SIZE = {
    "context_length": 512,
    "per_device_train_batch_size": 1,
    "learning_rate": 5.0e-4,
    "bf16": True,
    "eval_strategy": "no",
}
"""Changes to the quickstart recipe for a model of the size of a text LM: many steps in a short time, a learning rate
for trained weights, and no evaluation during training."""


@dataclass
class RunArguments:
    """Options of the runs that are compared."""

    _argument_group_name = "compared runs"

    minutes: float = HfArg(default=3.0, help="Training time of each run.")
    text_lm: str | None = HfArg(
        default=None, help="Small text LM for TWIST initialisation (`twist`): a Hub id or a folder."
    )
    text_lm_minutes: float = HfArg(default=10, help="Training time of each run with its architecture.")
    flops: float = HfArg(default=3e13, help="Training compute of each run of `interleaving`. Default: 3e13.")
    asr_model: str | None = HfArg(default=None, help="Speech recogniser of `own_preferences`: a Hub id or a folder.")
    judge_model: str | None = HfArg(
        default=None, help="Text LM that judges in `own_preferences`: a Hub id or a folder."
    )
    judge_start_token: str | None = HfArg(
        default=None, help="Token that the training texts of the judge begin with. Default: its bos_token."
    )
    num_prompts: int = HfArg(
        default=64, help="Number of prompts in `own_preferences` for pairs, and as many others for scores."
    )

    def __post_init__(self):
        check_positive(self, "minutes", "text_lm_minutes", "flops", "num_prompts")


def check_positive(args: Any, *names: str) -> None:
    """Raise a `ValueError` that names the first argument, a number or several, that is not positive."""
    for name in names:
        value = getattr(args, name)
        if value is not None and np.min(value) <= 0:
            raise ValueError(f"--{name} must be positive, got {np.min(value)}.")


@dataclass(frozen=True)
class Pretraining:
    r"""
    A run of `pretrain.py` with a quickstart recipe.

    Args:
        recipe (`str`, *optional*, defaults to `"quickstart.yaml"`):
            The recipe.
        equal_compute (`bool`, *optional*, defaults to `False`):
            Whether compute limits the run, in place of time: a smaller model then sees more tokens.
        steps (`int`, *optional*):
            Training steps, in place of time: those of one model and one batch shape take the same time.
        datasets (`list[dict]`, *optional*):
            Corpora in place of those of the recipe.
        packing (`bool`, *optional*, defaults to `True`):
            Whether to pack several documents into one sequence.
        cut_documents (`bool`, *optional*, defaults to `True`):
            Whether to cut documents to fill sequences.
        twist (`bool`, *optional*):
            `True` starts from the weights of the text LM, and `False` from random weights with its architecture.
            Defaults to the architecture of the recipe.
    """

    recipe: str = "quickstart.yaml"
    equal_compute: bool = False
    steps: int | None = None
    datasets: list[dict[str, str]] | None = None
    packing: bool = True
    cut_documents: bool = True
    twist: bool | None = None

    def settings(self, args: RunArguments) -> dict[str, Any]:
        """What limits the run, and the text LM if it needs one."""
        if self.equal_compute:
            return {"flops": args.flops}
        if self.steps is not None:
            return {"steps": self.steps}
        if self.twist is None:
            return {"minutes": args.minutes}
        return {"minutes": args.text_lm_minutes, "text_lm": args.text_lm}

    def make(self, folder: Path, seed: int, args: RunArguments) -> None:
        _launch("pretrain.py", self.recipe, folder, self.arguments(seed, args))

    def arguments(self, seed: int, args: RunArguments) -> dict[str, Any]:
        """Values that replace those of the recipe."""
        settings = self.settings(args)
        arguments: dict[str, Any] = {"seed": seed, "max_steps": self.steps or -1, "prompt": "", "sample_steps": -1}
        arguments |= {"packing": self.packing, "cut_documents": self.cut_documents}
        if self.equal_compute:
            arguments["max_train_tokens"] = round(args.flops / flops_per_token(count_parameters(self.recipe)))
        elif "minutes" in settings:
            arguments["max_train_hours"] = settings["minutes"] / 60
        if self.datasets is not None:
            arguments["datasets"] = self.datasets
        if self.twist:
            arguments |= TEXT_LM_SIZE | {"base_config": None, "model_name_or_path": args.text_lm}
        elif self.twist is False:
            arguments |= TEXT_LM_SIZE | {"base_config": AutoConfig.from_pretrained(args.text_lm).to_dict()}
        return arguments


def count_parameters(recipe: str, base_config: dict[str, Any] | None = None) -> int:
    """Number of parameters of a recipe's model, or of one with another architecture."""
    values = {name: read_recipe(recipe).get(name) for name in ("base_config", "text_tokenizer")}
    args = PretrainArguments(**values | ({} if base_config is None else {"base_config": base_config}))
    with torch.device("meta"):
        return initial_model(args, ModelArguments(), seed=0).num_parameters()


@dataclass(frozen=True)
class Sized:
    r"""
    A run of `pretrain.py` with the quickstart recipe and a model of another size, for a scaling law. All runs see the
    documents of the corpus in the same order, each as often as the others, and their learning-rate schedule ends with
    their tokens. They use a GPU, in bfloat16, where there is one.

    Args:
        width (`int`):
            Hidden size of the model, a multiple of 32.
        tokens (`int`):
            Number of tokens to train on, without padding.
    """

    width: int
    tokens: int
    recipe: ClassVar[str] = "quickstart.yaml"

    @property
    def base_config(self) -> dict[str, Any]:
        """`dict`: The architecture, with the shape of the quickstart's: a layer for each 128 of width, but at least
        two, and heads of size 32."""
        base = read_recipe(self.recipe)["base_config"]
        heads = self.width // 32
        return base | {
            "hidden_size": self.width,
            "intermediate_size": self.width * base["intermediate_size"] // base["hidden_size"],
            "num_hidden_layers": max(2, self.width // 128),
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
        }

    @cached_property
    def num_parameters(self) -> int:
        """`int`: Parameters with the embedding, which is the output layer too: each token is multiplied with it."""
        return count_parameters(self.recipe, self.base_config)

    @property
    def num_embedding_parameters(self) -> int:
        """`int`: Those of the embedding."""
        return (read_recipe(self.recipe)["num_units"] + NUM_SPECIAL_TOKENS) * self.width

    @property
    def learning_rate(self) -> float:
        """`float`: That of the quickstart, in inverse proportion to the width (arXiv 2203.03466). In short runs, twice
        this rate lowers the loss by 1.2 % both for a width of 32 and for one of 256, and half of it raises the loss by
        2 % and 6 %."""
        recipe = read_recipe(self.recipe)
        return recipe["learning_rate"] * recipe["base_config"]["hidden_size"] / self.width

    def settings(self, args: RunArguments | None) -> dict[str, Any]:
        """The size."""
        return asdict(self)

    def make(self, folder: Path, seed: int, args: RunArguments | None) -> None:
        _launch("pretrain.py", self.recipe, folder, self.arguments(seed))

    def arguments(self, seed: int) -> dict[str, Any]:
        """Values that replace those of the recipe."""
        recipe, has_gpu = read_recipe(self.recipe), torch.cuda.is_available()
        least = recipe["lr_scheduler_kwargs"]["min_lr"] / recipe["learning_rate"]
        return {
            "seed": seed,
            "base_config": self.base_config,
            "max_steps": -1,
            "max_train_tokens": self.tokens,
            "learning_rate": self.learning_rate,
            "lr_scheduler_kwargs": {"min_lr": least * self.learning_rate},
            "datasets": [{"path": corpus["path"], "name": corpus["name"]} for corpus in recipe["datasets"]],
            "use_cpu": not has_gpu,
            "bf16": has_gpu,
            "eval_strategy": "no",
            "eval_on_start": False,
        } | dict.fromkeys(("benchmarks", "prompt", "codec", "sample_steps"))


@dataclass(frozen=True)
class Alignment:
    r"""
    A run of `align_dpo.py` with the quickstart recipe.

    Args:
        start (`str`):
            Name of the run whose model of the same seed is aligned.
    """

    start: str

    def settings(self, args: RunArguments) -> dict[str, Any]:
        """What limits the run that it starts from."""
        return {"minutes": args.minutes}

    def make(self, folder: Path, seed: int, args: RunArguments) -> None:
        start = folder.with_name(f"{self.start}-{seed}")
        _launch("align_dpo.py", "quickstart-dpo.yaml", folder, {"seed": seed, "model_name_or_path": str(start)})
        for task, data in BENCHMARKS.items():
            _run("evaluate_model.py", {"model": folder, "task": task, "data": data})


HELD_OUT = "quickstart:corpus/stories/validation.parquet"
"""Stories whose beginnings continuations are scored on. Pairs are made from those of the training split."""

NUM_SAMPLES = 4
"""Continuations of a prompt, of which two become a pair."""

OWN_DPO = {"max_steps": 60, "eval_steps": 60, "dataset_test_split": "test", "learning_rate": 5.0e-5}
"""Changes to the recipe of the alignment for few pairs: each is seen about four times."""


@dataclass(frozen=True)
class Judged:
    r"""
    The model that comes with the package, scored on what it says too. With `aligns`, it is first aligned by
    `align_dpo.py` with pairs of its own continuations, which `make_preferences.py` makes.

    Args:
        aligns (`bool`):
            Whether to align it.
    """

    aligns: bool

    def settings(self, args: RunArguments) -> dict[str, Any]:
        """Who hears and judges continuations, and how many."""
        return {
            "asr_model": args.asr_model,
            "judge_model": args.judge_model,
            "start_token": args.judge_start_token,
            "num_prompts": args.num_prompts,
        }

    def make(self, folder: Path, seed: int, args: RunArguments) -> None:
        model, evaluation = "quickstart:model", folder / "evaluation"
        # Small batches: a recogniser that does not find an end keeps the others of its batch waiting.
        common = {"asr_model": args.asr_model, "num_prompts": args.num_prompts, "seed": seed, "batch_size": 8}
        if self.aligns:
            pairs = str(folder / "pairs")
            source = {"source": "quickstart:corpus", "layout": "units", "dataset_config": "stories"}
            judge = {"judge_model": args.judge_model, "judge_start_token": args.judge_start_token}
            sampling = {"model": model, "num_samples": NUM_SAMPLES, "output_dir": pairs}
            _run("make_preferences.py", source | judge | sampling | common)
            _launch("align_dpo.py", "quickstart-dpo.yaml", folder, OWN_DPO | {"seed": seed, "dataset_name": pairs})
            model = str(folder)
        scored = {"model": model, "output_dir": evaluation}
        _run("evaluate_model.py", scored | {"task": [*BENCHMARKS], "data": [*BENCHMARKS.values()]})
        text_lm = {"text_lm": args.judge_model, "start_token": args.judge_start_token}
        _run("evaluate_model.py", scored | {"task": ["genppl", "auto_bleu"], "data": HELD_OUT} | text_lm | common)


Run = Pretraining | Sized | Alignment | Judged


def complete_run(run: Run, folder: Path, seed: int, args: RunArguments | None = None) -> None:
    r"""
    Make a run, unless it was made before.

    Args:
        run (`Run`):
            The run.
        folder (`Path`):
            Where to save the model, with its scores in `evaluation/`.
        seed (`int`):
            Seed of weights and batches.
        args ([`RunArguments`], *optional*):
            The options, which a [`Sized`] run does without.

    Raises:
        ChildProcessError: a script failed.
        ValueError: the folder holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, content = folder / "done.json", json.dumps({"seed": seed} | run.settings(args)) + "\n"
    if not done.exists():
        run.make(folder, seed, args)
        done.write_text(content, "utf-8")
    elif done.read_text("utf-8") != content:
        raise ValueError(f"'{folder}' is of a run with other settings: choose another output folder.")


def _run(script: str, options: dict[str, Any]) -> None:
    arguments = []
    for name, value in options.items():
        if value is not None:
            arguments += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    _accelerate(script, *arguments)


def _launch(script: str, recipe: str, folder: Path, overrides: dict[str, Any]) -> None:
    """Run a script with a recipe, some values of which are replaced."""
    # What a killed run has left may be replaced.
    values = read_recipe(recipe) | overrides | {"output_dir": str(folder), "overwrite_output_dir": True}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}), "utf-8")
    _accelerate(script, "--config", str(path))


def _accelerate(script: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", str(SCRIPTS / script), *arguments]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        status = f"status {error.returncode}" if error.returncode > 0 else f"signal {-error.returncode}"
        raise ChildProcessError(f"{script} ended with {status}; what it printed above says why.") from error
