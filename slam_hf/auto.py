"""Registers the classes of this package with the Auto classes and the pipelines of transformers."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioTokenization,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    EncodecFeatureExtractor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_hubert_unit_codec import HubertUnitCodecConfig
from .configuration_speech_lm import SpeechLMConfig
from .modeling_hubert_unit_codec import HubertUnitCodec
from .modeling_speech_lm import SpeechLMForCausalLM
from .pipeline_audio_to_audio import AudioToAudioPipeline
from .processing_speech_lm import SpeechLMProcessor
from .tokenization_hubert_unit import HubertUnitTokenizer
from .tokenization_speech_text import SpeechTextTokenizer


def register_all() -> None:
    AutoConfig.register(SpeechLMConfig.model_type, SpeechLMConfig)
    AutoModel.register(SpeechLMConfig, SpeechLMForCausalLM)
    AutoModelForCausalLM.register(SpeechLMConfig, SpeechLMForCausalLM)
    # The first one is loaded where `tokenizer_class` names it.
    AutoTokenizer.register(SpeechLMConfig, SpeechTextTokenizer)
    AutoTokenizer.register(SpeechLMConfig, HubertUnitTokenizer, exist_ok=True)
    AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor)

    AutoConfig.register(HubertUnitCodecConfig.model_type, HubertUnitCodecConfig)
    AutoModel.register(HubertUnitCodecConfig, HubertUnitCodec)
    AutoModelForAudioTokenization.register(HubertUnitCodecConfig, HubertUnitCodec)
    AutoFeatureExtractor.register(HubertUnitCodecConfig, EncodecFeatureExtractor)

    PIPELINE_REGISTRY.register_pipeline(
        "audio-to-audio",
        AudioToAudioPipeline,
        pt_model=AutoModelForCausalLM,
        default={"model": ("slprl/slam_scaled", "main")},
        type="audio",
    )
