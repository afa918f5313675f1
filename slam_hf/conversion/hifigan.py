"""Reads the unit vocoders that textless-lib, fairseq and speech-resynthesis publish."""

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file

from ..configuration_hubert_unit_codec import UnitHifiGanConfig
from ..modeling_unit_hifigan import UnitHifiGan


_RENAMED = {
    r"^dict\.": "unit_embedding.",
    r"^spkr\.": "speaker_embedding.",
    r"^style\.": "style_embedding.",
    r"^dur_predictor\.(conv\d)\.0\.": r"duration_predictor.\1.",
    r"^dur_predictor\.": "duration_predictor.",
    r"^ups\.": "hifi_gan.upsampler.",
    r"^(conv_pre|conv_post|resblocks)\.": r"hifi_gan.\1.",
}
_UNSUPPORTED = {
    "f0": "is conditioned on pitch",
    "embedder_params": "takes its speaker from an audio embedder",
    "num_style_tokens": "is conditioned on a stream of style tokens",
}


def read_hifigan(checkpoint: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]) -> UnitHifiGan:
    r"""
    Read a code HiFi-GAN (`CodeGenerator` in https://github.com/facebookresearch/textlesslib). No pickle is executed.

    Args:
        checkpoint (`str` or `os.PathLike`):
            A PyTorch checkpoint `{"generator": state_dict}`, or a `.safetensors` file with the state dict. Weight
            norm is folded into the weights.
        config (`str`, `os.PathLike` or `dict`):
            The JSON file beside it, or its content. Whether there are speakers, styles and a duration predictor, and
            which residual blocks, is read from the weights: the libraries do not agree on what the file says of them.

    Returns:
        [`UnitHifiGan`], in evaluation mode.

    Raises:
        ValueError: the checkpoint is not of this kind or holds more than tensors, it needs an input besides units,
            speaker and style, or it does not fit its configuration.
    """
    if not isinstance(config, Mapping):
        config = json.loads(Path(config).read_text())
    for key, meaning in _UNSUPPORTED.items():
        if config.get(key):
            raise ValueError(
                f"{checkpoint}: this vocoder {meaning} (`{key}` in its configuration); "
                "only vocoders of units, speakers and styles can be converted."
            )
    generator = _read_generator(checkpoint)
    try:
        state = _rename(_fold_weight_norm(generator))
        vocoder = UnitHifiGan(_read_config(config, state))
        vocoder.load_state_dict(state)
    except (LookupError, TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise ValueError(
            f"{checkpoint}: the weights and the configuration do not fit each other: {error!r}"
        ) from error
    return vocoder.eval()


def _read_generator(checkpoint: str | os.PathLike) -> dict[str, torch.Tensor]:
    if Path(checkpoint).suffix == ".safetensors":
        return load_file(checkpoint)
    with open(checkpoint, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 (weights_only)
        except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
            raise ValueError(f"{checkpoint}: not a PyTorch checkpoint of tensors alone. {error}") from error
    generator = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(generator, dict) or not all(isinstance(weight, torch.Tensor) for weight in generator.values()):
        raise ValueError(f"{checkpoint}: expected the state dict of a vocoder under the key 'generator'.")
    return generator


def _fold_weight_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`g * v / |v|` for `weight`, the norm per slice of the first dimension (https://huggingface.co/papers/1602.07868)."""
    folded = {}
    for key, tensor in state.items():
        if key.endswith(".weight_v"):
            gain = state[key.removesuffix("v") + "g"]
            tensor = gain * tensor / tensor.norm(dim=(1, 2), keepdim=True)
        if not key.endswith(".weight_g"):
            folded[re.sub(r"\.weight_v$", ".weight", key)] = tensor
    return folded


def _rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for pattern, replacement in _RENAMED.items():
        state = {re.sub(pattern, replacement, key): tensor for key, tensor in state.items()}
    return state


def _read_config(config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> UnitHifiGanConfig:
    num_units, unit_embed_dim = state["unit_embedding.weight"].shape
    duration_conv = state.get("duration_predictor.conv1.weight", torch.empty(0, 0, 3))
    return UnitHifiGanConfig(
        num_units=num_units,
        unit_embed_dim=unit_embed_dim,
        num_speakers=len(state.get("speaker_embedding.weight", ())),
        num_styles=len(state.get("style_embedding.weight", ())),
        duration_hidden_dim=duration_conv.shape[0],
        duration_kernel_size=duration_conv.shape[2],
        duration_dropout=(config.get("dur_predictor_params") or {}).get("var_pred_dropout", 0.5),
        upsample_initial_channel=config["upsample_initial_channel"],
        upsample_rates=config["upsample_rates"],
        upsample_kernel_sizes=config["upsample_kernel_sizes"],
        resblock_type=2 if "hifi_gan.resblocks.0.convs.0.weight" in state else 1,
        resblock_kernel_sizes=config["resblock_kernel_sizes"],
        resblock_dilation_sizes=config["resblock_dilation_sizes"],
        sampling_rate=config.get("sampling_rate", 16_000),
    )
