"""Makes the vocoder that training starts from: a new one, or one that was trained before."""

import copy
import os
from collections.abc import Sequence

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedConfig

from ..configuration_hubert_unit_codec import UnitHifiGanConfig
from ..conversion.hifigan import read_hifigan
from ..encoding.codec_identity import describe_codec
from ..loading_utils import check_finite, naming_damaged_files, resolve_quickstart
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..modeling_unit_hifigan import UnitHifiGan
from ..processing_speech_lm import load_codec
from .voice_recordings import VoiceRecordings


UPSAMPLING = {
    320: {"upsample_rates": (5, 4, 4, 2, 2), "upsample_kernel_sizes": (11, 8, 8, 4, 4)},
    640: {"upsample_rates": (5, 4, 4, 4, 2), "upsample_kernel_sizes": (11, 8, 8, 8, 4)},
}
"""Upsampling layers of the published unit HiFi-GANs, by samples per frame: 50 and 25 frames a second at 16 kHz."""

MAX_REMAPPED_FRAMES = 100_000
"""Frames that tell which units of another codec a unit stands for: an hour at 25 frames a second."""


def new_vocoder(
    codec: HubertUnitCodec, values: dict, speakers: Sequence[str], styles: Sequence[str], seed: int
) -> UnitHifiGan:
    """A vocoder with random weights. A `ValueError` says that the values do not fit the codec."""
    values = UPSAMPLING.get(codec.config.hop_length, {}) | values
    known = {"num_units": codec.config.num_units, "sampling_rate": codec.sampling_rate}
    try:
        config = UnitHifiGanConfig(**known | values | _voices(speakers, styles))
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(f"`vocoder_config` is not a configuration of a vocoder: {error}") from error
    check_fit(config, codec, "`vocoder_config`")
    torch.manual_seed(seed)
    vocoder = UnitHifiGan(config)
    # The small weights that the configuration asks for would give silence after twenty layers.
    for module in vocoder.hifi_gan.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
    for embedding in (vocoder.unit_embedding, vocoder.speaker_embedding, vocoder.style_embedding):
        if embedding is not None:
            nn.init.normal_(embedding.weight)
    return vocoder


def check_fit(config: UnitHifiGanConfig, codec: HubertUnitCodec, name: str) -> None:
    """Raise a `ValueError` if a vocoder makes another number of samples per frame than the codec's frames have."""
    ours, theirs = (config.sampling_rate, config.hop_length), (codec.sampling_rate, codec.config.hop_length)
    if ours != theirs:
        raise ValueError(
            f"{name}: the vocoder makes {ours[1]} samples at {ours[0]:,} Hz of each unit (the product of "
            f"`upsample_rates` {list(config.upsample_rates)}), and the codec's encoder gives a unit for {theirs[1]} "
            f"samples at {theirs[0]:,} Hz, {codec.frame_rate:g} a second: take rates whose product is {theirs[1]}."
        )


def load_vocoder(name: str, config: str | None, codec: HubertUnitCodec) -> tuple[UnitHifiGan, HubertUnitCodec | None]:
    r"""
    Load a vocoder to continue from.

    Args:
        name (`str`):
            Folder or Hub repository of a [`HubertUnitCodec`] or a [`UnitHifiGan`], or a checkpoint that
            [`~conversion.hifigan.read_hifigan`] reads.
        config (`str`, *optional*):
            JSON file that comes with the checkpoint.
        codec ([`HubertUnitCodec`]):
            The codec that the vocoder is trained for.

    Returns:
        `tuple[UnitHifiGan, HubertUnitCodec | None]`: the vocoder, and the codec whose units it speaks, if these are
        other units than those of `codec`.

    Raises:
        ValueError: there is no vocoder, or it does not fit the codec.
    """
    if os.path.isfile(name):
        if config is None:
            raise ValueError(f"'{name}' is a checkpoint: name the JSON file that comes with it, `init_config`.")
        vocoder, of_codec = read_hifigan(name, config), None
    else:
        path = resolve_quickstart(name)
        with naming_damaged_files(path):
            model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        if model_type == "hubert_unit_codec":
            of_codec = load_codec(name)
            vocoder = of_codec.vocoder
            if vocoder is None:
                raise ValueError(f"'{name}' is a codec without a vocoder: leave out `init_from`.")
        elif model_type == "unit_hifigan":
            with naming_damaged_files(path):
                vocoder, of_codec = UnitHifiGan.from_pretrained(path, use_safetensors=True), None
            check_finite(vocoder, f"'{name}'")
        else:
            raise ValueError(f"'{name}' is a model of type {model_type!r}: expected a codec or a unit HiFi-GAN.")
    check_fit(vocoder.config, codec, f"'{name}'")
    if of_codec is not None and describe_codec(of_codec).weights == describe_codec(codec).weights:
        of_codec = None
    if of_codec is None and vocoder.config.num_units != codec.config.num_units:
        raise ValueError(
            f"'{name}' speaks {vocoder.config.num_units} units, and the codec has {codec.config.num_units}: continue "
            "from a codec, whose units can be translated."
        )
    return vocoder, of_codec


