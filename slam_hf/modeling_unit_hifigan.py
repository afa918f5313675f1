"""Unit HiFi-GAN: discrete units to a waveform, with a duration for each unit.

The generator and the duration predictor are those of SeamlessM4T in transformers, which descend from the same code
(https://github.com/facebookresearch/speech-resynthesis); what is new here is the conditioning around them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4THifiGan
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2VariancePredictor

from .configuration_hubert_unit_codec import UnitHifiGanConfig
from .padding_utils import copy_to, is_inside


Voice = int | str | Sequence[int | str] | torch.LongTensor
"""A speaker or a style: its number or its name, for all rows of a batch or one for each."""


class ResidualBlock2(nn.Module):
    """HiFi-GAN's second residual block, one convolution per dilation (https://huggingface.co/papers/2010.05646)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], leaky_relu_slope: float):
        super().__init__()
        self.leaky_relu_slope = leaky_relu_slope
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=dilation * (kernel_size - 1) // 2)
            for dilation in dilations
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            hidden_states = hidden_states + conv(nn.functional.leaky_relu(hidden_states, self.leaky_relu_slope))
        return hidden_states


class UnitHifiGan(PreTrainedModel):
    r"""
    HiFi-GAN over unit embeddings, optionally of many speakers and styles, with a duration predictor
    (*Speech Resynthesis from Discrete Disentangled Self-Supervised Representations*,
    https://huggingface.co/papers/2104.00355; durations as in https://huggingface.co/papers/2107.05604).

    Args:
        config ([`UnitHifiGanConfig`]):
            The configuration.
    """

    config: UnitHifiGanConfig
    base_model_prefix = "vocoder"
    main_input_name = "units"
    input_modalities = "audio"
    _supports_sdpa = True  # has no attention, and takes the setting that a codec's encoder is loaded with
    _keep_in_fp32_modules_strict = ["duration_predictor"]

    def __init__(self, config: UnitHifiGanConfig):
        super().__init__(config)
        width = config.unit_embed_dim
        self.unit_embedding = nn.Embedding(config.num_units, width)
        self.speaker_embedding = nn.Embedding(config.num_speakers, width) if config.num_speakers else None
        self.style_embedding = nn.Embedding(config.num_styles, width) if config.num_styles else None
        self.duration_predictor = None
        if config.duration_hidden_dim:
            self.duration_predictor = SeamlessM4Tv2VariancePredictor(
                width, config.duration_hidden_dim, config.duration_kernel_size, config.duration_dropout
            )
        self.hifi_gan = SeamlessM4THifiGan(config)
        if config.resblock_type == 2:
            self.hifi_gan.resblocks = nn.ModuleList(
                ResidualBlock2(upsampler.out_channels, kernel_size, dilations, config.leaky_relu_slope)
                for upsampler in self.hifi_gan.upsampler
                for kernel_size, dilations in zip(
                    config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
                )
            )
        self.post_init()

    def forward(
        self,
        units: torch.LongTensor,
        durations: torch.LongTensor,
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
    ) -> torch.Tensor:
        r"""
        The waveform of units with given durations, differentiable in the weights.

        Args:
            units (`torch.LongTensor` of shape `(batch_size, num_units)`):
                Units, without padding: convolutions would see it.
            durations (`torch.LongTensor` of shape `(batch_size, num_units)`):
                Frames that each unit lasts. Every row must last equally long.
            speaker_id, style_id (`int`, `str`, or a list or `torch.LongTensor`, one for each row, *optional*):
                Speaker and style, by number or name; by default the first ones, where the vocoder has several.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_frames * hop_length)`: samples between -1 and 1.

        Raises:
            ValueError: rows of different length, or a speaker or style that the vocoder does not have.
        """
        frames = durations.sum(dim=1).tolist()
        if len(set(frames)) > 1:
            raise ValueError(f"Every row must last equally many frames, got {frames}: pass these rows one at a time.")
        positions = torch.arange(frames[0], device=units.device).expand(len(units), -1)
        repeated = torch.searchsorted(durations.cumsum(dim=1), positions.contiguous(), right=True)
        return self.hifi_gan(self._embed(units.gather(1, repeated), speaker_id, style_id))

    @torch.no_grad()
    def generate_padded(
        self,
        frames: torch.LongTensor,
        num_frames: torch.LongTensor,
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
    ) -> torch.Tensor:
        r"""
        The waveforms of a padded batch, each as if it were alone.

        Args:
            frames (`torch.LongTensor` of shape `(batch_size, longest)`):
                The unit of each frame, padded on the right with any unit.
            num_frames (`torch.LongTensor` of shape `(batch_size,)`):
                Frames of each row.
            speaker_id, style_id (`int`, `str`, or a list or `torch.LongTensor`, one for each row, *optional*):
                Speaker and style, by number or name; by default the first ones, where the vocoder has several.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, longest * hop_length)`: samples between -1 and 1, and zeros
            after the end of each row.

        Raises:
            ValueError: a speaker or style that the vocoder does not have.
        """
        embeds = self._embed(frames, speaker_id, style_id)
        with _ZerosAfterTheEnd(num_frames, frames.shape[1]) as mode:
            return self.hifi_gan(mode.zero(embeds))

    def _embed(
        self,
        frames: torch.LongTensor,
        speaker_id: Voice | None,
        style_id: Voice | None,
    ) -> torch.Tensor:
        """Embeddings of units, with those of speaker and style, of shape `(batch_size, width, num_frames)`."""
        embeds = self.unit_embedding(frames)
        embeddings = (self.speaker_embedding, self.style_embedding)
        for embedding, ids in zip(embeddings, self.find_voices(speaker_id, style_id, len(frames)), strict=True):
            if embedding is not None:
                condition = embedding(copy_to(torch.tensor(ids), embeds.device))
                embeds = torch.cat([embeds, condition[:, None].expand(-1, embeds.shape[1], -1)], dim=-1)
        return embeds.transpose(1, 2)

    def find_voices(
        self, speaker_id: Voice | None, style_id: Voice | None, count: int
    ) -> tuple[list[int | None], list[int | None]]:
        r"""
        The numbers of the speakers and of the styles of a batch.

        Args:
            speaker_id, style_id (`int`, `str`, or a list or `torch.LongTensor` of them, *optional*):
                One for all rows or one for each, by number or name. Defaults to the first one.
            count (`int`):
                Number of rows.

        Returns:
            `tuple[list[int | None], list[int | None]]`: a number for each row, or `None` if the vocoder has no
            speakers or no styles.

        Raises:
            ValueError: the vocoder does not have a speaker or a style, or there is not one for each row.
        """
        config = self.config
        return (
            _find_voices(speaker_id, count, config.num_speakers, config.speaker_names, "speaker"),
            _find_voices(style_id, count, config.num_styles, config.style_names, "style"),
        )

    @torch.no_grad()
    def predict_durations(
        self, units: torch.LongTensor, padding_mask: torch.BoolTensor | None = None
    ) -> torch.LongTensor:
        r"""
        How long each unit lasts.

        Args:
            units (`torch.LongTensor` of shape `(batch_size, num_units)`):
                Deduplicated units.
            padding_mask (`torch.BoolTensor` of shape `(batch_size, num_units)`, *optional*):
                `False` for padding, on the right of a row; without it, there is none.

        Returns:
            `torch.LongTensor` of shape `(batch_size, num_units)`: frames per unit, at least one.

        Raises:
            ValueError: the vocoder has no duration predictor.
        """
        if self.duration_predictor is None:
            raise ValueError(
                "This vocoder does not predict durations: pass `durations`, the frames that each unit lasts."
            )
        with torch.autocast(self.device.type, enabled=False):  # autocast would change durations
            embeds = self.unit_embedding(units).to(self.duration_predictor.proj.weight.dtype)
            log_durations = self.duration_predictor(embeds, padding_mask).float()
        return (log_durations.exp() - 1).round().clamp(min=1).long()


