"""Loads models and codecs from safetensors only, and keeps the commit that they were loaded at."""

import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file, resolve_revision

from .public_names import PREFIX


ACCESS = ("token", "local_files_only", "cache_dir")

LOADING_OPTIONS = frozenset(
    f"{prefix}{kind}_implementation{suffix}"
    for kind in ("attn", "experts")
    for prefix, suffix in (("", ""), ("_", ""), ("_", "_internal"))
) | {"transformers_weights", "trust_remote_code", "use_safetensors"}
"""Keys of a `config.json` that choose code, which may come from the Hub, or the file of the weights."""

PART_LOADING_OPTIONS = ("auto_map", "quantization_config")
"""Keys that do so in the configuration of a part, such as `base_config`."""


def check_finite(model: nn.Module, name: str) -> None:
    """Raise a `ValueError` that names a tensor with NaN or infinite weights."""
    for key, tensor in model.state_dict().items():
        is_read = tensor.is_floating_point() and tensor.numel() > 0 and tensor.device.type != "meta"
        if is_read and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ValueError(f"{name}: {key} holds NaN or infinite weights. Take another copy of the file.")


class SafeLoadingMixin:
    """
    For models: `from_pretrained` reads safetensors only, whatever the options say. The model must be of this type, and
    its weights must be exactly those that `config.json` describes. Afterwards, `config._commit_hash` is the commit on
    the Hub, or `None` for a folder.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        revision: str | None = "main",
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        r"""
        As for every model. The name may also be `quickstart:codec` or `quickstart:model`, which come with the package.

        Raises:
            OSError: there is no such model, or it has no safetensors.
            ValueError: the model is of another type, a file is damaged, or the weights are not finite or do not fit
                `config.json`.
        """
        name = pretrained_model_name_or_path
        path = resolve_quickstart(name)
        access = {key: kwargs[key] for key in ACCESS if key in kwargs}
        with naming_damaged_files(path):
            revision = resolve_revision(path, revision, **access)
        if path is not None and not isinstance(kwargs.get("config"), PreTrainedConfig):
            with naming_damaged_files(path):
                config, _ = PreTrainedConfig.get_config_dict(
                    path, revision=revision, subfolder=kwargs.get("subfolder", ""), **access
                )
                model_type = config.get("model_type")
            if model_type != cls.config_class.model_type:
                raise ValueError(
                    f"'{name}' holds a model of type {model_type!r}, and {cls.__name__} needs one of type "
                    f"{cls.config_class.model_type!r}."
                )
        with naming_damaged_files(path):
            variant = f".{kwargs['variant']}" if kwargs.get("variant") else ""
            index = path and cached_file(
                path,
                f"model.safetensors.index{variant}.json",
                revision=revision,
                subfolder=kwargs.get("subfolder", ""),
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **access,
            )
            if index:
                check_index(index)
            model, loading = super().from_pretrained(
                path,
                *model_args,
                revision=revision,
                output_loading_info=True,
                **{**kwargs, "use_safetensors": True, "weights_only": True},
            )
        for kind in ("missing", "unexpected"):
            if names := sorted(loading[f"{kind}_keys"]):
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise ValueError(
                    f"'{name}': the weights do not fit config.json, {kind} are {', '.join(names[:5])}{more}."
                )
        check_finite(model, f"'{name}'")
        if path != name:
            model.name_or_path = name
        commit = getattr(revision, "resolved", revision)
        is_commit = path is not None and not os.path.isdir(path) and re.fullmatch("[0-9a-f]{40}", commit or "")
        model.config._commit_hash = commit if is_commit else None
        return (model, loading) if output_loading_info else model


def read_json(path: str | os.PathLike | None) -> dict[str, Any]:
    """Read a JSON object, `{}` for no path; `ValueError` where the file holds anything else."""
    try:
        content = {} if path is None else json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__} instead of a JSON object.")
    return content


def check_index(path: str | os.PathLike) -> list[str]:
    """The names of the files in the index of a model's weights. A `ValueError` says that it names anything but
    safetensors beside it."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"'{path}' has no `weight_map`.")
    for file in weight_map.values():
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", str(file)):
            raise ValueError(f"'{path}' names {file!r}: weights must be safetensors in the folder of their index.")
    return sorted(set(weight_map.values()))


@contextmanager
def naming_damaged_files(folder: str | os.PathLike | None) -> Iterator[None]:
    """Where the block fails, raise an error that names the folder, and the file if one is damaged."""
    try:
        yield
    except Exception as error:
        patterns = ("*config.json", "tokenizer.json", "vocab.json", "*.index.json", "*.safetensors")
        files = [path for pattern in patterns for path in sorted(Path(folder or "missing").glob(pattern))]
        for path in files:
            try:
                if path.suffix == ".json":
                    content = json.loads(path.read_text("utf-8"))
                    if not isinstance(content, dict):
                        raise ValueError(f"it holds a {type(content).__name__} in place of an object")
                    if path.name == "tokenizer.json" and not content.keys() >= {"model", "added_tokens"}:
                        raise ValueError("it lacks the `model` and `added_tokens` of a tokenizer")
                    if path.name == "tokenizer.json":
                        Tokenizer.from_file(str(path))
                else:
                    safe_open(path, framework="pt").__exit__(None, None, None)
            except Exception as damage:
                raise ValueError(f"'{path}' is damaged or cut short: {damage}.") from error
        missing = "There is no folder '"
        is_named = folder is None or str(folder) in str(error) or str(error).startswith(missing)
        if folder and not os.path.exists(folder):
            if isinstance(error.__cause__ or error, HFValidationError):
                raise OSError(f"{missing}{folder}', and it is not the name of a repository.") from error
            # Without a network, the error of the Hub does not say what was wanted, which may be a mistyped folder.
            if isinstance(error, OSError) and not is_named:
                cause = error
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                reason = str(cause).partition("\n")[0]
                if isinstance(cause, LocalEntryNotFoundError):
                    reason = "downloads are switched off, and the cache does not have it"
                raise OSError(f"{missing}{folder}', and from the Hub it cannot be loaded: {reason}") from error
        kinds = ValueError | TypeError | AttributeError | RuntimeError | StrictDataclassError
        is_known = isinstance(error, kinds) or type(error) is Exception  # of the tokenizers library
        if is_named or not is_known or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(f"'{folder}' cannot be loaded: {error}") from error


def check_model(name: str) -> None:
    """Raise an error that names a model of which there is no configuration, in a folder or on the Hub."""
    with naming_damaged_files(name):
        AutoConfig.from_pretrained(name)


def find_file(name: str | os.PathLike, file: str, revision: str | None = None) -> str | None:
    """The path of a file in a folder, on the Hub or in what comes with the package; `None` where it is not there."""
    return cached_file(
        os.fspath(resolve_quickstart(name)),
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def resolve_quickstart(name: str | os.PathLike | None) -> str | os.PathLike | None:
    """The path of `quickstart:<path>`, which comes with the package. Other names are returned unchanged."""
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return name
    # Imported by name, because this module also runs as remote code, without the package.
    return importlib.import_module("slam_hf.quickstart").resolve_path(name)


def without_loading_options(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` without the keys that choose how to load the model, which only the caller may choose."""
    parts = {
        key: {name: value for name, value in without_loading_options(part).items() if name not in PART_LOADING_OPTIONS}
        for key, part in config.items()
        if isinstance(part, dict)
    }
    return {key: parts.get(key, value) for key, value in config.items() if key not in LOADING_OPTIONS}