@torch.no_grad()
def adapt_vocoder(
    earlier: UnitHifiGan,
    codec: HubertUnitCodec,
    of_codec: HubertUnitCodec | None,
    recordings: VoiceRecordings,
    speakers: Sequence[str],
    styles: Sequence[str],
) -> UnitHifiGan:
    r"""
    A vocoder for the units of a codec and for some voices, with the weights of an earlier one.

    Speakers and styles that the earlier one knows keep their embedding; new ones begin with the mean of all. A vocoder
    that gets its first speakers begins with the same voice for each. Where the units are others, the embedding of a
    unit begins with the mean embedding of the units that the earlier codec has for the same frames of the recordings.

    Args:
        earlier ([`UnitHifiGan`]):
            The vocoder to continue from.
        codec ([`HubertUnitCodec`]):
            The codec that gave the units of the recordings.
        of_codec ([`HubertUnitCodec`], *optional*):
            The codec of the earlier vocoder, if it has other units.
        recordings ([`VoiceRecordings`]):
            Recordings, for the translation of the units.
        speakers, styles (sequence of `str`):
            The names by number; empty for one speaker or one style.

    Raises:
        ValueError: the codecs have different frame rates.
    """
    values = earlier.config.to_dict() | {"num_units": codec.config.num_units}
    for kind, names in (("speaker", speakers), ("style", styles)):
        if getattr(earlier.config, f"num_{kind}s") and not names:
            names = [f"{kind}_0"]  # the generator has its input, even for one
        values |= {f"num_{kind}s": len(names), f"{kind}_names": list(names) or None}
    vocoder = UnitHifiGan(UnitHifiGanConfig(**values))
    state = {name: tensor.clone() for name, tensor in earlier.state_dict().items()}
    width, inputs = earlier.config.unit_embed_dim, state["hifi_gan.conv_pre.weight"]
    parts = dict(zip(("unit", "speaker", "style"), inputs.split(width, dim=1), strict=False))
    if not earlier.config.num_speakers and "speaker" in parts:
        parts["style"] = parts.pop("speaker")
    joined = [parts["unit"]]
    for kind in ("speaker", "style"):
        names = getattr(vocoder.config, f"{kind}_names")
        if not names:
            continue
        key = f"{kind}_embedding.weight"
        old, old_names = state.get(key), list(getattr(earlier.config, f"{kind}_names") or [])
        if old is None:
            state[key] = nn.init.normal_(torch.empty(len(names), width))
        elif not old_names and len(old) == len(names):
            pass  # the same speakers, by number
        else:
            known = [old[old_names.index(name)] if name in old_names else old.mean(dim=0) for name in names]
            state[key] = torch.stack(known)
        joined.append(parts.get(kind, torch.zeros_like(parts["unit"])))
    state["hifi_gan.conv_pre.weight"] = torch.cat(joined, dim=1)
    if of_codec is not None:
        state["unit_embedding.weight"] = _translate_units(state["unit_embedding.weight"], codec, of_codec, recordings)
    vocoder.load_state_dict(state)
    return vocoder


def _translate_units(
    embeddings: torch.Tensor, codec: HubertUnitCodec, of_codec: HubertUnitCodec, recordings: VoiceRecordings
) -> torch.Tensor:
    """Mean embeddings of the units of another codec over the frames of each unit. A unit that no frame has gets the
    mean of all."""
    if of_codec.frame_rate != codec.frame_rate:
        raise ValueError(
            f"The units of the codec to continue from come at {of_codec.frame_rate:g} Hz, and those of this codec at "
            f"{codec.frame_rate:g} Hz: leave out `init_from`."
        )
    sums, counts = torch.zeros(codec.config.num_units, embeddings.shape[1]), torch.zeros(codec.config.num_units)
    for index in np.random.default_rng(0).permutation(len(recordings)):
        voice = recordings[index]
        theirs = of_codec.encode(torch.from_numpy(voice.waveform())[None]).audio_codes[0, 0].cpu()
        ours = torch.from_numpy(voice.units[0].astype(np.int64))[: len(theirs)]
        sums.index_add_(0, ours, embeddings[theirs[: len(ours)]])
        counts.index_add_(0, ours, torch.ones(len(ours)))
        if counts.sum() >= MAX_REMAPPED_FRAMES:
            break
    means = sums / counts[:, None]
    means[counts == 0] = sums.sum(dim=0) / counts.sum()
    return means


def with_vocoder(codec: HubertUnitCodec, vocoder: UnitHifiGan) -> HubertUnitCodec:
    """The codec with a vocoder, in evaluation mode. Its encoder is shared, not copied."""
    codec = copy.copy(codec)
    codec._modules = dict(codec._modules)
    codec.vocoder = vocoder
    codec.config = copy.deepcopy(codec.config)
    codec.config.vocoder_config = vocoder.config
    codec.config.check()
    return codec.eval()


def _voices(speakers: Sequence[str], styles: Sequence[str]) -> dict:
    return {
        "num_speakers": len(speakers),
        "speaker_names": list(speakers) or None,
        "num_styles": len(styles),
        "style_names": list(styles) or None,
    }
