"""`pipeline("audio-to-audio")`: a speech language model continues recordings, and texts if it knows text."""

import importlib
import math
import operator
import os
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, PreTrainedConfig
from transformers.generation.streamers import BaseStreamer
from transformers.pipelines.base import Pipeline

from .audio_streamer import AudioIteratorStreamer, TextChunkStreamer
from .audio_utils import describe, load_audio
from .modeling_hubert_unit_codec import HubertUnitCodec
from .processing_speech_lm import check_codec, load_codec


PAPER_SAMPLING = GenerationConfig(
    do_sample=True, temperature=0.8, top_k=25, max_new_tokens=150, repetition_penalty=1.1
)
"""The sampling settings of the Slamming paper (arXiv 2502.15814)."""

PUBLISHED_MODELS = ("slprl/slam", "slprl/slam_scaled", "slprl/SIMS-Llama3.2-3B", "slprl/SIMS-7B")
PUBLISHED_CLASS = "UnitLM"
"""The class that the `config.json` of the published models names, of the toolkit that trained them."""

CACHE_STEP = 256
"""Static caches have a multiple of this length, so that the lengths of prompts seldom lead to another compilation."""

SILENCE = 0.15
"""Maximum loudness of silence, relative to loud speech: -16 dB. Pauses in LibriSpeech are at about -20 dB."""


