"""Configurations of the unit codec: of the whole, and of the vocoder that turns units back into audio."""

import copy
import math
import os
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, EncodecFeatureExtractor, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .loading_utils import naming_damaged_files, without_loading_options
from .unit_vocabulary import check_num_units


FILTER_BANK = (400, 160)
"""Samples of a window and between windows of the filter bank that a wav2vec2-BERT takes, at any sampling rate."""


@strict
class UnitHifiGanConfig(PreTrainedConfig):
    r"""
    Configuration of a [`UnitHifiGan`].

    Args:
        num_units (`int`, *optional*, defaults to 500):
            Number of units.
        unit_embed_dim (`int`, *optional*, defaults to 128):
            Width of the embeddings of units, speakers and styles.
        num_speakers (`int`, *optional*, defaults to 0):
            Number of speakers to choose from; 0 for a vocoder of one voice.
        num_styles (`int`, *optional*, defaults to 0):
            Number of speaking styles to choose from; 0 for a vocoder of one style.
        speaker_names (`list[str]`, *optional*):
            A name for each speaker, which `speaker_id` may be in place of a number.
        style_names (`list[str]`, *optional*):
            A name for each style, which `style_id` may be in place of a number.
        duration_hidden_dim (`int`, *optional*, defaults to 128):
            Width of the duration predictor; 0 for a vocoder without one.
        duration_kernel_size (`int`, *optional*, defaults to 3):
            Kernel size of the duration predictor's two convolutions.
        duration_dropout (`float`, *optional*, defaults to 0.5):
            Dropout probability in the duration predictor.
        upsample_initial_channel (`int`, *optional*, defaults to 512):
            Channels before the first upsampling layer; each layer halves them.
        upsample_rates (`list[int]`, *optional*, defaults to `(5, 4, 4, 4, 2)`):
            Stride of each upsampling layer. Their product is the number of samples per frame.
        upsample_kernel_sizes (`list[int]`, *optional*, defaults to `(11, 8, 8, 8, 4)`):
            Kernel size of each upsampling layer.
        resblock_type (`int`, *optional*, defaults to 1):
            HiFi-GAN's residual block: 1 (two convolutions per dilation) or 2 (one convolution per dilation).
        resblock_kernel_sizes (`list[int]`, *optional*, defaults to `(3, 7, 11)`):
            Kernel size of each residual block after an upsampling layer.
        resblock_dilation_sizes (`list[list[int]]`, *optional*, defaults to `((1, 3, 5), (1, 3, 5), (1, 3, 5))`):
            Dilations of each residual block.
        leaky_relu_slope (`float`, *optional*, defaults to 0.1):
            Negative slope of the leaky ReLUs, except for the last one, whose slope is 0.01.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the waveform, in Hz.
        initializer_range (`float`, *optional*, defaults to 0.01):
            Standard deviation of randomly initialised weights.

    The defaults are HiFi-GAN V1 (https://huggingface.co/papers/2010.05646) at 25 units a second.
    """

    model_type = "unit_hifigan"

    num_units: int = 500
    unit_embed_dim: int = 128
    num_speakers: int = 0
    num_styles: int = 0
    speaker_names: list[str] | tuple[str, ...] | None = None
    style_names: list[str] | tuple[str, ...] | None = None
    duration_hidden_dim: int = 128
    duration_kernel_size: int = 3
    duration_dropout: float | int = 0.5
    upsample_initial_channel: int = 512
    upsample_rates: list[int] | tuple[int, ...] = (5, 4, 4, 4, 2)
    upsample_kernel_sizes: list[int] | tuple[int, ...] = (11, 8, 8, 8, 4)
    resblock_type: Literal[1, 2] = 1
    resblock_kernel_sizes: list[int] | tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: list | tuple = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    leaky_relu_slope: float = 0.1
    sampling_rate: int = 16_000
    initializer_range: float = 0.01

    def validate_layers(self) -> None:
        """Refuses lists that the generator of transformers takes and fails on; `@strict` calls it."""
        check_num_units(self.num_units)
        rows = [(name, getattr(self, name)) for name in ("upsample_rates", "upsample_kernel_sizes")]
        rows += [("resblock_kernel_sizes", self.resblock_kernel_sizes)]
        rows += [("resblock_dilation_sizes", row) for row in self.resblock_dilation_sizes or [[]]]
        for name, row in rows:
            if not isinstance(row, list | tuple) or not all(type(item) is int and 0 < item < 2**16 for item in row):
                raise ValueError(f"`{name}` must hold positive whole numbers; got {getattr(self, name)}.")
            if not 0 < len(row) <= 32:
                raise ValueError(f"`{name}` must hold 1 to 32 numbers; got {len(row)}.")
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        if len(rates) != len(kernels) or any(k < r or (k - r) % 2 for r, k in zip(rates, kernels, strict=False)):
            raise ValueError(
                "`upsample_kernel_sizes` must have an entry for each of `upsample_rates`, larger by an even number or "
                f"0; got {kernels} for {rates}."
            )
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            raise ValueError(
                "`resblock_dilation_sizes` must have an entry for each of `resblock_kernel_sizes`; got "
                f"{len(self.resblock_dilation_sizes)} for {self.resblock_kernel_sizes}."
            )
        if self.upsample_initial_channel < 2 ** len(rates):
            raise ValueError(
                f"`upsample_initial_channel` must be {2 ** len(rates)} or more to be halved by each of "
                f"`upsample_rates`; got {self.upsample_initial_channel}."
            )
        if self.sampling_rate < 1:
            raise ValueError(f"`sampling_rate` must be positive; got {self.sampling_rate}.")
        for kind, count in (("speaker", self.num_speakers), ("style", self.num_styles)):
            names = getattr(self, f"{kind}_names")
            if names is not None and (len(names) != count or len(set(names)) < count):
                raise ValueError(f"`{kind}_names` must hold {count} different names, `num_{kind}s`; got {names}.")

    @property
    def spkr_embed_dim(self) -> int:
        """`int`: Width that the speaker adds to the generator's input (named as `SeamlessM4THifiGan` reads it)."""
        return self.unit_embed_dim if self.num_speakers else 0

    @property
    def lang_embed_dim(self) -> int:
        """`int`: Width that the style adds to the generator's input (named as `SeamlessM4THifiGan` reads it)."""
        return self.unit_embed_dim if self.num_styles else 0

    @property
    def hop_length(self) -> int:
        """`int`: Samples per frame."""
        return math.prod(self.upsample_rates)

    @property
    def context(self) -> tuple[int, int]:
        """`tuple[int, int]`: How many frames before a frame, and how many after it, its samples depend on."""
        # From the samples of frame 0 back through the layers: the first and the last position that they depend on.
        first, last = 0 - 3, self.hop_length - 1 + 3  # the last convolution, of kernel size 7
        blocks = list(zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True))
        for rate, kernel in zip(reversed(self.upsample_rates), reversed(self.upsample_kernel_sizes), strict=True):
            followed = 1 if self.resblock_type == 1 else 0  # by a convolution without dilation
            reach = max(sum((size - 1) * (dilation + followed) // 2 for dilation in row) for size, row in blocks)
            padding = (kernel - rate) // 2
            first = math.ceil((first - reach + padding - kernel + 1) / rate)
            last = (last + reach + padding) // rate
        return 3 - first, last + 3  # the first convolution, of kernel size 7

    @property
    def duration_context(self) -> tuple[int, int]:
        """`tuple[int, int]`: How many units before a unit, and how many after it, its duration depends on."""
        before = (self.duration_kernel_size - 1) // 2
        return 2 * before, 2 * (self.duration_kernel_size - 1 - before)


@strict
class HubertUnitCodecConfig(PreTrainedConfig):
    r"""
    Configuration of a [`HubertUnitCodec`].

    Args:
        encoder_config (`PreTrainedConfig` or `dict`, *optional*):
            The encoder, which ends with the layer whose states are quantised: a HuBERT, WavLM, wav2vec 2.0,
            data2vec-audio, UniSpeech, UniSpeech-SAT, wav2vec2-Conformer or wav2vec2-BERT, or another model of
            transformers with such convolutions over the waveform. A `dict` without `model_type` is a HuBERT. Defaults
            to HuBERT-base with all its layers.
        vocoder_config ([`UnitHifiGanConfig`] or `dict`, *optional*):
            The vocoder, or `None` for a codec that only encodes.
        num_units (`int`, *optional*, defaults to 500):
            Number of units, which is the number of centroids in the codebook.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the audio, in Hz.
        pad (`int`, *optional*):
            Number of zeros added before and after a waveform. With the default, the first and the last frame reach
            equally far beyond the waveform, and `n` samples give `n // hop_length` frames; it is 40 for HuBERT
            at 50 and at 25 frames a second.
        do_normalize (`bool`, *optional*, defaults to `False`):
            Whether each clip is first normalised to mean 0 and variance 1, as `Wav2Vec2FeatureExtractor` does.
        feature_stride (`int`, *optional*, defaults to 2):
            For a wav2vec2-BERT, the number of filter-bank frames that make one of its own.

    Raises:
        ValueError: the encoder has no hidden state for each frame of a waveform, or the parts do not fit each other.
    """

    model_type = "hubert_unit_codec"
    _auto_class = "AutoConfig"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "encoder_config": SubConfigSpec(AutoConfig, model_type="hubert"),
        "vocoder_config": SubConfigSpec(UnitHifiGanConfig, optional=True),
    }
    attribute_map: ClassVar[dict[str, str]] = {"codebook_size": "num_units"}

    encoder_config: dict | PreTrainedConfig | None = None
    vocoder_config: dict | PreTrainedConfig | None = None
    num_units: int = 500
    sampling_rate: int = 16_000
    pad: int | None = None
    do_normalize: bool = False
    feature_stride: int = 2

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        check_encoder_config(self.encoder_config)
        if self.pad is None:
            self.pad = self.default_pad
        self.check()

    def __setattr__(self, name: str, value: Any):
        # The caller's own configurations stay as they are.
        super().__setattr__(name, copy.deepcopy(value) if isinstance(value, PreTrainedConfig) else value)

    def check(self) -> None:
        """Raise a `ValueError` if the parts do not fit each other, as after a change of one of them."""
        check_num_units(self.num_units)
        check_encoder_config(self.encoder_config)
        if self.takes_filter_bank and (
            self.feature_stride < 1 or self.encoder_config.feature_projection_input_dim % self.feature_stride
        ):
            raise ValueError(
                f"`feature_stride` must divide the encoder's {self.encoder_config.feature_projection_input_dim} "
                f"features; got {self.feature_stride}."
            )
        if not 0 <= self.pad <= self.receptive_field:
            raise ValueError(f"`pad` must be from 0 to {self.receptive_field}, a frame's samples; got {self.pad}.")
        if self.vocoder_config is not None:
            self._check_vocoder(self.vocoder_config)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "HubertUnitCodecConfig":
        with naming_damaged_files(kwargs.get("name_or_path")):  # which the Auto classes pass
            return super().from_dict(without_loading_options(config_dict), **kwargs)

    @property
    def layer(self) -> int:
        """`int`: The transformer layer whose output is quantised, counted from 1."""
        return self.encoder_config.num_hidden_layers

    @property
    def takes_filter_bank(self) -> bool:
        """`bool`: Whether the encoder takes the features of a filter bank in place of a waveform."""
        return self.encoder_config.model_type == "wav2vec2-bert"

    @property
    def hop_length(self) -> int:
        """`int`: Samples per frame."""
        return math.prod(stride for _, stride in self._front_end)

    @property
    def frame_rate(self) -> float:
        """`float`: Frames, and so units before deduplication, per second."""
        return self.sampling_rate / self.hop_length

    @property
    def receptive_field(self) -> int:
        """`int`: Samples that one frame sees below the transformer."""
        samples = 1
        for kernel, stride in reversed(self._front_end):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def default_pad(self) -> int:
        """`int`: The default of `pad`."""
        return max(0, (self.receptive_field - self.hop_length) // 2)

    def num_frames(self, num_samples: int) -> int:
        """Frames that the encoder makes of a waveform, `pad` at both ends included in its samples."""
        for kernel, stride in self._front_end:
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples

    @property
    def _front_end(self) -> list[tuple[int, int]]:
        """Kernel and stride of each step from samples to frames."""
        if self.takes_filter_bank:
            return [FILTER_BANK, (self.feature_stride, self.feature_stride)]
        return list(zip(self.encoder_config.conv_kernel, self.encoder_config.conv_stride, strict=False))

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """As for every configuration. The settings of the codec's feature extractor are saved beside it."""
        super().save_pretrained(save_directory, **kwargs)
        make_feature_extractor(self.sampling_rate).save_pretrained(save_directory)

    def _check_vocoder(self, vocoder: UnitHifiGanConfig):
        if vocoder.num_units != self.num_units:
            raise ValueError(
                f"The vocoder has embeddings for {vocoder.num_units} units and the codebook holds {self.num_units}: "
                "take the vocoder that was trained on this quantiser's units."
            )
        if (vocoder.sampling_rate, vocoder.hop_length) != (self.sampling_rate, self.hop_length):
            raise ValueError(
                f"The vocoder makes {vocoder.hop_length} samples at {vocoder.sampling_rate} Hz of a frame, and the "
                f"encoder a frame of {self.hop_length} at {self.sampling_rate} Hz: take a vocoder for these frames."
            )


def check_encoder_config(config: PreTrainedConfig) -> None:
    """Raise a `ValueError` if a model has no hidden state for each frame of a waveform of any length."""
    is_known = config.model_type == "wav2vec2-bert" or all(
        hasattr(config, name) for name in ("conv_kernel", "conv_stride", "hidden_size", "num_hidden_layers")
    )
    if not is_known:
        raise ValueError(
            f"A codec cannot be built on a model of type {config.model_type!r}: it has no hidden state for each frame "
            "of a waveform. Take a HuBERT, WavLM, wav2vec 2.0, data2vec-audio, UniSpeech-SAT or wav2vec2-BERT."
        )


def make_feature_extractor(sampling_rate: int = 16_000) -> EncodecFeatureExtractor:
    """What a codec's waveforms go through: it checks their rate, in Hz, and pads them. It does not normalise them: the
    codec does, if its configuration says so."""
    return EncodecFeatureExtractor(feature_size=1, sampling_rate=sampling_rate)


__all__ = ["HubertUnitCodecConfig", "UnitHifiGanConfig"]
