"""`pipeline("audio-to-audio")`: hear how a speech language model continues a recording."""

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.pipelines.base import Pipeline

from .audio_utils import load_audio
from .modeling_hubert_unit_codec import HubertUnitCodec
from .processing_speech_lm import load_codec


MHUBERT_25HZ_UNITS = 500


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

    The sampling of the Slamming paper (arXiv 2502.15814) is the default: temperature 0.8, top-k 25, 150 new tokens,
    repetition penalty 1.1.

    Args:
        codec (`str`, `os.PathLike` or [`HubertUnitCodec`], *optional*):
            The codec that the model was trained on, a Hub id, a folder or the model itself. Defaults to the one that
            the model's processor names, and where it names none, to the published mHuBERT-25Hz parts.
        kwargs:
            What every pipeline takes (`model`, `processor`, `device`, ...), and defaults for the parameters of a call.
    """

    _pipeline_calls_generate = True
    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    _default_generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, top_k=25, max_new_tokens=150, repetition_penalty=1.1
    )

    def __init__(self, *args, codec: str | os.PathLike | HubertUnitCodec | None = None, **kwargs):
        processor = kwargs["processor"]
        super().__init__(*args, tokenizer=processor.tokenizer, **kwargs)
        # Prompts end where the continuation begins.
        self.tokenizer.padding_side = "left"
        if codec is None:
            codec = processor.audio_tokenizer or _default_codec(self.tokenizer.num_units)
        elif not isinstance(codec, HubertUnitCodec):
            codec = load_codec(os.fspath(codec))
        if codec.codebook_size != self.tokenizer.num_units:
            raise ValueError(
                f"The codec has {codec.codebook_size} units and the model {self.tokenizer.num_units}. Pass `codec=`, "
                "the codec that the model was trained on."
            )
        processor.audio_tokenizer = codec.to(self.device)

    def __call__(self, inputs: Any, **kwargs: Any) -> dict[str, Any] | list[Any] | Iterator[Any]:
        r"""
        Continue recordings.

        Args:
            inputs:
                A recording, in any form that [`~slam_hf.audio_utils.load_audio`] reads, at any sampling rate and with
                any number of channels: a path, a URL, bytes, `{"array", "sampling_rate"}` or an audio row of
                `datasets`; or a list, an iterator or a dataset of them.
            prompt_duration (`float`, *optional*):
                Keep this many seconds from the start of the recording as the prompt. Defaults to all of it.
            return_full_audio (`bool`, *optional*, defaults to `True`):
                Whether the audio holds the prompt, resynthesised from its units, and the continuation; or the
                continuation only.
            seed (`int`, *optional*):
                Seed of the sampling. The same seed, inputs and batch size give the same continuations.
            batch_size (`int`, *optional*, defaults to 1):
                Recordings to continue together.
            kwargs:
                Parameters of `generate()`, such as `max_new_tokens`, `do_sample` or `num_return_sequences`.

        Returns:
            For each recording a `dict`, or with `num_return_sequences` > 1 a list of them:

            - **audio** (`np.ndarray` of shape `(samples,)`, float32) -- The waveform.
            - **sampling_rate** (`int`) -- Its sampling rate, in Hz.
            - **units** (`np.ndarray` of shape `(units,)`) -- The units of the continuation.
            - **prompt_units** (`np.ndarray` of shape `(units,)`) -- The deduplicated units of the prompt.

            A list for a list, an iterator for an iterator.

        Raises:
            FileNotFoundError, ValueError: a recording cannot be read or encoded; the message names it.
        """
        if isinstance(inputs, list | tuple):
            return super().__call__(list(inputs), **kwargs) if len(inputs) > 0 else []
        if _is_many(inputs):
            inputs = (source for source in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        prompt_duration: float | None = None,
        return_full_audio: bool | None = None,
        seed: int | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if prompt_duration is not None and prompt_duration <= 0:
            raise ValueError(f"`prompt_duration` is in seconds and must be positive, got {prompt_duration}.")
        preprocess_params = {} if prompt_duration is None else {"prompt_duration": prompt_duration}
        forward_params = generate_kwargs if seed is None else {"seed": seed, **generate_kwargs}
        postprocess_params = {} if return_full_audio is None else {"return_full_audio": return_full_audio}
        return preprocess_params, forward_params, postprocess_params

    def preprocess(self, source: Any, prompt_duration: float | None = None) -> dict[str, torch.Tensor]:
        sampling_rate = self.processor.feature_extractor.sampling_rate
        waveform = load_audio(source, sampling_rate)
        if prompt_duration is not None:
            waveform = waveform[: round(prompt_duration * sampling_rate)]
        return dict(self.processor(waveform, sampling_rate=sampling_rate))

    def _forward(
        self, model_inputs: dict[str, torch.Tensor], seed: int | None = None, **generate_kwargs: Any
    ) -> dict[str, torch.Tensor]:
        input_ids = model_inputs["input_ids"]
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            output = self.model.generate(**model_inputs, **generate_kwargs)
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        continuations = sequences[:, input_ids.shape[1] :]
        return {"input_ids": input_ids, "continuations": continuations.unflatten(0, (len(input_ids), -1))}

    def postprocess(
        self, model_outputs: dict[str, torch.Tensor], return_full_audio: bool = True
    ) -> dict[str, Any] | list[dict[str, Any]]:
        prompt = model_outputs["input_ids"][0]
        results = [
            {
                "audio": self.processor.decode(
                    torch.cat([prompt, continuation]) if return_full_audio else continuation
                ),
                "sampling_rate": self.processor.audio_tokenizer.sampling_rate,
                "units": self.tokenizer.decode_units(continuation),
                "prompt_units": self.tokenizer.decode_units(prompt),
            }
            for continuation in model_outputs["continuations"][0]
        ]
        return results if len(results) > 1 else results[0]


def _default_codec(num_units: int) -> HubertUnitCodec:
    """The codec of the published checkpoints, whose repositories name none."""
    if num_units != MHUBERT_25HZ_UNITS:
        raise ValueError(
            f"This model of {num_units} units names no codec. Pass `codec=`, the codec that it was trained on."
        )
    try:
        # By name: as remote code, the pipeline has no package around it, and every import statement is looked for.
        return importlib.import_module(".conversion.mhubert_25hz", __package__).published_codec()
    except (ImportError, OSError) as error:
        raise OSError(
            f"This model names no codec. Pass `codec=`, the codec that it was trained on. {error}"
        ) from error


def _is_many(inputs: Any) -> bool:
    one = isinstance(inputs, str | bytes | bytearray | os.PathLike | Mapping | np.ndarray)
    return isinstance(inputs, Iterable) and not one and not hasattr(inputs, "get_all_samples")
