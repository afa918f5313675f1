"""The unit codec: audio to the k-means units of a HuBERT layer, and units back to audio with a unit HiFi-GAN."""

import copy
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertModel
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput

from .configuration_hubert_unit_codec import HubertUnitCodecConfig
from .loading_utils import SafeLoadingMixin, check_finite
from .masked_hubert import hubert_states
from .modeling_unit_hifigan import UnitHifiGan
from .padding_utils import split_clips, split_durations, split_units
from .public_names import public_name


_BATCH_SECONDS = 48
"""Audio in a batch of clips that are encoded together on an accelerator, where HuBERT-base takes 0.44 TFLOP for it:
enough to hide the launch of its kernels, and little to waste where a batch is not full."""

_STEPS_PER_OCTAVE = 4
"""Number of padded lengths between a length and its double: padding is at most a quarter of a clip."""

_CHUNK_FRAMES = 4096
"""Frames whose distances to the centroids are held at once: with 500 units, 8 MB."""


@dataclass
class HubertUnitCodecEncoderOutput(ModelOutput):
    r"""
    Args:
        audio_codes (`torch.LongTensor` of shape `(batch_size, 1, num_frames)`):
            The unit of each frame, padded with -1: 0 is a unit.
        lengths (`torch.LongTensor` of shape `(batch_size,)`):
            Frames of each clip.
    """

    audio_codes: torch.LongTensor | None = None
    lengths: torch.LongTensor | None = None


@dataclass
class HubertUnitCodecDecoderOutput(ModelOutput):
    r"""
    Args:
        audio_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)`):
            The waveforms, padded with zeros.
        lengths (`torch.LongTensor` of shape `(batch_size,)`):
            Samples of each waveform.
    """

    audio_values: torch.FloatTensor | None = None
    lengths: torch.LongTensor | None = None


@dataclass
class HubertUnitCodecOutput(ModelOutput):
    r"""
    Args:
        audio_codes (`torch.LongTensor` of shape `(batch_size, 1, num_frames)`):
            The unit of each frame, padded with -1: 0 is a unit.
        audio_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)`):
            The waveforms that the vocoder makes of them, padded with zeros.
    """

    audio_codes: torch.LongTensor | None = None
    audio_values: torch.FloatTensor | None = None


