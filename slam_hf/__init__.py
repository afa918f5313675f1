"""Speech language models on the Hugging Face stack.

Importing this package makes its classes known to the Auto classes and the pipelines of transformers, and its corpora
to `load_dataset`. Nothing heavy is imported before it is used.
"""

import importlib
import importlib.util

from .registration import register_all


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


if importlib.util.find_spec("slam_hf.modeling_hubert_unit_codec"):  # TEMPORARY, until the codec has landed
    register_all()
else:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    from .modeling_speech_lm import SpeechLMConfig, SpeechLMForCausalLM
    from .tokenization_hubert_unit import HubertUnitTokenizer

    AutoConfig.register("speech_language_model", SpeechLMConfig)
    AutoModel.register(SpeechLMConfig, SpeechLMForCausalLM)
    AutoModelForCausalLM.register(SpeechLMConfig, SpeechLMForCausalLM)
    AutoTokenizer.register(SpeechLMConfig, tokenizer_class=HubertUnitTokenizer)
