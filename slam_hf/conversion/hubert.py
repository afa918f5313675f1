"""Loads HuBERT checkpoints, and checks that they are complete."""

import os

import torch
from transformers import AutoConfig, HubertModel

from ..loading_utils import naming_damaged_files


def read_hubert(name: str | os.PathLike, revision: str = "main") -> HubertModel:
    """
    Load a HuBERT from the Hub or a folder, in float32 and in evaluation mode. Unlike `HubertModel.from_pretrained`, it
    raises a `ValueError` where the checkpoint is of another model type, lacks weights, or a file is damaged.
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
