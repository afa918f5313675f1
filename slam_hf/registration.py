"""Makes the package known to transformers and datasets, each part when its library is first used.

Registering with an Auto class means importing the class, and with it torch. So that `import slam_hf` stays light,
a registration waits until the module that it concerns is imported, and runs at once where it has been already.
"""

import importlib.machinery
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_configs() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from .configuration_hubert_unit_codec import HubertUnitCodecConfig
    from .configuration_speech_lm import SpeechLMConfig

    for config_class in (SpeechLMConfig, HubertUnitCodecConfig):
        AutoConfig.register(config_class.model_type, config_class)


def register_models() -> None:
    from transformers.models.auto.modeling_auto import AutoModel, AutoModelForAudioTokenization, AutoModelForCausalLM

    from .configuration_hubert_unit_codec import HubertUnitCodecConfig
    from .configuration_speech_lm import SpeechLMConfig
    from .modeling_hubert_unit_codec import HubertUnitCodec
    from .modeling_speech_lm import SpeechLMForCausalLM

    for auto_class in (AutoModel, AutoModelForCausalLM):
        auto_class.register(SpeechLMConfig, SpeechLMForCausalLM)
    for auto_class in (AutoModel, AutoModelForAudioTokenization):
        auto_class.register(HubertUnitCodecConfig, HubertUnitCodec)


def register_tokenizer() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from .configuration_speech_lm import SpeechLMConfig
    from .tokenization_hubert_unit import HubertUnitTokenizer

    AutoTokenizer.register(SpeechLMConfig, tokenizer_class=HubertUnitTokenizer)


def register_feature_extractor() -> None:
    from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor
    from transformers.models.encodec.feature_extraction_encodec import EncodecFeatureExtractor

    from .configuration_hubert_unit_codec import HubertUnitCodecConfig

    AutoFeatureExtractor.register(HubertUnitCodecConfig, EncodecFeatureExtractor)


def register_processor() -> None:
    from transformers.models.auto.processing_auto import AutoProcessor

    from .configuration_speech_lm import SpeechLMConfig
    from .processing_speech_lm import SpeechLMProcessor

    AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor)


def register_pipeline() -> None:
    from transformers import AutoModelForCausalLM
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipeline_audio_to_audio import AudioToAudioPipeline

    PIPELINE_REGISTRY.register_pipeline(
        "audio-to-audio", pipeline_class=AudioToAudioPipeline, pt_model=AutoModelForCausalLM, type="audio"
    )


REGISTRATIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": register_configs,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.models.auto.tokenization_auto": register_tokenizer,
    "transformers.models.auto.feature_extraction_auto": register_feature_extractor,
    "transformers.models.auto.processing_auto": register_processor,
    "transformers.pipelines": register_pipeline,
}


class _RegisterAfterImport(MetaPathFinder):
    """Finds a module as Python would, and runs its registration once it has been executed."""

    def __init__(self, pending: dict[str, Callable[[], None]]):
        self.pending = pending

    def find_spec(self, fullname: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        register = self.pending.pop(fullname, None)
        if register is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        exec_module = spec.loader.exec_module

        def exec_module_and_register(module: ModuleType) -> None:
            exec_module(module)
            register()

        spec.loader.exec_module = exec_module_and_register
        return spec


def register_all() -> None:
    """Run the registrations of the modules that are imported, and let the others wait for theirs."""
    pending = dict(REGISTRATIONS)
    for name in [name for name in pending if name in sys.modules]:
        pending.pop(name)()
    sys.meta_path.insert(0, _RegisterAfterImport(pending))
