"""Reads the unit vocoders of textless-lib, fairseq and speech-resynthesis."""

import os
import re
import zipfile  # noqa: TID251 (nothing is extracted)
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file

from ..checkpoint_files import check_content
from ..configuration_hubert_unit_codec import UnitHifiGanConfig
from ..loading_utils import read_json
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


def read_hifigan(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Mapping[str, Any],
    speakers: str | os.PathLike | None = None,
    styles: str | os.PathLike | None = None,
) -> UnitHifiGan:
    r"""
    Read a code HiFi-GAN (`CodeGenerator` in https://github.com/facebookresearch/textlesslib). No pickle is executed.

    Args:
        checkpoint (`str` or `os.PathLike`):
            A PyTorch checkpoint `{"generator": state_dict}`, or a `.safetensors` file with the state dict. Weight
            norm is folded into the weights.
        config (`str`, `os.PathLike` or `dict`):
            The JSON file beside it, or its content. Speakers, styles, the duration predictor and the type of the
            residual blocks are taken from the weights: the libraries describe them in different ways.
        speakers, styles (`str` or `os.PathLike`, *optional*):
            Text files with their names, one a line in the order of their embeddings, which come with some vocoders.

    Returns:
        [`UnitHifiGan`], in evaluation mode.

    Raises:
        ValueError: the checkpoint is of another kind, holds more than tensors or does not fit its configuration, or
            the vocoder needs an input other than units, speaker and style.
    """
    source = "the configuration"
    if not isinstance(config, Mapping):
        source, config = f"'{config}'", read_json(Path(config))
    for key, meaning in _UNSUPPORTED.items():
        if config.get(key):
            raise ValueError(
                f"{checkpoint}: this vocoder {meaning} (`{key}` in its configuration); "
                "only vocoders of units, speakers and styles can be converted."
            )
    generator = _read_generator(Path(checkpoint))
    try:
        state = _fold_weight_norm(generator)
        for pattern, replacement in _RENAMED.items():
            state = {re.sub(pattern, replacement, key): tensor for key, tensor in state.items()}
        config = _read_config(config, state, _read_names(speakers), _read_names(styles))
        with torch.device("meta"):
            vocoder = UnitHifiGan(config)
        vocoder.load_state_dict(state, assign=True)
    except (LookupError, TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise ValueError(f"{checkpoint}: the weights and {source} do not fit each other: {error!r}") from error
    return vocoder.eval()


def _read_generator(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the state dict. Its tensors are no larger than the file, so that memory is bounded."""
    size = checkpoint.stat().st_size
    if checkpoint.suffix == ".safetensors":
        check_content(checkpoint)
        generator = load_file(checkpoint)
    else:
        try:
            if zipfile.is_zipfile(checkpoint):
                with zipfile.ZipFile(checkpoint) as archive:
                    if sum(entry.file_size for entry in archive.infolist()) > size:
                        raise ValueError("Its archive is compressed.")
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)  # noqa: TID251 (weights_only)
        except Exception as error:  # torch.load raises many types for damaged files
            raise ValueError(f"{checkpoint}: not a PyTorch checkpoint of tensors alone. {error}") from error
        generator = content.get("generator") if isinstance(content, dict) else None
        if not isinstance(generator, dict) or not all(map(torch.is_tensor, generator.values())):
            raise ValueError(f"{checkpoint}: expected the state dict of a vocoder under the key 'generator'.")
    if sum(tensor.numel() * tensor.element_size() for tensor in generator.values()) > size:
        raise ValueError(f"{checkpoint}: its tensors are larger than the file.")
    for name, tensor in generator.items():
        is_plain = tensor.layout == torch.strided and tensor.is_floating_point() and tensor.device.type == "cpu"
        if not is_plain or not tensor.isfinite().all():
            raise ValueError(f"{checkpoint}: the tensor {name!r} does not hold finite floating point numbers alone.")
    return {name: tensor.float() for name, tensor in generator.items()}


def _fold_weight_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`g * v / |v|` for `weight`, the norm per slice of the first dimension (https://huggingface.co/papers/1602.07868)."""
    folded = {}
    for key, tensor in state.items():
        if key.endswith(".weight_v"):
            gain = state[key.removesuffix("v") + "g"]
            tensor = gain * tensor / tensor.norm(dim=(1, 2), keepdim=True)
            if not tensor.isfinite().all():
                raise ValueError(f"{key!r} has a slice of norm 0")
        if not key.endswith(".weight_g"):
            folded[re.sub(r"\.weight_v$", ".weight", key)] = tensor
    return folded


def _read_names(path: str | os.PathLike | None) -> list[str] | None:
    """The lines of a text file."""
    return None if path is None else [line.strip() for line in Path(path).read_text("utf-8").splitlines()]


def _read_config(
    config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    speaker_names: list[str] | None,
    style_names: list[str] | None,
) -> UnitHifiGanConfig:
    predictor = config.get("dur_predictor_params") or {}
    if not isinstance(predictor, Mapping):
        raise ValueError(f"`dur_predictor_params` must be an object; got {predictor!r}")
    num_units, unit_embed_dim = state["unit_embedding.weight"].shape
    duration_conv = state.get("duration_predictor.conv1.weight", torch.empty(0, 0, 3))
    return UnitHifiGanConfig(
        num_units=num_units,
        unit_embed_dim=unit_embed_dim,
        num_speakers=len(state.get("speaker_embedding.weight", ())),
        num_styles=len(state.get("style_embedding.weight", ())),
        speaker_names=speaker_names,
        style_names=style_names,
        duration_hidden_dim=duration_conv.shape[0],
        duration_kernel_size=duration_conv.shape[2],
        duration_dropout=predictor.get("var_pred_dropout", 0.5),
        upsample_initial_channel=config["upsample_initial_channel"],
        upsample_rates=config["upsample_rates"],
        upsample_kernel_sizes=config["upsample_kernel_sizes"],
        resblock_type=2 if "hifi_gan.resblocks.0.convs.0.weight" in state else 1,
        resblock_kernel_sizes=config["resblock_kernel_sizes"],
        resblock_dilation_sizes=config["resblock_dilation_sizes"],
        sampling_rate=config.get("sampling_rate", 16_000),
    )