class AudioToAudioPipeline(Pipeline):
    r"""
    Speech continuation with a [`SpeechLMForCausalLM`].

    ```python
    >>> from transformers import pipeline
    >>> import slam_hf

    >>> speak = pipeline("audio-to-audio", model="slprl/slam_scaled")
    >>> result = speak("prompt.flac", prompt_duration=3.0)
    >>> result["audio"].shape, result["sampling_rate"]
    ```

    By default it samples as the Slamming paper does (arXiv 2502.15814): temperature 0.8, top-k 25, 150 new tokens,
    repetition penalty 1.1. The default model is `quickstart:model`, which comes with the package.

    Args:
        codec (`str`, `os.PathLike` or [`HubertUnitCodec`], *optional*):
            The codec that the model was trained on: a Hub id, a folder, `"quickstart:codec"` or the codec itself.
            Defaults to the codec that the model's processor names. The published models (`slprl/slam`,
            `slprl/slam_scaled`) name none: their codec, mHuBERT-25Hz, is found without.
        stream (`bool`, *optional*, defaults to `False`), chunk_duration (`float`, *optional*, defaults to 0.5):
            Defaults for these parameters of a call.
        kwargs:
            What every pipeline takes (`model`, `processor`, `device`, ...), and defaults for other parameters of it.
    """

    _pipeline_calls_generate = True
    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    _default_generation_config = PAPER_SAMPLING

    def __init__(
        self,
        *args,
        codec: str | os.PathLike | HubertUnitCodec | None = None,
        stream: bool = False,
        chunk_duration: float = 0.5,
        **kwargs,
    ):
        self._stream_by_default, self._chunk_duration = stream, chunk_duration
        processor = kwargs["processor"]
        super().__init__(*args, tokenizer=processor.tokenizer, **kwargs)
        self._largest_batch = 0
        # Prompts end where the continuation begins.
        self.tokenizer.padding_side = "left"
        if codec is None:
            codec = processor.audio_tokenizer or published_codec(self.model.config, self.tokenizer.num_units)
        elif not isinstance(codec, HubertUnitCodec):
            codec = load_codec(os.fspath(codec))
        check_codec(codec, self.tokenizer.num_units)
        processor.audio_tokenizer = codec.to(self.device)

    def __call__(
        self, inputs: Any, stream: bool | None = None, chunk_duration: float | None = None, **kwargs: Any
    ) -> dict[str, Any] | list[Any] | Iterator[Any]:
        r"""
        Continue recordings; with a model of text and speech also texts, in speech or in text.

        Args:
            inputs:
                A recording, in any form that [`~slam_hf.audio_utils.load_audio`] reads, at any sampling rate and with
                any number of channels: a path, a URL, bytes, an open file, `{"array", "sampling_rate"}` or an audio
                row of `datasets`; or a list, an iterator or a dataset of them. For models of text and speech, a prompt
                is a recording, a text, `{"text": "Once upon a time"}`, or a list of both: `[[{"text": "He said"},
                "prompt.flac"]]` is a list with one such prompt.
            output_modality (`"speech"` or `"text"`, *optional*):
                For models of text and speech: what to continue in. Its modality token ends the prompt, and the tokens
                of the other modality are not generated. By default the continuation is speech, and a prompt that ends
                in speech is continued without a modality token.
            prompt_duration (`float`, *optional*):
                Keep this many seconds from the start of the recording as the prompt. Defaults to all of it.
            trim_silence (`bool`, *optional*, defaults to `True`):
                Whether to leave out the silence at the end of a recording, unless `prompt_duration` cuts it off
                anyway. A model takes this silence for the end of the utterance, and often adds nothing to it.
            min_new_seconds (`float`, *optional*, defaults to 2.0):
                Minimum duration of a continuation, which `<S>` cannot end earlier. Each unit counts as one frame of
                the codec, so that most continuations are longer; `max_new_tokens` still holds. With 0, a model may
                end at once. `min_new_tokens` replaces it.
            return_full_audio (`bool`, *optional*, defaults to `True`):
                Whether the audio holds the prompt, resynthesised from its units, before the continuation.
            return_full_text (`bool`, *optional*, defaults to `True`):
                Whether the generated text holds the text of the prompt before the continuation.
            speaker_id, style_id (`int`, `str`, or a list with one for each recording, *optional*):
                Who speaks, and in which style, by number or by a name that the codec's card lists; for codecs whose
                vocoder has several voices or styles. Defaults to the first one. The prompt, too, is in this voice.
            seed (`int`, or a list of them, *optional*):
                Seed of the sampling. The same seed, inputs and batch size give the same continuations. A list has a
                seed for each recording of a batch: what is drawn for a recording does not depend on the others.
            stream (`bool`, *optional*, defaults to `False`):
                Whether to return an iterator of chunks of the continuation, each made as soon as its units are there.
                Generation starts with the first chunk, is never more than 100 tokens ahead, and stops when the
                iterator is closed or deleted, as after a `break`. It takes one recording, and gives one continuation.
            chunk_duration (`float`, *optional*, defaults to 0.5):
                Minimum duration of a chunk of audio, in seconds. A chunk also waits for the units after it, on which
                it depends: see [`StreamingDecoder`]. Longer chunks cost less.
            batch_size (`int`, *optional*, defaults to 1):
                Recordings to continue together. On a GPU, they are also encoded together, to the units that each has
                alone, and batches are decoded with a static cache by a compiled model:
                compiling takes a while in the first batch. `disable_compile=True` switches it off.
            kwargs:
                Parameters of `generate()`, such as `max_new_tokens`, `do_sample` or `num_return_sequences`.

        Returns:
            For each recording a `dict`, or with `num_return_sequences` > 1 a list of them:

            - **audio** (`np.ndarray` of shape `(samples,)`, float32) -- The waveform.
            - **sampling_rate** (`int`) -- Its sampling rate, in Hz.
            - **units** (`np.ndarray` of shape `(units,)`) -- The units of the continuation.
            - **prompt_units** (`np.ndarray` of shape `(units,)`) -- The deduplicated units of the prompt.
            - **durations** (`np.ndarray` of shape `(units,)`) -- How many frames each unit in the audio lasts: those
              of the prompt, unless the audio is without it, and then those of the continuation.

            With `output_modality="text"`, as from the any-to-any pipeline of transformers:

            - **generated_text** (`str`) -- The text.
            - **input_text** (`str`) -- The text of the prompt, empty if it is speech alone.
            - **prompt_units** (`np.ndarray` of shape `(units,)`) -- The deduplicated units of the prompt.

            A list for a list, an iterator for an iterator.

            With `stream=True` an iterator of chunks. Those of speech have the same entries, each with what is in the
            audio of the chunk; joined, they are the result without `stream`. Those of text have the next part of the
            `generated_text`.

        Raises:
            OSError, ValueError: a recording cannot be read or encoded. The message names it, and gives its index
                among several. Or the model has no text, and the prompt or `output_modality` has. Or `stream` is asked
                for several continuations.
        """
        for name in ("speaker_id", "style_id"):
            voices = kwargs.get(name, self._preprocess_params.get(name))
            is_list = isinstance(voices, list | tuple)
            if is_list and not (isinstance(inputs, list | tuple) and len(voices) == len(inputs)):
                raise ValueError(
                    f"`{name}` is a list of {len(voices)}: it needs one for each in a list of recordings."
                )
        if self._stream_by_default if stream is None else stream:
            duration = self._chunk_duration if chunk_duration is None else chunk_duration
            return self._stream(inputs, duration, **kwargs)
        if not _is_many(inputs):
            return super().__call__(inputs, **kwargs)
        recordings = (_Recording(source, index) for index, source in enumerate(inputs))
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        if batch_size > 1 and self.processor.audio_tokenizer.batch_shape(1)[0] > 1:
            recordings = self._encoded_together(recordings, batch_size, self._preprocess_params | kwargs)
        if isinstance(inputs, list | tuple):
            return super().__call__(list(recordings), **kwargs) if inputs else []
        return super().__call__(recordings, **kwargs)

    def _encoded_together(
        self, recordings: Iterable["_Recording"], batch_size: int, params: Mapping[str, Any]
    ) -> Iterator["_Recording"]:
        """Recordings with their prompts, whose units a GPU makes in batches. What cannot be read or encoded is left to
        [`preprocess`], which names it."""
        options = _given(**{name: params.get(name) for name in ("prompt_duration", "trim_silence")})
        recordings = iter(recordings)
        while batch := list(islice(recordings, batch_size)):
            for row, recording in enumerate(batch):
                with suppress(OSError, TypeError, ValueError):
                    prompt = [self._read_part(part, **options) for part in _parts(recording.source)]
                    batch[row] = replace(recording, prompt=prompt)
            with suppress(ValueError):
                prompts = [recording.prompt for recording in batch]
                prompts = self.processor.encode_audio(prompts, self.processor.audio_tokenizer.sampling_rate)
                batch = [replace(recording, prompt=prompt) for recording, prompt in zip(batch, prompts, strict=True)]
            yield from batch

    def _read_part(
        self, part: Any, prompt_duration: float | None = None, trim_silence: bool = True
    ) -> np.ndarray | str:
        """The text of a part of a prompt, or its waveform, as far as it belongs to the prompt."""
        if _is_text(part):
            return part["text"]
        codec = self.processor.audio_tokenizer
        waveform = load_audio(part, codec.sampling_rate)
        if prompt_duration is not None and prompt_duration * codec.sampling_rate < len(waveform):
            return waveform[: round(prompt_duration * codec.sampling_rate)]
        return _without_silent_end(waveform, codec.config.hop_length) if trim_silence else waveform

    def _stream(
        self,
        inputs: Any,
        chunk_duration: float,
        batch_size: int | None = None,  # of a single recording
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Iterator[dict[str, Any]]:
        """Check what is asked for and encode the prompt. The iterator that is returned generates."""
        if isinstance(inputs, list | tuple) and len(inputs) == 1:
            [inputs] = inputs
        elif _is_many(inputs):
            raise ValueError("`stream=True` continues one recording, and this is several: stream them one by one.")
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        preprocess_params, forward_params, postprocess_params = (
            default | given for default, given in zip(defaults, self._sanitize_parameters(**kwargs), strict=True)
        )
        return_full_audio = forward_params.pop("return_full_audio", True)
        model_inputs = self._ensure_tensor_on_device(self.preprocess(inputs, **preprocess_params), self.device)
        voices = _pop_voices(model_inputs)
        options, settings = self._generation_options(model_inputs["input_ids"], **forward_params)
        for name in ("num_return_sequences", "num_beams"):
            if (settings.get(name) or 1) > 1:
                raise ValueError(f"`stream=True` gives one continuation: leave out `{name}`.")
        if forward_params.get("output_modality") == "text":
            skip_prompt = not postprocess_params.get("return_full_text", True)
            streamer = TextChunkStreamer(self.tokenizer, _end_ids(settings), skip_prompt)
        else:
            streamer = AudioIteratorStreamer(self.processor, not return_full_audio, chunk_duration, **voices)

        def generate(streamer: BaseStreamer) -> None:
            with self.device_placement():
                self.model.generate(**model_inputs, **options, streamer=streamer)

        chunks = streamer.run(generate)
        return chunks if isinstance(streamer, TextChunkStreamer) else _warning_if_empty(chunks)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Save the model, its processor, which names the codec, and their code.

        Raises:
            ValueError: the codec was neither loaded nor saved before, so that it has no name.
        """
        self.processor.save_pretrained(save_directory, **kwargs)
        super().save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(
        self,
        prompt_duration: float | None = None,
        trim_silence: bool | None = None,
        min_new_seconds: float | None = None,
        return_full_audio: bool | None = None,
        return_full_text: bool | None = None,
        output_modality: Literal["speech", "text"] | None = None,
        speaker_id: int | str | list[int | str] | None = None,
        style_id: int | str | list[int | str] | None = None,
        seed: int | Sequence[int] | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if prompt_duration is not None and not prompt_duration > 0:
            raise ValueError(f"`prompt_duration` is in seconds and must be positive, got {prompt_duration}.")
        if min_new_seconds is not None and not 0 <= min_new_seconds < math.inf:
            raise ValueError(f"`min_new_seconds` is in seconds and must be 0 or more, got {min_new_seconds}.")
        if output_modality not in (None, "speech", "text"):
            raise ValueError(f"`output_modality` is 'speech' or 'text', and not {output_modality!r}.")
        both = _given(output_modality=output_modality)
        preprocess_params = _given(
            prompt_duration=prompt_duration, trim_silence=trim_silence, speaker_id=speaker_id, style_id=style_id
        )
        forward_params = _given(min_new_seconds=min_new_seconds, return_full_audio=return_full_audio, seed=seed)
        postprocess_params = _given(return_full_text=return_full_text)
        return preprocess_params | both, forward_params | both | generate_kwargs, postprocess_params

    def preprocess(
        self,
        source: Any,
        prompt_duration: float | None = None,
        trim_silence: bool = True,
        output_modality: Literal["speech", "text"] | None = None,
        speaker_id: int | str | list[int | str] | None = None,
        style_id: int | str | list[int | str] | None = None,
    ) -> dict[str, torch.Tensor]:
        place, prompt = "", []
        if isinstance(source, _Recording):
            place, index, prompt = f"Recording {source.index}: ", source.index, list(source.prompt)
            source = source.source
            speaker_id, style_id = (
                voice[index] if isinstance(voice, list | tuple) else voice for voice in (speaker_id, style_id)
            )
        sampling_rate = self.processor.audio_tokenizer.sampling_rate
        parts = _parts(source) if not prompt else []
        try:
            for source in parts:
                prompt.append(self._read_part(source, prompt_duration, trim_silence))
            if output_modality is None and prompt and isinstance(prompt[-1], str):
                output_modality = "speech"
            voices = {}
            if output_modality != "text":
                self.processor.audio_tokenizer.check_vocoder(with_durations=True)
                found = self.processor.audio_tokenizer.find_voices(speaker_id, style_id, 1)
                named = zip(("speaker_id", "style_id"), found, strict=True)
                voices = {name: torch.tensor(ids) for name, ids in named if ids[0] is not None}
            return dict(self.processor([prompt], sampling_rate, output_modality=output_modality)) | voices
        except (ValueError, TypeError) as error:
            name = repr(source["text"][:40]) if _is_text(source) else describe(source)
            raise ValueError(f"{place}{'' if name in str(error) else f'{name}: '}{error}") from error
        except OSError as error:
            raise type(error)(f"{place}{error}") from error

    def _generation_options(
        self,
        input_ids: torch.LongTensor,
        min_new_seconds: float = 2.0,
        output_modality: Literal["speech", "text"] | None = None,
        seed: int | Sequence[int] | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options of `generate()`, and the generation parameters that are set by them or by the model."""
        options = self._prepare_generate_kwargs(generate_kwargs)
        settings = self._get_set_generation_params(options)
        if self.tokenizer.has_text:
            banned = set(self.tokenizer.ids_outside(output_modality or "speech")) - _end_ids(settings)
            banned |= {*range(len(self.tokenizer), self.model.config.vocab_size)}  # rows that pad the vocabulary
            banned |= set(settings.get("suppress_tokens") or [])
            options = self._prepare_generate_kwargs(options, suppress_tokens=sorted(banned))
        limit = settings.get("max_new_tokens") or settings.get("max_length", math.inf) - input_ids.shape[1]
        has_minimum = bool({"min_new_tokens", "min_length"} & settings.keys())
        if output_modality != "text" and min_new_seconds > 0 and not has_minimum:
            num_frames = math.ceil(min_new_seconds * self.processor.audio_tokenizer.frame_rate)
            options = self._prepare_generate_kwargs(options, min_new_tokens=max(0, min(num_frames, limit)))
        if self._can_compile(len(input_ids), settings):
            # A batch of another size would be compiled anew. The last batch, a smaller one, is faster without.
            self._largest_batch = max(self._largest_batch, len(input_ids))
            options = self._prepare_generate_kwargs(
                options,
                cache_implementation="static",
                max_cache_len=CACHE_STEP * math.ceil((input_ids.shape[1] + limit) / CACHE_STEP),
                disable_compile=len(input_ids) < self._largest_batch,
            )
        if seed is not None and settings.get("do_sample"):
            if settings.get("prompt_lookup_num_tokens") or options.get("assistant_model"):
                raise ValueError("`seed` does not fix assisted sampling: leave it out, or pass `do_sample=False`.")
            seeds = [seed] if np.ndim(seed) == 0 else seed
            if len(seeds) not in (1, len(input_ids)):
                raise ValueError(f"`seed` has {len(seeds)} seeds for a batch of {len(input_ids)} recordings.")
            draw = _DrawWithSeeds(seeds, self.device)
            options["logits_processor"] = [*(options.get("logits_processor") or []), draw]
        if settings.get("stop_strings"):
            options.setdefault("tokenizer", self.tokenizer)
        return options, settings

    def _forward(
        self,
        model_inputs: dict[str, torch.Tensor],
        return_full_audio: bool = True,
        output_modality: Literal["speech", "text"] | None = None,
        **forward_params: Any,
    ) -> dict[str, torch.Tensor]:
        input_ids = model_inputs["input_ids"]
        voices = _pop_voices(model_inputs)
        options, settings = self._generation_options(input_ids, output_modality=output_modality, **forward_params)
        output = self.model.generate(**model_inputs, **options)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        continuations = sequences[:, input_ids.shape[1] :]
        outputs = {"continuations": continuations}
        if output_modality == "text":
            eos, stop_strings = _end_ids(settings), settings.get("stop_strings")
            lengths = [self._text_length(ids, eos, stop_strings) for ids in continuations.tolist()]
            outputs["text_lengths"] = torch.tensor(lengths)
        else:  # all at once, before the pipeline takes the batch apart
            per_prompt = len(sequences) // len(input_ids)
            voices = {name: ids.repeat_interleave(per_prompt) for name, ids in voices.items()}
            heard = sequences if return_full_audio else continuations
            waveforms, durations = self.processor.batch_decode(heard, **voices, return_durations=True)
            for name, rows in {"waveforms": waveforms, "durations": durations}.items():
                outputs[name] = pad_sequence(list(map(torch.from_numpy, rows)), batch_first=True)
            outputs["lengths"] = torch.tensor(list(map(len, waveforms)))
        by_prompt = {name: rows.unflatten(0, (len(input_ids), -1)) for name, rows in outputs.items()}
        return {**model_inputs, **by_prompt}

    def _can_compile(self, num_rows: int, settings: Mapping[str, Any]) -> bool:
        """
        Whether to decode with a static cache, for which transformers compiles the steps. A single recording takes less
        time than the compilation, and CUDA graphs belong to one thread. The base model says whether it can be
        compiled, which transformers does not do completely with flash attention.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if num_rows == 1 or not in_main_thread or not _compiles(self.device):
            return False
        config = GenerationConfig()
        config.update(**settings)
        return (
            not {"cache_implementation", "cache"} & settings.keys()
            and not config.disable_compile
            and config.use_cache is not False
            and config.get_generation_mode(settings.get("assistant_model")) in ("greedy_search", "sample")
            and self.model._can_compile_fullgraph
            and self.model.lm.config._attn_implementation in ("sdpa", "eager")
        )

    def _text_length(self, ids: list[int], eos: set[int], stop_strings: str | list[str] | None) -> int:
        """How many ids come before the end. What follows is padding, which is a token of text too."""
        stops = [stop_strings] if isinstance(stop_strings, str) else stop_strings or []
        for length, index in enumerate(ids):
            if index in eos or any(stop in self.tokenizer.decode(ids[:length]) for stop in stops):
                return length
        return len(ids)

    def _texts(self, model_outputs: dict[str, torch.Tensor], return_full_text: bool) -> list[dict[str, Any]]:
        prompt = model_outputs["input_ids"][0][model_outputs["attention_mask"][0].bool()]
        text = prompt[prompt < self.tokenizer.text_ids.stop].tolist()
        input_text = self.tokenizer.decode(text, skip_special_tokens=True)
        results = []
        for ids, length in zip(model_outputs["continuations"][0], model_outputs["text_lengths"][0], strict=True):
            # With the prompt, as some tokenizers leave out a space at the beginning.
            full_text = self.tokenizer.decode(text + ids[:length].tolist(), skip_special_tokens=True)
            generated = full_text if return_full_text else full_text[len(input_text) :]
            prompt_units = self.tokenizer.decode_units(prompt.cpu())
            results.append({"generated_text": generated, "input_text": input_text, "prompt_units": prompt_units})
        return results

    def postprocess(
        self, model_outputs: dict[str, torch.Tensor], return_full_text: bool = True
    ) -> dict[str, Any] | list[dict[str, Any]]:
        if "text_lengths" in model_outputs:
            results = self._texts(model_outputs, return_full_text)
            return results if len(results) > 1 else results[0]
        prompt = model_outputs["input_ids"][0]
        rows = (model_outputs[name][0] for name in ("continuations", "waveforms", "lengths", "durations"))
        results = [
            {
                "audio": waveform[:length].numpy().copy(),
                "sampling_rate": self.processor.audio_tokenizer.sampling_rate,
                "units": self.tokenizer.decode_units(continuation),
                "prompt_units": self.tokenizer.decode_units(prompt),
                "durations": frames[frames > 0].numpy(),
            }
            for continuation, waveform, length, frames in zip(*rows, strict=True)
        ]
        if any(len(result["units"]) == 0 for result in results):
            _warn_of_empty_continuation()
        return results if len(results) > 1 else results[0]


@dataclass(frozen=True)
class _Recording:
    """One of several recordings, its index, and its prompt if that was read before."""

    source: Any
    index: int
    prompt: Sequence[np.ndarray | torch.LongTensor | str] = ()


class _DrawWithSeeds(LogitsProcessor):
    """
    Makes `generate()` sample with a generator of its own, which gives what the global one would after
    `torch.manual_seed(seed)`. `generate()` has no argument for it, and other threads use the global generator. With
    several seeds, each has its share of the rows.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device):
        generators = [torch.Generator(device).manual_seed(operator.index(seed)) for seed in seeds]

        class Scores(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                if func is torch.multinomial:
                    with torch._C.DisableTorchFunctionSubclass():  # what is drawn is an ordinary tensor again
                        shares = zip(args[0].chunk(len(generators)), generators, strict=True)
                        drawn = [func(rows, *args[1:], **(kwargs or {}), generator=one) for rows, one in shares]
                        return torch.cat(drawn)
                return super().__torch_function__(func, types, args, kwargs)

        self.scores_class = Scores

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return scores.as_subclass(self.scores_class)


@cache
def _compiles(device: torch.device) -> bool:
    """Whether models are compiled on a device: a GPU for which Triton and a C compiler work, which is tried."""
    if device.type != "cuda":
        return False
    try:
        torch.compile(torch.sin)(torch.zeros(1, device=device))
    except Exception as error:  # what is missing decides about its type
        warnings.warn(f"torch.compile does not work here, and decoding is slower: {error}", stacklevel=2)
        return False
    return True


def published_codec(config: PreTrainedConfig, num_units: int | None = None) -> HubertUnitCodec:
    """The codec of the published models, whose repositories do not name it."""
    num_units = num_units or config.num_units
    is_published = config.name_or_path in PUBLISHED_MODELS or PUBLISHED_CLASS in (config.architectures or [])
    if not is_published or num_units != 500:
        raise ValueError(
            f"This model of {num_units} units names no codec. Pass `codec=`, the codec that it was trained on."
        )
    try:
        # Imported by name: remote code runs without the package, and transformers checks every import statement.
        return importlib.import_module(".conversion.mhubert_25hz", __package__).published_codec()
    except (ImportError, OSError) as error:
        raise OSError(
            f"This model names no codec. Pass `codec=`, the codec that it was trained on. {error}"
        ) from error


def _without_silent_end(waveform: np.ndarray, frame: int) -> np.ndarray:
    """A waveform of shape `(samples,)`, cut one frame after the last frame that is not silent."""
    frames = np.pad(waveform, (0, -len(waveform) % frame)).reshape(-1, frame)
    loudness = np.sqrt(np.square(frames).mean(axis=1))
    loud = np.flatnonzero(loudness > SILENCE * np.quantile(loudness, 0.95))
    return waveform[: (loud[-1] + 2) * frame] if len(loud) else waveform


def _warning_if_empty(chunks: Generator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The chunks of a continuation, and a warning at the end if it has no units."""
    num_units = 0
    with closing(chunks):
        for chunk in chunks:
            num_units += len(chunk["units"])
            yield chunk
    if num_units == 0:
        _warn_of_empty_continuation()


def _warn_of_empty_continuation() -> None:
    warnings.warn(
        "The model ended at once, and a continuation is empty: try another `seed`, a shorter `prompt_duration` or a "
        "longer `min_new_seconds`.",
        stacklevel=3,
    )


def _pop_voices(model_inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take out the speaker and the style, which the codec needs, and not the model."""
    return {name: model_inputs.pop(name) for name in ("speaker_id", "style_id") if name in model_inputs}


def _end_ids(settings: Mapping[str, Any]) -> set[int]:
    """The tokens that end a sequence, of generation parameters."""
    eos = settings.get("eos_token_id")
    return set(eos if isinstance(eos, list) else [eos])


def _parts(source: Any) -> Sequence[Any]:
    return source if isinstance(source, list | tuple) else [source]


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and {"text"} <= part.keys() <= {"type", "text"} and isinstance(part["text"], str)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _is_many(inputs: Any) -> bool:
    one = isinstance(inputs, str | bytes | bytearray | memoryview | os.PathLike | Mapping | np.ndarray | torch.Tensor)
    # An open file and a decoder of torchcodec are iterable, too.
    one = one or hasattr(inputs, "read") or hasattr(inputs, "get_all_samples")
    return isinstance(inputs, Iterable) and not one