class HubertUnitCodec(SafeLoadingMixin, PreTrainedAudioTokenizerBase):
    r"""
    A codec between audio and discrete units. The encoder is a HuBERT (https://huggingface.co/papers/2106.07447) up to
    the layer whose states a k-means codebook quantises. The decoder, which is optional, is a [`UnitHifiGan`].

    The units of a clip never depend on what else is in the batch. On a CPU each clip goes through HuBERT alone and
    without padding, which is also the faster way there. On an accelerator clips share padded batches, and a masked
    forward keeps the padding out of their states ([`~masked_hubert.hubert_states`]). As rounding may differ between
    batches of different shapes, the length of a clip alone decides the shape of its batch.

    Args:
        config ([`HubertUnitCodecConfig`]):
            The configuration.

    Example:

    ```python
    >>> from transformers import AutoFeatureExtractor
    >>> from slam_hf import HubertUnitCodec

    >>> codec = HubertUnitCodec.from_pretrained("path/to/codec")
    >>> feature_extractor = AutoFeatureExtractor.from_pretrained("path/to/codec")
    >>> inputs = feature_extractor([waveform], sampling_rate=16_000, return_tensors="pt")
    >>> encoded = codec.encode(**inputs)
    >>> units, durations = codec.deduplicate(encoded.audio_codes[0, 0])
    >>> waveform = codec.decode(units[None]).audio_values[0, 0]
    ```
    """

    config: HubertUnitCodecConfig
    _auto_class = "AutoModelForAudioTokenization"
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = "audio"
    _keep_in_fp32_modules_strict = ["codebook"]

    def __init__(self, config: HubertUnitCodecConfig):
        super().__init__(config)
        config.check()
        self.encoder = HubertModel(config.encoder_config)
        shape = (config.num_units, config.encoder_config.hidden_size)
        self.codebook = nn.Buffer(torch.empty(shape, dtype=torch.float32))
        self.vocoder = UnitHifiGan(config.vocoder_config) if config.vocoder_config is not None else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.normal_(self.codebook)

    @classmethod
    def from_parts(
        cls,
        hubert: str | os.PathLike | HubertModel,
        kmeans: str | os.PathLike | torch.Tensor,
        layer: int,
        vocoder: str | os.PathLike | UnitHifiGan | None = None,
        vocoder_config: str | os.PathLike | Mapping[str, Any] | None = None,
        hubert_revision: str = "main",
    ) -> "HubertUnitCodec":
        r"""
        Build a codec from parts that were published or trained separately.

        Args:
            hubert (`str`, `os.PathLike` or [`~transformers.HubertModel`]):
                A Hub id, a folder, or the model itself. The layers above `layer` are left out.
            kmeans (`str`, `os.PathLike` or `torch.Tensor` of shape `(num_units, hidden_size)`):
                The centroids, or a file with a scikit-learn KMeans ([`~conversion.kmeans.read_kmeans`]).
            layer (`int`):
                The transformer layer that the centroids were fitted on, counted from 1: its output is
                `hidden_states[layer]` of `HubertModel(..., output_hidden_states=True)`, before any final layer norm.
            vocoder (`str`, `os.PathLike` or [`UnitHifiGan`], *optional*):
                The vocoder, or a file with one ([`~conversion.hifigan.read_hifigan`]).
            vocoder_config (`str`, `os.PathLike` or `dict`, *optional*):
                The JSON file that comes with a vocoder file, or its content.
            hubert_revision (`str`, *optional*, defaults to `"main"`):
                Revision of a HuBERT on the Hub.

        Returns:
            [`HubertUnitCodec`] in float32, in evaluation mode.

        Raises:
            ValueError: a part cannot be read, or two parts do not fit each other.
        """
        from . import conversion  # not at the top: as remote code, the codec works without the package

        if not isinstance(hubert, HubertModel):
            hubert = conversion.read_hubert(hubert, hubert_revision)
        if isinstance(kmeans, str | os.PathLike):
            kmeans = conversion.read_kmeans(kmeans)
        if isinstance(vocoder, str | os.PathLike):
            if vocoder_config is None:
                raise ValueError(f"{os.fspath(vocoder)!r} needs its configuration: pass `vocoder_config`.")
            vocoder = conversion.read_hifigan(vocoder, vocoder_config)
        codebook = torch.as_tensor(kmeans, dtype=torch.float32)
        if codebook.ndim != 2 or codebook.shape[1] != hubert.config.hidden_size:
            raise ValueError(
                f"The centroids have shape {tuple(codebook.shape)} and HuBERT's states {hubert.config.hidden_size} "
                "dimensions: take the k-means that was fitted on this model."
            )
        if not 1 <= layer <= hubert.config.num_hidden_layers:
            raise ValueError(
                f"`layer` must be from 1 to {hubert.config.num_hidden_layers}, HuBERT's last; got {layer}."
            )

        encoder_config = copy.deepcopy(hubert.config)
        encoder_config.num_hidden_layers = layer
        encoder_config._name_or_path = public_name(encoder_config._name_or_path)  # which is published with the codec
        config = HubertUnitCodecConfig(
            encoder_config=encoder_config,
            vocoder_config=None if vocoder is None else copy.deepcopy(vocoder.config),
            num_units=len(codebook),
        )
        codec = cls(config).eval()
        weights = hubert.state_dict()
        codec.encoder.load_state_dict({name: weights[name] for name in codec.encoder.state_dict()})
        codec.codebook.copy_(codebook)
        if vocoder is not None:
            codec.vocoder.load_state_dict(vocoder.state_dict())
        check_finite(codec, "the codec's parts")
        return codec

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the codec. One that was built, not loaded, has the name of this folder from now on."""
        super().save_pretrained(save_directory, **kwargs)
        self.name_or_path = self.name_or_path or os.fspath(save_directory)

    @property
    def sampling_rate(self) -> int:
        """`int`: Sampling rate of the audio, in Hz."""
        return self.config.sampling_rate

    @property
    def codebook_size(self) -> int:
        """`int`: Number of units."""
        return self.config.num_units

    @property
    def frame_rate(self) -> float:
        """`float`: Frames per second, under the name that transformers' codecs have for it."""
        return self.config.frame_rate

    def train(self, mode: bool = True) -> "HubertUnitCodec":
        """Set the training mode of the vocoder; the encoder defines the units and always stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def encode(
        self,
        input_values: torch.FloatTensor,
        padding_mask: torch.Tensor | None = None,
        batched: bool | None = None,
    ) -> HubertUnitCodecEncoderOutput:
        r"""
        Audio to one unit per frame. A clip of `n` samples has `n // config.hop_length` frames.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`):
                Mono audio at `sampling_rate`, between -1 and 1 and not normalised, padded on the right. A second
                of the longest clip takes about 20 MB in a HuBERT-base.
            padding_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for audio and 0 for padding; without it, all is audio.
            batched (`bool`, *optional*):
                Whether clips go through HuBERT in batches, in place of one by one. Defaults to `True` on an
                accelerator and `False` on a CPU.

        Returns:
            [`HubertUnitCodecEncoderOutput`]: `audio_codes` and `lengths`.

        Raises:
            ValueError: the audio has the wrong type or shape, the mask does not fit it, or a clip is empty, shorter
                than a frame, or holds NaN or infinite samples.
        """
        first_frame = self.config.receptive_field - 2 * self.config.pad
        clips = split_clips(input_values, padding_mask, min_samples=first_frame)
        if batched is None:
            batched = self.device.type != "cpu"
        with _full_float32(), torch.autocast(self.device.type, enabled=False):
            units = self._encode_batches(clips) if batched else [self._encode_clip(clip) for clip in clips]
        return HubertUnitCodecEncoderOutput(
            audio_codes=pad_sequence(units, batch_first=True, padding_value=-1)[:, None],
            lengths=_lengths(units),
        )

    @torch.no_grad()
    def decode(
        self,
        audio_codes: torch.LongTensor,
        durations: torch.LongTensor | None = None,
        speaker_id: int | torch.LongTensor | None = None,
        style_id: int | torch.LongTensor | None = None,
    ) -> HubertUnitCodecDecoderOutput:
        r"""
        Units to audio. Each sequence goes through the vocoder alone, as its convolutions would see padding.

        Args:
            audio_codes (`torch.LongTensor` of shape `(batch_size, 1, num_units)` or `(batch_size, num_units)`):
                Units, padded on the right with -1. Deduplicated, unless `durations` are given.
            durations (`torch.LongTensor` of shape `(batch_size, num_units)`, *optional*):
                Frames that each unit lasts; predicted where they are not given.
            speaker_id (`int` or `torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Speaker; defaults to the first one where the vocoder has several.
            style_id (`int` or `torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Style; defaults to the first one where the vocoder has several.

        Returns:
            [`HubertUnitCodecDecoderOutput`]: `audio_values` and `lengths`.

        Raises:
            ValueError: the codec has no vocoder, or the vocoder no duration predictor and there are no `durations`;
                a sequence is empty or holds a number that is not a unit; or a shape, speaker or style does not fit.
        """
        if self.vocoder is None:
            raise ValueError(
                "This codec has no vocoder and cannot make audio: build it with `HubertUnitCodec.from_parts(..., "
                "vocoder=..., vocoder_config=...)`, from a vocoder that was trained on these units."
            )
        sequences = split_units(audio_codes, self.config.num_units)
        if durations is None:
            durations = [self.vocoder.predict_durations(units[None])[0] for units in sequences]
        else:
            durations = split_durations(durations, sequences)
        speakers = _repeat(speaker_id, len(sequences))
        styles = _repeat(style_id, len(sequences))
        waveforms = [
            self.vocoder(units[None], frames[None], speaker, style)[0]
            for units, frames, speaker, style in zip(sequences, durations, speakers, styles, strict=True)
        ]
        return HubertUnitCodecDecoderOutput(
            audio_values=pad_sequence(waveforms, batch_first=True)[:, None], lengths=_lengths(waveforms)
        )

    def forward(
        self, input_values: torch.FloatTensor, padding_mask: torch.Tensor | None = None
    ) -> HubertUnitCodecOutput:
        r"""
        Audio to units and back, each frame as long as it was.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`):
                As for [`~HubertUnitCodec.encode`].
            padding_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                As for [`~HubertUnitCodec.encode`].

        Returns:
            [`HubertUnitCodecOutput`]: `audio_codes` and `audio_values`.
        """
        audio_codes = self.encode(input_values, padding_mask).audio_codes
        audio_values = self.decode(audio_codes, durations=torch.ones_like(audio_codes[:, 0])).audio_values
        return HubertUnitCodecOutput(audio_codes=audio_codes, audio_values=audio_values)

    @staticmethod
    def deduplicate(units: torch.LongTensor) -> tuple[torch.LongTensor, torch.LongTensor]:
        r"""
        Merge consecutive equal units.

        Args:
            units (`torch.LongTensor` of shape `(num_frames,)`):
                The unit of each frame, without padding.

        Returns:
            `tuple[torch.LongTensor, torch.LongTensor]` of shape `(num_units,)` each: the units, and how many frames
            each lasts.
        """
        if units.ndim != 1 or (units < 0).any():
            raise ValueError(
                f"Expected the units of one clip without padding (-1), got a tensor of {tuple(units.shape)}."
            )
        return torch.unique_consecutive(units, return_counts=True)

    def _encode_clip(self, clip: torch.Tensor) -> torch.LongTensor:
        """Units of shape `(num_frames,)` of a clip of shape `(num_samples,)`."""
        clip = clip.to(self.encoder.device, self.encoder.dtype)
        clip = nn.functional.pad(clip, (self.config.pad, self.config.pad))
        layer = self.config.layer
        states = self.encoder(clip[None], output_hidden_states=[layer]).hidden_states[layer][0]
        return self._nearest_centroids(states)

    def _encode_batches(self, clips: list[torch.Tensor]) -> list[torch.LongTensor]:
        """Units of shape `(num_frames,)` of each clip of shape `(num_samples,)`."""
        clips = [nn.functional.pad(clip, (self.config.pad, self.config.pad)) for clip in clips]
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            by_length[_padded_length(len(clip), self.config.hop_length)].append(index)
        units: list[torch.LongTensor] = [None] * len(clips)
        for length, indices in by_length.items():
            batch_size = max(1, _BATCH_SECONDS * self.config.sampling_rate // length)
            for start in range(0, len(indices), batch_size):
                chosen = indices[start : start + batch_size]
                # The last batch of a length is as large as the others: what is missing is silence.
                waveforms = self.codebook.new_zeros(batch_size, length)
                num_samples = torch.full((batch_size,), length)
                for row, index in enumerate(chosen):
                    waveforms[row, : len(clips[index])] = clips[index]
                    num_samples[row] = len(clips[index])
                num_samples = num_samples.to(waveforms.device)
                states, _ = hubert_states(self.encoder, waveforms.to(self.encoder.dtype), num_samples)
                codes = self._nearest_centroids(states.flatten(0, 1)).unflatten(0, states.shape[:2])
                for row, index in enumerate(chosen):
                    units[index] = codes[row, : self.config.num_frames(len(clips[index]))]
        return units

    def _nearest_centroids(self, states: torch.Tensor) -> torch.LongTensor:
        """The centroid with the least Euclidean distance to each of `states`, of shape `(num_frames, hidden_size)`."""
        if self.codebook.dtype != torch.float32:
            raise ValueError(
                f"The codebook was cast to {self.codebook.dtype}, which changes the units. Load the codec with "
                "`from_pretrained(..., dtype=...)`, which keeps the codebook in float32."
            )
        squares = self.codebook.square().sum(dim=1)
        chunks = states.to(self.codebook.device, torch.float32).split(_CHUNK_FRAMES)
        # |x - c|^2 less |x|^2, which is the same for all centroids.
        return torch.cat([torch.addmm(squares, chunk, self.codebook.T, alpha=-2).argmin(dim=1) for chunk in chunks])


def _padded_length(num_samples: int, hop_length: int) -> int:
    """Length in samples that a clip is padded to. There are few such lengths, so that batches have few shapes."""
    num_frames = -(-num_samples // hop_length)
    step = 2 ** max(0, num_frames.bit_length() - _STEPS_PER_OCTAVE.bit_length())
    return -(-num_frames // step) * step * hop_length


@contextmanager
def _full_float32() -> Iterator[None]:
    """Disable TF32 on NVIDIA GPUs: PyTorch uses it for float32 convolutions by default, and it changes units."""
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _repeat(index: int | torch.Tensor | None, count: int) -> list[torch.Tensor | None]:
    """One index for each of `count` sequences."""
    return [None] * count if index is None else list(torch.as_tensor(index).expand(count))


def _lengths(rows: list[torch.Tensor]) -> torch.LongTensor:
    return torch.tensor([len(row) for row in rows], device=rows[0].device)


__all__ = ["HubertUnitCodec"]
