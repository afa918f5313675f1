"""Reads recipes: YAML files with the arguments of a script."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import yaml
from trl import TrlParser

from .option_parser import OptionParser


ALTERNATIVES = (
    ("base_config", "model_name_or_path"),
    ("max_steps", "num_train_epochs", "max_train_tokens", "max_train_hours"),
    ("validation_split", "validation_documents"),
    ("batch_size", "gradient_accumulation_steps"),
    ("vocoder_config", "init_from"),
)
"""Arguments that exclude each other. One on the command line replaces those of its group in the recipe."""


class RecipeParser(OptionParser, TrlParser):
    """TRL's parser, but it refuses unknown keys in a recipe, and an argument on the command line also replaces its
    alternatives in the recipe: `--model_name_or_path` replaces `base_config`."""

    _given: frozenset[str] = frozenset()

    def parse_args_and_config(self, args: Sequence[str], **options: bool) -> tuple:
        # TRL takes `--config` out of the command line, and does not know `--config=`.
        finder = argparse.ArgumentParser(self.prog, argparse.SUPPRESS, add_help=False, allow_abbrev=False)
        finder.add_argument("--config")
        found, others = finder.parse_known_args(args)
        recipe = [] if found.config is None else ["--config", found.config]
        names = (arg.partition("=")[0].strip("-").replace("-", "_") for arg in others if arg.startswith("--"))
        self.command, self._given = args, frozenset(names)
        try:
            return super().parse_args_and_config([*recipe, *others], **options)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"The recipe '{found.config}' is not YAML: {' '.join(str(error).split())}.") from error

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