def _find_voices(
    voice: Voice | None, count: int, num_voices: int, names: Sequence[str] | None, kind: str
) -> list[int | None]:
    """The numbers of `count` speakers or styles, each given by its number or name, or `None` for the first one."""
    voices = voice.tolist() if isinstance(voice, torch.Tensor | np.ndarray) else voice
    voices = list(voices) if isinstance(voices, list | tuple) else [voices]
    voices = [one.item() if isinstance(one, torch.Tensor | np.generic) else one for one in voices]
    if len(voices) == 1:
        voices *= count
    if len(voices) != count:
        raise ValueError(f"`{kind}_id` must be one {kind}, or one for each of {count} sequences; got {len(voices)}.")
    if num_voices == 0:
        if any(voice is not None for voice in voices):
            raise ValueError(f"This vocoder was made without `{kind}_id`: leave it out.")
        return voices
    names = list(names or [])
    ids = [0 if one is None else names.index(one) if one in names else one for one in voices]
    for index in ids:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < num_voices:
            known = f"from 0 to {num_voices - 1}" + (f", or one of {', '.join(map(repr, names))}" if names else "")
            raise ValueError(f"`{kind}_id` must be {known}; got {index!r}.")
    return ids


class _ZerosAfterTheEnd(TorchFunctionMode):
    """Makes convolutions see zeros after the end of each row of a padded batch, as if it were alone.

    What is between two convolutions of HiFi-GAN keeps zeros zero, so that it is enough to zero their outputs.
    """

    def __init__(self, num_frames: torch.LongTensor, longest: int):
        super().__init__()
        self.num_frames, self.longest = num_frames, longest

    def zero(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`hidden_states` of shape `(batch_size, channels, length)`, where `longest` frames have the whole length."""
        lengths = self.num_frames * (hidden_states.shape[2] // self.longest)
        return hidden_states.where(is_inside(lengths, hidden_states.shape[2])[:, None], 0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        return self.zero(output) if func in (torch.conv1d, torch.conv_transpose1d) else output


__all__ = ["UnitHifiGan"]
