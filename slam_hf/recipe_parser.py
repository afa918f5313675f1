"""Reads recipes: YAML files with the arguments of a script."""

import sys
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import yaml
from trl import TrlParser


ALTERNATIVES = (
    ("base_config", "model_name_or_path"),
    ("max_steps", "num_train_epochs", "max_train_tokens", "max_train_hours"),
    ("validation_split", "validation_documents"),
    ("batch_size", "gradient_accumulation_steps"),
    ("vocoder_config", "init_from"),
)
"""Arguments that exclude each other. One on the command line replaces those of its group in the recipe."""


class RecipeParser(TrlParser):
    """TRL's parser, but it refuses unknown keys in a recipe, and an argument on the command line also replaces its
    alternatives in the recipe: `--model_name_or_path` replaces `base_config`."""

    _given: frozenset[str] = frozenset()

    def parse_args_and_config(self, args: Iterable[str] | None = None, **options: bool) -> tuple:
        args = sys.argv[1:] if args is None else list(args)
        args = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
        names = (arg.partition("=")[0].strip("-").replace("-", "_") for arg in args if arg.startswith("--"))
        self._given = frozenset(names)
        try:
            return super().parse_args_and_config(args, **options)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            recipe = args[args.index("--config") + 1]
            raise ValueError(f"The recipe '{recipe}' is not YAML: {' '.join(str(error).split())}.") from error

    def set_defaults_with_config(self, **recipe: Any) -> list[str]:
        known = {argument.name for group in self.dataclass_types for argument in fields(group)}
        check_keys(recipe, known, "The recipe")
        replaced = {name for group in ALTERNATIVES if self._given & set(group) for name in group}
        if "base_config" in self._given:
            replaced |= {"model_revision", "rope_theta"}  # of another model
        if "model_name_or_path" in self._given:
            replaced.add("text_tokenizer")
        return super().set_defaults_with_config(**{k: v for k, v in recipe.items() if k not in replaced})


def check_keys(keys: Iterable[str], known: Iterable[str], where: str, kind: str = "key") -> None:
    """Raise a `ValueError` that names the first key that is not known, and the known one that is most like it."""
    for key in keys:
        if key not in known:
            (nearest,) = get_close_matches(str(key), known, n=1, cutoff=0)
            raise ValueError(f"{where} has an unknown {kind} '{key}'. Did you mean '{nearest}'?")
