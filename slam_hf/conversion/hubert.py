"""Loads HuBERT checkpoints, and checks that they are complete."""

import os

import torch
from transformers import AutoConfig, HubertModel

from ..loading_utils import naming_damaged_files


def read_hubert(name: str | os.PathLike, revision: str = "main") -> HubertModel:
    r"""
    Load a HuBERT in float32. Unlike `HubertModel.from_pretrained`, it raises an error if weights are missing.

    Args:
        name (`str` or `os.PathLike`):
            A Hub id or a folder.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch, tag or commit on the Hub.

    Returns:
        [`~transformers.HubertModel`], in evaluation mode.

    Raises:
        ValueError: the checkpoint is of another model type, lacks weights, or a file is damaged.
    """
    with naming_damaged_files(name):
        config = AutoConfig.from_pretrained(name, revision=revision)
        if config.model_type != "hubert":
            raise ValueError(f"{os.fspath(name)!r} is a model of type {config.model_type!r}, not a HuBERT.")
        hubert, loading = HubertModel.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    missing = set(loading["missing_keys"]) - {"masked_spec_embed"}  # only used in training
    if missing:
        raise ValueError(f"{os.fspath(name)!r} lacks weights of its HuBERT: {', '.join(sorted(missing))}.")
    return hubert
