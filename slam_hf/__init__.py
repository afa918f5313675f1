"""Speech language models on the Hugging Face stack.

Importing this package makes its classes known to the Auto classes and the pipelines of transformers, and its corpora
to `load_dataset`. Nothing heavy is imported before it is used.
"""

import importlib

from .auto import register_all


__version__ = "0.1.0"

_MODULES = {
    "AudioToAudioPipeline": "pipeline_audio_to_audio",
    "HubertUnitCodec": "modeling_hubert_unit_codec",
    "HubertUnitCodecConfig": "configuration_hubert_unit_codec",
    "HubertUnitTokenizer": "tokenization_hubert_unit",
    "SpeechLMConfig": "configuration_speech_lm",
    "SpeechLMForCausalLM": "modeling_speech_lm",
    "SpeechLMProcessor": "processing_speech_lm",
    "load_audio": "audio_utils",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


register_all()
