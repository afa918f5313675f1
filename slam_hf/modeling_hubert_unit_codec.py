"""The unit codec: audio to the k-means units of a layer of HuBERT or another encoder, and units back to audio."""

import copy
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput, logging

from .configuration_hubert_unit_codec import HubertUnitCodecConfig, check_encoder_config
from .cuda_graphs import replay_layer_states
from .filter_bank import filter_bank_features, normalise
from .loading_utils import SafeLoadingMixin, check_finite
from .masked_hubert import can_mask
from .modeling_unit_hifigan import UnitHifiGan, Voice
from .padding_utils import (
    AudioBatch,
    UnitBatch,
    as_integers,
    copy_to,
    in_order,
    is_inside,
    make_batches,
    split_clips,
    split_durations,
    split_units,
)
from .public_names import public_name


logger = logging.get_logger(__name__)

_BATCH_SECONDS = 64
"""Least audio in a full batch on an accelerator. HuBERT-base takes 0.6 TFLOP for it: longer than the launch of its
kernels in float32, and little to waste where a batch is not full."""

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
        durations (`torch.LongTensor` of shape `(batch_size, num_units)`):
            Frames that each unit lasts, padded with 0.
    """

    audio_values: torch.FloatTensor | None = None
    lengths: torch.LongTensor | None = None
    durations: torch.LongTensor | None = None


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
    A codec between audio and discrete units. The encoder is a HuBERT (https://huggingface.co/papers/2106.07447) or
    another model with a hidden state for each frame ([`HubertUnitCodecConfig`]), up to the layer whose states a
    k-means codebook quantises. The decoder, which is optional, is a [`UnitHifiGan`].

    The units of a clip never depend on what else is in the batch. On a CPU each clip goes through the encoder alone
    and without padding, which is also the faster way there. On an accelerator clips share padded batches, and a masked
    forward keeps the padding out of their states ([`~masked_hubert.layer_states`]); an encoder that it does not know
    takes them one by one there too. As rounding may differ between batches of different shapes, the length of a clip
    alone decides the shape of its batch.

    `from_pretrained(..., dtype=torch.bfloat16)` is faster on a GPU. The codebook and the durations stay in float32,
    but the hidden states are rounded, which changes some units: with the quickstart codec those of 0.51 % of the
    frames of recordings of people, and of 0.28 % of its vocoder's. `hub_scripts/compare_units.py` counts them.

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
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ["codebook", "duration_predictor"]

    def __init__(self, config: HubertUnitCodecConfig):
        super().__init__(config)
        config.check()
        self.encoder = AutoModel.from_config(config.encoder_config, dtype=torch.get_default_dtype())
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
        hubert: str | os.PathLike | PreTrainedModel,
        kmeans: str | os.PathLike | torch.Tensor,
        layer: int,
        vocoder: str | os.PathLike | UnitHifiGan | None = None,
        vocoder_config: str | os.PathLike | Mapping[str, Any] | None = None,
        hubert_revision: str = "main",
        sampling_rate: int | None = None,
        do_normalize: bool | None = None,
        feature_stride: int | None = None,
    ) -> "HubertUnitCodec":
        r"""
        Build a codec from parts that were published or trained separately.

        Args:
            hubert (`str`, `os.PathLike` or [`~transformers.PreTrainedModel`]):
                The encoder, a HuBERT or one of the others that [`HubertUnitCodecConfig`] names: a Hub id, a folder, or
                the model itself. The layers above `layer` are left out.
            kmeans (`str`, `os.PathLike` or `torch.Tensor` of shape `(num_units, hidden_size)`):
                The centroids, or a file with a scikit-learn KMeans ([`~conversion.kmeans.read_kmeans`]).
            layer (`int`):
                The transformer layer that the centroids were fitted on, counted from 1: its output is
                `hidden_states[layer]` of the encoder with `output_hidden_states=True`, before any final layer norm.
            vocoder (`str`, `os.PathLike` or [`UnitHifiGan`], *optional*):
                The vocoder, or a file with one ([`~conversion.hifigan.read_hifigan`]).
            vocoder_config (`str`, `os.PathLike` or `dict`, *optional*):
                The JSON file that comes with a vocoder file, or its content.
            hubert_revision (`str`, *optional*, defaults to `"main"`):
                Revision of an encoder on the Hub.
            sampling_rate (`int`, *optional*):
                Sampling rate of the encoder's audio, in Hz. Defaults to that of the encoder's
                `preprocessor_config.json`, or to 16,000.
            do_normalize (`bool`, *optional*):
                Whether the clips that the k-means was fitted on were normalised. Defaults to what the encoder's
                `preprocessor_config.json` says; but to `False` for a HuBERT, as the published k-means were fitted.
            feature_stride (`int`, *optional*):
                As in [`HubertUnitCodecConfig`]. Defaults to that of `preprocessor_config.json`, or to 2.

        Returns:
            [`HubertUnitCodec`] in float32, in evaluation mode.

        Raises:
            ValueError: a part cannot be read, or two parts do not fit each other.
        """
        from . import conversion  # not at the top: as remote code, the codec works without the package

        preprocessor: dict[str, Any] = {}
        if not isinstance(hubert, PreTrainedModel):
            preprocessor = conversion.read_preprocessor(hubert, hubert_revision)
            hubert = conversion.read_hubert(hubert, hubert_revision)
        check_encoder_config(hubert.config)
        if isinstance(kmeans, str | os.PathLike):
            kmeans = conversion.read_kmeans(kmeans)
        if isinstance(vocoder, str | os.PathLike):
            if vocoder_config is None:
                raise ValueError(f"{os.fspath(vocoder)!r} needs its configuration: pass `vocoder_config`.")
            vocoder = conversion.read_hifigan(vocoder, vocoder_config)
        codebook = torch.as_tensor(kmeans, dtype=torch.float32)
        name = "HuBERT" if hubert.config.model_type == "hubert" else hubert.config.model_type
        if codebook.ndim != 2 or codebook.shape[1] != hubert.config.hidden_size:
            raise ValueError(
                f"The centroids have shape {tuple(codebook.shape)} and {name}'s states {hubert.config.hidden_size} "
                "dimensions: take the k-means that was fitted on this model."
            )
        if not 1 <= layer <= hubert.config.num_hidden_layers:
            raise ValueError(
                f"`layer` must be from 1 to {hubert.config.num_hidden_layers}, {name}'s last; got {layer}."
            )

        encoder_config = copy.deepcopy(hubert.config)
        encoder_config.num_hidden_layers = layer
        for above in ("add_adapter", "use_intermediate_ffn_before_adapter"):
            if getattr(encoder_config, above, False):
                setattr(encoder_config, above, False)
        encoder_config._name_or_path = public_name(encoder_config._name_or_path)  # which is published with the codec
        if do_normalize is None:
            do_normalize = hubert.config.model_type != "hubert" and preprocessor.get("do_normalize", False)
        config = HubertUnitCodecConfig(
            encoder_config=encoder_config,
            vocoder_config=None if vocoder is None else copy.deepcopy(vocoder.config),
            num_units=len(codebook),
            sampling_rate=sampling_rate or preprocessor.get("sampling_rate", 16_000),
            do_normalize=do_normalize,
            feature_stride=feature_stride or preprocessor.get("stride", 2),
        )
        codec = cls(config).eval()
        weights = hubert.state_dict()
        codec.encoder.load_state_dict({name: weights[name] for name in codec.encoder.state_dict()})
        codec.codebook.copy_(codebook)
        if vocoder is not None:
            codec.vocoder.load_state_dict(vocoder.state_dict())
        check_finite(codec, "the codec's parts")
        if not can_mask(hubert.config):
            codec._check_states(hubert)
        return codec

    @torch.no_grad()
    def _check_states(self, whole: PreTrainedModel) -> None:
        """Raise a `ValueError` if the states of an unknown encoder are not those of the whole model, one a frame."""
        clip, layer = torch.randn(1, self.sampling_rate, generator=torch.Generator().manual_seed(0)), self.config.layer
        _, ((states,),) = next(self._states([clip[0]], [layer], batched=False))
        was_training = whole.training
        inputs, _ = self._inputs(clip, torch.tensor([clip.shape[1]]))
        output = whole.eval()(inputs.to(whole.device, whole.dtype), output_hidden_states=True)
        whole.train(was_training)
        expected = output.hidden_states[layer][0].to("cpu", torch.float32)
        shape = (self.config.num_frames(self.sampling_rate + 2 * self.config.pad), self.codebook.shape[1])
        if states.shape != shape or expected.shape != shape:
            raise ValueError(
                f"A {whole.config.model_type!r} makes states of shape {tuple(expected.shape)} of a second, and a "
                f"codec needs {shape}, one for each frame of its convolutions."
            )
        if not torch.allclose(states, expected, rtol=0, atol=0.01 * expected.std().item()):
            raise ValueError(
                f"A {whole.config.model_type!r} without the layers above {layer} has other states in this layer: it "
                "cannot be cut there. Take another layer or encoder."
            )

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

    def _apply(self, fn: Callable, recurse: bool = True) -> "HubertUnitCodec":
        for module in self.encoder.modules():
            if hasattr(module, "cached_sequence_length"):  # rotary positions, which are cached by their length alone
                module.cached_sequence_length = None
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "HubertUnitCodec":
        """Set the training mode of the vocoder; the encoder defines the units and always stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def encode(
        self,
        input_values: AudioBatch,
        padding_mask: torch.Tensor | np.ndarray | None = None,
        batched: bool | None = None,
    ) -> HubertUnitCodecEncoderOutput:
        r"""
        Audio to one unit per frame. A clip of `n` samples has `n // config.hop_length` frames.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`):
                Mono audio at `sampling_rate`, between -1 and 1 and not normalised, padded on the right. A second
                of the longest clip takes about 20 MB in a HuBERT-base, and a batch of an accelerator 1 to 3 GB. A
                list of clips of shape `(num_samples,)` needs no padding and no mask. Tensors, arrays or lists.
            padding_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for audio and 0 for padding; without it, all is audio.
            batched (`bool`, *optional*):
                Whether clips go through the encoder in batches, in place of one by one. Defaults to `True` on an
                accelerator and `False` on a CPU. A batch that is not full takes as long as a full one: for a single
                clip, `False` is faster, and may round differently.

        Returns:
            [`HubertUnitCodecEncoderOutput`]: `audio_codes` and `lengths`.

        Raises:
            ValueError: the audio has the wrong type or shape, the mask does not fit it, or a clip is empty, shorter
                than a frame, or holds NaN or infinite samples.
        """
        clips = self._split_clips(input_values, padding_mask)
        lengths = [self.config.num_frames(len(clip) + 2 * self.config.pad) for clip in clips]
        units, order = [], []
        with _full_float32(self.device):
            for indices, (states,) in self._states(clips, [self.config.layer], batched):
                units.append(self._nearest_centroids(states.flatten(0, 1)).unflatten(0, states.shape[:2]))
                order.append(indices)
        units = in_order(units, order, max(lengths))
        lengths = copy_to(torch.tensor(lengths), units.device)
        units = units.where(is_inside(lengths, units.shape[1]), -1)
        return HubertUnitCodecEncoderOutput(audio_codes=units[:, None], lengths=lengths)

    @torch.no_grad()
    def hidden_states(
        self,
        input_values: AudioBatch,
        padding_mask: torch.Tensor | np.ndarray | None = None,
        layers: Sequence[int] | None = None,
        batched: bool | None = None,
    ) -> list[torch.FloatTensor]:
        r"""
        The encoder's states of each frame, which the codebook quantises.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, 1, num_samples)` or `(batch_size, num_samples)`):
                As for [`~HubertUnitCodec.encode`].
            padding_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                As for [`~HubertUnitCodec.encode`].
            layers (`Sequence[int]`, *optional*):
                Layers, counted from 1. Defaults to the codec's.
            batched (`bool`, *optional*):
                As for [`~HubertUnitCodec.encode`].

        Returns:
            `list[torch.FloatTensor]`: for each clip, the states of shape `(num_layers, num_frames, hidden_size)`.
        """
        clips = self._split_clips(input_values, padding_mask)
        states: list[torch.FloatTensor] = [None] * len(clips)
        with _full_float32(self.device):
            for indices, batch in self._states(clips, layers or [self.config.layer], batched):
                for row, index in enumerate(indices):
                    length = self.config.num_frames(len(clips[index]) + 2 * self.config.pad)
                    states[index] = torch.stack([layer[row, :length] for layer in batch])
        return states

    @torch.no_grad()
    def decode(
        self,
        audio_codes: UnitBatch,
        durations: UnitBatch | None = None,
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
        batched: bool | None = None,
    ) -> HubertUnitCodecDecoderOutput:
        r"""
        Units to audio. The waveform of a sequence never depends on what else is in the batch.

        Args:
            audio_codes (`torch.LongTensor` of shape `(batch_size, 1, num_units)` or `(batch_size, num_units)`):
                Units, padded on the right with -1. Deduplicated, unless `durations` are given. A tensor, an array,
                or a list of sequences, which needs no padding.
            durations (`torch.LongTensor` of shape `(batch_size, num_units)`, *optional*):
                Frames that each unit lasts; predicted where they are not given.
            speaker_id, style_id (`int`, `str`, or a list or `torch.LongTensor`, one for each sequence, *optional*):
                Speaker and style, by number or name; by default the first ones, where the vocoder has several.
            batched (`bool`, *optional*):
                Whether sequences go through the vocoder in batches, in place of one by one. Defaults to `True` on an
                accelerator and `False` on a CPU.

        Returns:
            [`HubertUnitCodecDecoderOutput`]: `audio_values`, `lengths` and `durations`.

        Raises:
            ValueError: the codec has no vocoder, or the vocoder no duration predictor and there are no `durations`;
                a sequence is empty or holds a number that is not a unit; or a shape, speaker or style does not fit.
        """
        sequences = split_units(audio_codes, self.config.num_units, self.device)
        voices = self.find_voices(speaker_id, style_id, len(sequences))
        batched = self._is_batched(batched)
        if durations is not None:
            durations = split_durations(durations, sequences)
        else:
            durations = self._predict_durations(sequences, batched)
        num_frames = torch.stack([row.sum() for row in durations]).tolist()
        frames = [
            units.repeat_interleave(row, output_size=total)
            for units, row, total in zip(sequences, durations, num_frames, strict=True)
        ]
        shapes = [self._batch_shape(total) if batched else (1, total) for total in num_frames]
        waveforms, order = [], []
        with _without_tf32():
            for indices, units, lengths in make_batches(frames, shapes, self.device):
                rows = [*indices, *[indices[0]] * (len(units) - len(indices))]
                speakers, styles = ([ids[row] for row in rows] for ids in voices)
                if batched:
                    waveforms.append(self.vocoder.generate_padded(units, lengths, speakers, styles))
                else:
                    waveforms.append(self.vocoder(units, torch.ones_like(units), speakers, styles))
                order.append(indices)
        lengths = torch.tensor(num_frames) * self.config.hop_length
        waveforms = in_order(waveforms, order, max(num_frames) * self.config.hop_length)
        return HubertUnitCodecDecoderOutput(
            audio_values=waveforms[:, None],
            lengths=copy_to(lengths, waveforms.device),
            durations=pad_sequence(durations, batch_first=True),
        )

    @torch.no_grad()
    def predict_durations(self, units: torch.Tensor | np.ndarray | Sequence[int]) -> torch.LongTensor:
        r"""
        How long [`~HubertUnitCodec.decode`] makes each unit last.

        Args:
            units (`torch.LongTensor` of shape `(num_units,)`):
                Deduplicated units of one sequence: a tensor, an array or a list.

        Returns:
            `torch.LongTensor` of shape `(num_units,)`: frames per unit, at least one.

        Raises:
            ValueError: the codec has no vocoder, or the vocoder no duration predictor; or these are not units.
        """
        self.check_vocoder()
        units = as_integers(units, "units")
        if units.ndim != 1:
            raise ValueError(f"`units` must have shape (num_units,), got {tuple(units.shape)}.")
        sequences = split_units(units[None], self.config.num_units, self.device)
        return self._predict_durations(sequences, batched=False)[0]

    def find_voices(
        self, speaker_id: Voice | None, style_id: Voice | None, count: int
    ) -> tuple[list[int | None], list[int | None]]:
        """The numbers of the speakers and of the styles of `count` sequences, as [`UnitHifiGan.find_voices`] gives
        them. A `ValueError` also says that the codec has no vocoder."""
        self.check_vocoder()
        return self.vocoder.find_voices(speaker_id, style_id, count)

    def check_vocoder(self, with_durations: bool = False) -> None:
        """Raise `ValueError` if the codec has no vocoder, or, `with_durations`, one that does not predict them."""
        if self.vocoder is None:
            raise ValueError(
                "This codec has no vocoder and cannot make audio: build it with `HubertUnitCodec.from_parts(..., "
                "vocoder=..., vocoder_config=...)`, from a vocoder that was trained on these units."
            )
        if with_durations and self.vocoder.duration_predictor is None:
            raise ValueError(
                "The codec's vocoder does not predict durations, and a model's units have none: take a codec whose "
                "vocoder does."
            )

    def forward(
        self, input_values: AudioBatch, padding_mask: torch.Tensor | np.ndarray | None = None
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
    def deduplicate(units: torch.Tensor | np.ndarray | Sequence[int]) -> tuple[torch.LongTensor, torch.LongTensor]:
        r"""
        Merge consecutive equal units.

        Args:
            units (`torch.LongTensor` of shape `(num_frames,)`):
                The unit of each frame, without padding: a tensor, an array or a list.

        Returns:
            `tuple[torch.LongTensor, torch.LongTensor]` of shape `(num_units,)` each: the units, and how many frames
            each lasts.
        """
        units = as_integers(units, "units")
        if units.ndim != 1 or (units < 0).any():
            raise ValueError(
                f"Expected the units of one clip without padding (-1), got a tensor of {tuple(units.shape)}."
            )
        return torch.unique_consecutive(units, return_counts=True)

    def _split_clips(
        self, input_values: AudioBatch, padding_mask: torch.Tensor | np.ndarray | None
    ) -> list[torch.Tensor]:
        """The clips of a batch, normalised if the encoder wants it. Each has at least a frame."""
        min_samples = self.config.receptive_field - 2 * self.config.pad
        clips = split_clips(input_values, padding_mask, min_samples)
        return list(map(normalise, clips)) if self.config.do_normalize else clips

    def batch_shape(self, num_samples: int, batched: bool | None = None) -> tuple[int, int]:
        r"""
        The batch in which [`~HubertUnitCodec.encode`] runs a clip. Clips whose batch has the same shape share it.

        Args:
            num_samples (`int`):
                Samples of the clip.
            batched (`bool`, *optional*):
                As for [`~HubertUnitCodec.encode`].

        Returns:
            `tuple[int, int]`: the number of clips in a full batch, and that of samples which each is padded to.
        """
        if not self._is_batched(batched) or not self._can_batch():
            return 1, num_samples
        count, num_frames = self._batch_shape(math.ceil(num_samples / self.config.hop_length))
        return count, num_frames * self.config.hop_length

    def _is_batched(self, batched: bool | None) -> bool:
        return self.device.type != "cpu" if batched is None else batched

    def _can_batch(self) -> bool:
        if not can_mask(self.config.encoder_config):
            logger.warning_once(
                f"How padding changes the states of a {self.config.encoder_config.model_type!r} is not known: clips "
                "go through the encoder one by one, which gives exact units but leaves most of an accelerator idle."
            )
            return False
        return True

    def _batch_shape(self, num_frames: int) -> tuple[int, int]:
        """The batch of an accelerator, in frames. There are few shapes, as rounding depends on the shape."""
        step = 2 ** max(0, num_frames.bit_length() - _STEPS_PER_OCTAVE.bit_length())
        padded = math.ceil(num_frames / step) * step
        return math.ceil(_BATCH_SECONDS * self.config.frame_rate / padded), padded

    def _states(
        self, clips: list[torch.Tensor], layers: Sequence[int], batched: bool | None
    ) -> Iterator[tuple[list[int], list[torch.FloatTensor]]]:
        """The indices of the clips of a batch, and for each layer their states, of shape
        `(batch_size, num_frames, hidden_size)`, where `batch_size` may be larger than the number of clips."""
        batched = self._is_batched(batched) and self._can_batch()
        shapes = [self.batch_shape(len(clip), batched) for clip in clips]
        for indices, waveforms, lengths in make_batches(clips, shapes, self.device):
            inputs, lengths = self._inputs(waveforms, lengths)
            if batched:
                yield indices, replay_layer_states(self.encoder, inputs, lengths, layers)
            else:
                states = self.encoder(inputs, output_hidden_states=list(layers)).hidden_states
                yield indices, [states[layer] for layer in layers]

    def _inputs(self, waveforms: torch.Tensor, lengths: torch.LongTensor) -> tuple[torch.Tensor, torch.LongTensor]:
        """What the encoder takes of a batch of clips, and how much of it belongs to each."""
        config = self.config
        waveforms, lengths = nn.functional.pad(waveforms, (config.pad, config.pad)), lengths + 2 * config.pad
        if config.takes_filter_bank:
            num_features = config.encoder_config.feature_projection_input_dim
            waveforms, lengths = filter_bank_features(
                waveforms, lengths, num_features, config.feature_stride, config.sampling_rate
            )
        return waveforms.to(self.encoder.dtype), lengths

    def _predict_durations(self, sequences: list[torch.LongTensor], batched: bool) -> list[torch.LongTensor]:
        """Frames that each unit of the sequences lasts."""
        shapes = [self._batch_shape(len(units)) if batched else (1, len(units)) for units in sequences]
        durations: list[torch.LongTensor] = [None] * len(sequences)
        with _full_float32(self.device):
            for indices, units, lengths in make_batches(sequences, shapes, self.device):
                mask = is_inside(lengths, units.shape[1]) if batched else None
                for row, index in zip(self.vocoder.predict_durations(units, mask), indices, strict=False):
                    durations[index] = row[: len(sequences[index])]
        return durations

    def _nearest_centroids(self, states: torch.Tensor) -> torch.LongTensor:
        """The centroid with the least Euclidean distance to each of `states`, of shape `(num_frames, hidden_size)`."""
        if self.codebook.dtype != torch.float32:
            raise ValueError(
                f"The codebook was cast to {self.codebook.dtype}, which changes the units. Load the codec with "
                "`from_pretrained(..., dtype=...)`, which keeps the codebook in float32."
            )
        chunks = states.to(self.codebook.device, torch.float32).split(_CHUNK_FRAMES)
        with _full_float32(states.device):
            squares = self.codebook.square().sum(dim=1)
            # |x - c|^2 less |x|^2, which is the same for all centroids.
            return torch.cat([torch.addmm(squares, rows, self.codebook.T, alpha=-2).argmin(dim=1) for rows in chunks])


class _WithoutTF32:
    """
    Compute in float32 what is in float32: PyTorch uses TF32 for convolutions on NVIDIA GPUs by default. The settings
    are those of the process: the first of several threads changes them, and the last one restores them.
    """

    def __init__(self):
        self._lock, self._count = threading.Lock(), 0
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._count == 0:
                self._restore = self._change()
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    self._restore()

    @staticmethod
    def _change() -> Callable[[], None]:
        """Change the settings, and return what restores them."""
        cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
        backends = (cudnn.conv, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul)
        before, matmul_precision = [backend.fp32_precision for backend in backends], None
        with suppress(RuntimeError):  # where the newer settings alone were changed
            matmul_precision = torch.get_float32_matmul_precision()
        if matmul_precision is not None:  # the older setting, which PyTorch compares with the newer ones
            torch.set_float32_matmul_precision("highest")
        for backend in backends:
            backend.fp32_precision = "ieee"

        def restore() -> None:
            if matmul_precision is not None:
                torch.set_float32_matmul_precision(matmul_precision)
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision

        return restore


_without_tf32 = _WithoutTF32()


@contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    """Disable TF32 and autocast, which would change units and durations."""
    with _without_tf32(), torch.autocast(device.type, enabled=False):
        yield


__all__ = ["HubertUnitCodec"]
