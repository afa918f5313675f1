"""Which codec made some units: its name, and a hash of everything that its units depend on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..public_names import public_name


ENCODER_SETTINGS = (
    "conv_stride",
    "do_stable_layer_norm",
    "feat_extract_activation",
    "feat_extract_norm",
    "hidden_act",
    "layer_norm_eps",
    "num_attention_heads",
    "num_conv_pos_embedding_groups",
)
"""Settings of an encoder that its computation depends on, and that the shapes of its weights do not show."""

FURTHER_SETTINGS = (
    "left_max_position_embeddings",
    "max_bucket_distance",
    "model_type",
    "position_embeddings_type",
    "rotary_embedding_base",
)
"""Settings that HuBERT does not have."""


@dataclass(frozen=True)
class CodecDescription:
    """What a card says of a codec: its repository and commit (or the name of its folder), the SHA-256 of the weights
    that its units depend on, their number, the samples per second of its audio, its frames per second, and the type of
    numbers that its encoder computes with."""

    name: str
    revision: str | None
    weights: str
    num_units: int
    sampling_rate: int
    frame_rate: float
    dtype: str = "float32"


def describe_codec(codec: HubertUnitCodec) -> CodecDescription:
    """Describe a codec by what its units depend on. The hash does not cover the vocoder, settings that only training
    reads, or the version of transformers."""
    name, revision = codec.name_or_path, getattr(codec.config, "_commit_hash", None)
    config, encoder = codec.config, codec.config.encoder_config
    settings = {name: getattr(encoder, name) for name in ENCODER_SETTINGS if hasattr(encoder, name)}
    if encoder.model_type != "hubert":
        settings |= {name: getattr(encoder, name) for name in FURTHER_SETTINGS if hasattr(encoder, name)}
    if config.do_normalize or config.pad != config.default_pad:
        settings |= {"do_normalize": config.do_normalize, "pad": config.pad}
    if config.takes_filter_bank:
        settings |= {"feature_stride": config.feature_stride}
    hash = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    weights = {name: tensor for name, tensor in codec.state_dict().items() if not name.startswith("vocoder.")}
    update_with_tensors(hash, weights)
    return CodecDescription(
        name=public_name(name, revision) or "unnamed",
        revision=revision,
        weights=hash.hexdigest(),
        num_units=codec.config.num_units,
        sampling_rate=codec.sampling_rate,
        frame_rate=codec.frame_rate,
        dtype=str(codec.encoder.dtype).removeprefix("torch."),
    )


def update_with_tensors(hash: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Feed tensors, with their names, types and shapes, to a hash of `hashlib`; their order does not matter."""
    for name, tensor in sorted(tensors.items()):
        hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hash.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
