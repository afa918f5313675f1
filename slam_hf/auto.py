"""Registers the classes of this package with the Auto classes and the pipelines of transformers."""

from functools import wraps
from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioTokenization,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    EncodecFeatureExtractor,
    processing_utils,
    tokenization_utils_base,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import hub

from .configuration_hubert_unit_codec import HubertUnitCodecConfig
from .configuration_speech_lm import SpeechLMConfig
from .loading_utils import resolve_quickstart
from .modeling_hubert_unit_codec import HubertUnitCodec
from .modeling_speech_lm import SpeechLMForCausalLM
from .pipeline_audio_to_audio import AudioToAudioPipeline
from .processing_speech_lm import SpeechLMProcessor
from .tokenization_hubert_unit import HubertUnitTokenizer
from .tokenization_speech_text import SpeechTextTokenizer


DEFAULT_MODEL = "quickstart:model"
"""The model of `pipeline("audio-to-audio")`. It comes with the package, and so needs no network."""


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
        default={"model": (DEFAULT_MODEL, "main")},
        type="audio",
    )


def register_names() -> None:
    """
    Make the names of what comes with the package, such as `quickstart:model`, known to every `from_pretrained` and to
    `pipeline`. transformers has no call for this, but all of them find their files by these two functions.
    """
    find_files, list_templates = hub.cached_files, hub.list_repo_templates

    @wraps(find_files)
    def find_named_files(path_or_repo_id: Any, *args: Any, **kwargs: Any) -> list[str] | None:
        return find_files(resolve_quickstart(path_or_repo_id), *args, **kwargs)

    @wraps(list_templates)
    def list_named_templates(repo_id: Any, **kwargs: Any) -> list[str]:
        return list_templates(repo_id, **kwargs) if resolve_quickstart(repo_id) == repo_id else []

    hub.cached_files = find_named_files
    processing_utils.list_repo_templates = tokenization_utils_base.list_repo_templates = list_named_templates
