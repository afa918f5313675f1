"""Audio to the ids of a speech language model and back, through the unit codec that the model was trained on."""

import copy
import os
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch.nn.utils.rnn import pad_sequence
from transformers import EncodecFeatureExtractor
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.processing_utils import AUDIO_TOKENIZER_KWARGS, ProcessorMixin
from transformers.tokenization_utils_base import BatchEncoding

from .configuration_hubert_unit_codec import HubertUnitCodecConfig, make_feature_extractor
from .configuration_speech_lm import SpeechLMConfig
from .loading_utils import ACCESS, naming_damaged_files
from .modeling_hubert_unit_codec import HubertUnitCodec
from .modeling_unit_hifigan import Voice
from .public_names import PREFIX
from .tokenization_hubert_unit import HubertUnitTokenizer, UnitTokenizer
from .tokenization_speech_text import SpeechTextTokenizer
from .unit_vocabulary import SPEECH_TEXT_TOKENIZER, UNIT_TOKENIZER, holds_text


QUICKSTART_CODEC = f"{PREFIX}codec"
"""The codec that comes with the package."""


BASE_CLASSES = ("FeatureExtractionMixin", "PreTrainedTokenizerBase", "MistralCommonBackend")
"""What transformers checks the parts of a processor against."""


class SpeechLMProcessor(ProcessorMixin):
    r"""
    Processor of [`SpeechLMForCausalLM`]: audio → units → ids, and ids → units → audio. For models of text and speech,
    also text → ids.

    It also loads from a repository without processor files, such as the published Slam checkpoints. It then has no
    codec: set `processor.audio_tokenizer` before using it on audio.

    Args:
        feature_extractor ([`~transformers.EncodecFeatureExtractor`]):
            Describes the waveforms: mono, at the sampling rate of the codec.
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            Units, or text and units, to ids.
        audio_tokenizer ([`HubertUnitCodec`], *optional*):
            The codec.
        codec (`dict`, *optional*):
            Where the codec is: its `name_or_path` (a Hub id, a folder or `quickstart:codec`) and, on the Hub, its
            `revision`. It is loaded when it is first needed, unless `audio_tokenizer` has been set by then.
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        feature_extractor: EncodecFeatureExtractor,
        tokenizer: UnitTokenizer,
        audio_tokenizer: HubertUnitCodec | None = None,
        codec: dict[str, Any] | None = None,
    ):
        # The codec is not passed on: the mixin only accepts three codec classes of transformers.
        super().__init__(feature_extractor, tokenizer)
        self._audio_tokenizer = audio_tokenizer
        self._codec_reference = codec
        self._codec_access = {}

    @property
    def audio_tokenizer(self) -> HubertUnitCodec | None:
        """
        [`HubertUnitCodec`]: The codec, or `None` where there is none.

        Raises:
            OSError: the codec that the processor names cannot be loaded.
        """
        if self._audio_tokenizer is None and self._codec_reference is not None:
            name = self._codec_reference["name_or_path"]
            try:
                self._audio_tokenizer = load_codec(name, self._codec_reference.get("revision"), **self._codec_access)
            except OSError as error:
                raise OSError(
                    f"The model's processor names the codec '{name}', which cannot be loaded. Pass `codec=`, or set "
                    "`processor.audio_tokenizer`, to that codec where it is now."
                ) from error
        return self._audio_tokenizer

    @audio_tokenizer.setter
    def audio_tokenizer(self, codec: HubertUnitCodec | None):
        self._audio_tokenizer, self._codec_reference = codec, None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> "SpeechLMProcessor":
        """
        As for every processor. Only the name and the revision of the codec are read from `processor_config.json`.

        Raises:
            ValueError: [`check_codec_reference`] refuses what it says about the codec, or a file is damaged.
        """
        with naming_damaged_files(pretrained_model_name_or_path):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if kwargs.get("return_unused_kwargs") else loaded
        processor._codec_access = {key: kwargs[key] for key in AUDIO_TOKENIZER_KWARGS if key in kwargs}
        return loaded

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        # Not with the Auto classes, which read the names of classes from the files of the repository.
        saved = (processor_dict or {}).get("feature_extractor") or {}
        tokenizer = load_tokenizer(pretrained_model_name_or_path, **kwargs)
        return [make_feature_extractor(saved.get("sampling_rate", 16_000)), tokenizer]

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        processor_dict, unused_kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if processor_dict.get("codec") is not None:
            is_local = os.path.exists(pretrained_model_name_or_path)
            processor_dict["codec"] = check_codec_reference(
                processor_dict["codec"], f"{pretrained_model_name_or_path}: processor_config.json", is_local
            )
        return processor_dict, unused_kwargs

    @staticmethod
    def get_possibly_dynamic_module(module_name: str) -> type:
        """
        As for every processor, for the classes that the parts of this one are checked against.

        Raises:
            ValueError: the class is another one, such as the `audio_tokenizer` of a `processor_config.json`: its key
                would let the file choose a class, and a model without a revision.
        """
        if module_name not in BASE_CLASSES:
            raise ValueError(
                f"processor_config.json names the class {module_name!r}. It may only name a codec, as `codec`: pass "
                "the codec that the model was trained on, `codec=`."
            )
        return ProcessorMixin.get_possibly_dynamic_module(module_name)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> Any:
        """
        As for every processor. The files name the codec, but do not hold it.

        Raises:
            ValueError: the codec was neither loaded nor saved before, so that it has no name.
        """
        if self._audio_tokenizer is not None and not self._audio_tokenizer.name_or_path:
            raise ValueError(
                "The codec has no name that `processor_config.json` could give, because it was neither loaded nor "
                "saved. Save it first: `processor.audio_tokenizer.save_pretrained(folder)`."
            )
        return super().save_pretrained(save_directory, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        without_codec = copy.copy(self)  # transformers would copy the codec, with its weights
        without_codec._audio_tokenizer = None
        output = super(SpeechLMProcessor, without_codec).to_dict()
        codec, reference = self._audio_tokenizer, self._codec_reference
        if codec is not None:
            reference = {"name_or_path": codec.name_or_path, "revision": getattr(codec.config, "_commit_hash", None)}
        if reference is not None:
            output["codec"] = {"name_or_path": reference["name_or_path"], "revision": reference.get("revision")}
        return output

    def __call__(
        self,
        audio: np.ndarray | list[np.ndarray | str | list[np.ndarray | str]] | None = None,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        text: str | list[str] | None = None,
        output_modality: Literal["speech", "text"] | None = None,
    ) -> BatchEncoding:
        r"""
        Make prompts for the model: `<S>` and the deduplicated units of each waveform; for models of text and speech,
        what [`SpeechTextTokenizer.encode_prompt`] makes of texts and units.

        Args:
            audio (`np.ndarray` of shape `(samples,)`, or a list of prompts):
                Mono waveforms, float, as arrays, tensors or lists. For models of text and speech, each prompt in a
                list is a waveform, a text, or a list of both.
            sampling_rate (`int`, *optional*):
                The sampling rate of the waveforms, in Hz; it must be the codec's.
            padding (`bool` or `str`, *optional*, defaults to `True`):
                As for any tokenizer.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                As for any tokenizer.
            text (`str`, or a list of them, *optional*):
                Texts, in place of `audio`.
            output_modality (`"speech"` or `"text"`, *optional*):
                For models of text and speech: what is to follow. Its modality token ends the prompts.

        Returns:
            [`~transformers.BatchEncoding`] with `input_ids` and `attention_mask` of shape `(batch, length)`.

        Raises:
            ValueError: there is no codec, the sampling rate is wrong, or the codec cannot encode a waveform; or the
                model has no text, and the prompt or `output_modality` has.
        """
        if (audio is None) == (text is None):
            raise ValueError("Pass prompts as `audio`, or texts as `text`: one of the two.")
        prompts = audio if text is None else text
        prompts = [[prompts]] if _is_part(prompts) else [[one] if _is_part(one) else one for one in prompts]
        if not self.tokenizer.has_text and (
            output_modality == "text" or any(len(p) != 1 or isinstance(p[0], str) for p in prompts)
        ):
            raise ValueError(
                "The model has a vocabulary of units alone: it takes and gives speech, one recording a prompt. Text "
                "needs a model of text and speech, such as slprl/SIMS-Llama3.2-3B."
            )
        parts = self.encode_audio(prompts, sampling_rate)
        if not self.tokenizer.has_text:
            units = [prompt[0] for prompt in parts]
            return self.tokenizer.encode_units(units, padding=padding, return_tensors=return_tensors)
        input_ids = [self.tokenizer.encode_prompt(prompt, output_modality) for prompt in parts]
        return self.tokenizer.pad({"input_ids": input_ids}, padding=padding, return_tensors=return_tensors)

    def encode_audio(
        self, prompts: Sequence[Sequence[np.ndarray | torch.LongTensor | str]], sampling_rate: int | None
    ) -> list[list[torch.LongTensor | str]]:
        """Prompts with the deduplicated units of each waveform in its place. All are encoded together. Texts, and what
        has been encoded before, stay as they are."""
        waveforms = [part for prompt in prompts for part in prompt if not _is_encoded(part)]
        units = iter(self._encode(waveforms, sampling_rate) if waveforms else [])
        return [[part if _is_encoded(part) else next(units) for part in prompt] for prompt in prompts]

    def _encode(self, waveforms: list[np.ndarray], sampling_rate: int | None) -> list[torch.LongTensor]:
        codec = self.require_codec()
        if sampling_rate != codec.sampling_rate:
            raise ValueError(
                "Pass `sampling_rate`, that of the waveforms in Hz. It must be the sampling rate of the codec, "
                f"{codec.sampling_rate}; got {sampling_rate}."
            )
        encoded = codec.encode(waveforms)
        codes, lengths = encoded.audio_codes[:, 0].cpu(), encoded.lengths.tolist()
        return [codec.deduplicate(row[:length])[0] for row, length in zip(codes, lengths, strict=True)]

    def decode(
        self,
        input_ids: torch.LongTensor | np.ndarray | list[int],
        speaker_id: int | str | None = None,
        style_id: int | str | None = None,
    ) -> np.ndarray:
        r"""
        Make the waveform of a sequence of ids. The vocoder predicts the durations; `<S>` and `<PAD>` are left out.

        Args:
            input_ids (`torch.LongTensor`, `np.ndarray` or `list[int]` of shape `(length,)`):
                The sequence.
            speaker_id, style_id (`int` or `str`, *optional*):
                Who speaks and in which style, by number or name; by default the first ones, where there are several.

        Returns:
            `np.ndarray` of shape `(samples,)`, float32, at the codec's sampling rate.

        Raises:
            ValueError: there is no codec, it has no vocoder, an id is outside the vocabulary, or the vocoder does not
                have the speaker or the style.
        """
        return self.batch_decode([input_ids], speaker_id, style_id)[0]

    def batch_decode(
        self,
        input_ids: torch.LongTensor | list[Any],
        speaker_id: Voice | None = None,
        style_id: Voice | None = None,
        return_durations: bool = False,
    ) -> list[np.ndarray] | tuple[list[np.ndarray], list[np.ndarray]]:
        """Make the waveforms of a batch of sequences, each as [`~SpeechLMProcessor.decode`] does, at once.
        `speaker_id` and `style_id` are for all of them, or lists with one for each. With `return_durations` also how
        many frames each unit of each sequence lasts, int64."""
        codec = self.require_codec()
        units = self.tokenizer.decode_units(input_ids)
        if not isinstance(units, list) and len(input_ids):
            raise ValueError("`input_ids` must be a list of sequences: decode a single one with `decode`.")
        units = list(map(torch.from_numpy, units))
        waveforms = [np.zeros(0, dtype=np.float32)] * len(units)
        durations = [np.zeros(0, dtype=np.int64)] * len(units)
        if spoken := [index for index, sequence in enumerate(units) if len(sequence)]:
            batch = pad_sequence([units[index] for index in spoken], batch_first=True, padding_value=-1)
            voices = codec.find_voices(speaker_id, style_id, len(units))
            speakers, styles = ([ids[index] for index in spoken] for ids in voices)
            decoded = codec.decode(batch, speaker_id=speakers, style_id=styles)
            audio, lengths = decoded.audio_values[:, 0].float().cpu().numpy(), decoded.lengths.tolist()
            frames = decoded.durations.cpu().numpy()
            for index, waveform, length, row in zip(spoken, audio, lengths, frames, strict=True):
                waveforms[index] = waveform[:length].copy()  # not a view of all of them
                durations[index] = row[: len(units[index])].copy()
        return (waveforms, durations) if return_durations else waveforms

    def require_codec(self) -> HubertUnitCodec:
        """The codec; `ValueError` if there is none, or if it does not fit the tokenizer or the feature extractor."""
        codec = self.audio_tokenizer
        if codec is None:
            raise ValueError(
                "This processor has no unit codec, which audio needs. Set it to the codec that the model was trained "
                "on: `processor.audio_tokenizer = HubertUnitCodec.from_pretrained(...)`."
            )
        check_codec(codec, self.tokenizer.num_units)
        if self.feature_extractor.sampling_rate != codec.sampling_rate:
            raise ValueError(
                f"The processor's feature extractor is set to {self.feature_extractor.sampling_rate!r} Hz and its "
                f"codec to {codec.sampling_rate} Hz: correct `sampling_rate` in processor_config.json."
            )
        return codec


def _is_encoded(part: Any) -> bool:
    """Whether a part of a prompt is a text or units, and not a waveform."""
    return isinstance(part, str) or (isinstance(part, torch.Tensor) and part.dtype == torch.long)


def _is_part(prompt: Any) -> bool:
    """Whether this is a text or a waveform, which may be a list of numbers, and not a list of them."""
    if not isinstance(prompt, list | tuple):
        return True
    return len(prompt) > 0 and not isinstance(prompt[0], str | list | tuple) and np.ndim(prompt[0]) == 0


def load_tokenizer(name: str | os.PathLike, **kwargs: Any) -> UnitTokenizer:
    """Load the tokenizer that the files of a repository name, or that follows from its configuration."""
    access = {key: kwargs[key] for key in (*ACCESS, "revision", "subfolder") if kwargs.get(key) is not None}
    named = get_tokenizer_config(name, **access).get("tokenizer_class")
    if named not in (UNIT_TOKENIZER, SPEECH_TEXT_TOKENIZER):
        config, _ = SpeechLMConfig.get_config_dict(name, **access)
        named = SPEECH_TEXT_TOKENIZER if config.get("vocab_size") and holds_text(config) else UNIT_TOKENIZER
    tokenizer_class = SpeechTextTokenizer if named == SPEECH_TEXT_TOKENIZER else HubertUnitTokenizer
    return tokenizer_class.from_pretrained(name, **kwargs)


def load_codec(name_or_path: str | os.PathLike, revision: str | None = None, **kwargs: Any) -> HubertUnitCodec:
    """Load a codec as `HubertUnitCodec.from_pretrained` does, by default from `main`."""
    return HubertUnitCodec.from_pretrained(name_or_path, revision=revision or "main", **kwargs)


def check_codec(codec: HubertUnitCodec | HubertUnitCodecConfig, num_units: int) -> None:
    """Raise `ValueError` if a codec and a model have different numbers of units."""
    if codec.codebook_size != num_units:
        name = f" '{codec.name_or_path}'" if codec.name_or_path else ""
        raise ValueError(
            f"The codec{name} has {codec.codebook_size} units and the model {num_units}. Pass the codec that the "
            "model was trained on, `codec=` in Python or `--codec` in a script."
        )


def check_codec_reference(reference: Any, source: str, is_local: bool) -> dict[str, str | None]:
    """
    Check what a file says about a codec: it may give a `name_or_path` and a `revision` (commit, branch or tag), and
    nothing else. Only a file of this machine (`is_local`) may name a folder. Otherwise a `ValueError` names the file.
    """
    if not isinstance(reference, dict) or not {"name_or_path"} <= reference.keys() <= {"name_or_path", "revision"}:
        raise ValueError(
            f"{source}: `codec` must have `name_or_path`, may have `revision`, and nothing else: {reference!r}."
        )
    name, revision = reference["name_or_path"], reference.get("revision")
    if not (name == QUICKSTART_CODEC or (is_local and isinstance(name, str) and name) or _is_repository(name)):
        raise ValueError(
            f"{source}: the codec {name!r} is not named by a repository of the Hub, `user/codec`. A model on the Hub "
            "may not name files of this machine."
        )
    if not is_local and os.path.exists(name):
        raise ValueError(
            f"{source}: the codec {name!r} on the Hub is hidden by the folder '{os.path.abspath(name)}'. Change to "
            "another working directory."
        )
    is_name = isinstance(revision, str) and re.fullmatch(r"\w[\w.-]*(/[\w.-]+)*", revision, re.ASCII)
    if revision is not None and (not is_name or ".." in revision):
        raise ValueError(f"{source}: {revision!r} is not a commit, a branch or a tag.")
    return {"name_or_path": name, "revision": revision}


def _is_repository(name: Any) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return isinstance(name, str) and "/" in name
