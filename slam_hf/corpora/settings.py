"""What a tokenisation depends on, kept beside its output so that it is never continued with anything else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .atomic_write import atomic_write
from .dataset_card import CodecDescription
from .decoding import PieceRules
from .sources import Source


if TYPE_CHECKING:
    from slam_hf.modeling_hubert_unit_codec import HubertUnitCodec


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
"""What the shapes of a HuBERT's weights do not tell of its computation."""


def describe_codec(codec: "HubertUnitCodec") -> CodecDescription:
    """What tells a codec from others, as far as its units go."""
    name, revision = codec.name_or_path, getattr(codec.config, "_commit_hash", None)
    return CodecDescription(
        name=name if revision is not None else Path(name).name or "unnamed",
        revision=revision,
        weights=_hash_weights(codec),
        num_units=codec.config.num_units,
        sampling_rate=codec.sampling_rate,
        frame_rate=codec.frame_rate,
    )


def update_with_tensors(hash: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Feed tensors, with their names, types and shapes, to a hash of `hashlib`; their order does not matter."""
    for name, tensor in sorted(tensors.items()):
        hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hash.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def make_settings(source: Source, codec: CodecDescription, rules: PieceRules) -> dict[str, Any]:
    """All that the rows depend on: neither where things are, nor how the work is done."""
    described = asdict(codec)
    del described["name"], described["revision"]
    return {
        "codec": described,
        "source": {**source.identity, "has_pairs": source.has_pairs, "chunk_seconds": source.chunk_seconds},
        "rules": asdict(rules),
    }


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    r"""
    Note the settings of a split's tokenisation in its folder, or check that they are those that it was begun with.

    Args:
        folder (`Path`):
            Folder of the state of the split's tokenisation, beside those of the other splits.
        settings (`dict`):
            From [`make_settings`].

    Raises:
        ValueError: the split was begun with other settings, or another split with another codec.
    """
    settings = json.loads(json.dumps(settings))
    for path in sorted(folder.parent.glob("*/settings.json")):
        earlier = json.loads(path.read_bytes())
        if path.parent == folder:
            changes = _changes(earlier, settings)
        else:
            changes = _changes({"codec": earlier["codec"]}, {"codec": settings["codec"]})
        if changes:
            raise ValueError(
                f"'{path.parent}' holds a tokenisation that was begun with other settings. "
                "Take those to continue it, or write to another folder:\n" + "\n".join(changes)
            )
    atomic_write(folder / "settings.json", json.dumps(settings, indent=2).encode())


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    earlier, now = _flatten(earlier), _flatten(now)
    return [
        f"  {key}: was {earlier.get(key)!r}, is now {now.get(key)!r}"
        for key in sorted(earlier.keys() | now.keys())
        if earlier.get(key) != now.get(key)
    ]


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _hash_weights(codec: "HubertUnitCodec") -> str:
    """SHA-256 of what units depend on: weights with their names, types and shapes, and how the encoder uses them. The
    vocoder is not in it, nor what only training reads, nor the version of transformers."""
    settings = {name: getattr(codec.config.encoder_config, name) for name in ENCODER_SETTINGS}
    hash = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    weights = {name: tensor for name, tensor in codec.state_dict().items() if not name.startswith("vocoder.")}
    update_with_tensors(hash, weights)
    return hash.hexdigest()
