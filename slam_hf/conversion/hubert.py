"""Loads the encoders of codecs, HuBERT and others, and checks that they are complete."""

import os
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ..configuration_hubert_unit_codec import check_encoder_config
from ..loading_utils import find_file, naming_damaged_files, read_json


def read_hubert(name: str | os.PathLike, revision: str = "main") -> PreTrainedModel:
    """
    Load an encoder from the Hub or a folder, in float32 and in evaluation mode. Unlike `AutoModel.from_pretrained`, it
    raises a `ValueError` where the checkpoint is not of a model that a codec can be built on, lacks weights, or a file
    is damaged.
    """
    with naming_damaged_files(name):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        check_encoder_config(config)
        encoder, loading = AutoModel.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = set(loading["missing_keys"]) - {"masked_spec_embed"}  # only used in training
    if missing:
        raise ValueError(f"{os.fspath(name)!r} lacks weights of its encoder: {', '.join(sorted(missing))}.")
    return encoder


def read_preprocessor(name: str | os.PathLike, revision: str = "main") -> dict[str, Any]:
    """The `preprocessor_config.json` of an encoder on the Hub or in a folder, or `{}` where there is none."""
    with naming_damaged_files(name):
        return read_json(find_file(name, "preprocessor_config.json", revision))
