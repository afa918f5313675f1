"""Makes this package known to transformers and datasets, without importing either.

transformers keeps tables of the names of each model type's classes, and looks a class up in the module
`transformers.models.<model type>` when it is first used. Entering the names costs nothing and imports nothing, where
`AutoModel.register` takes the class itself, and torch with it. The entries are made as soon as the module with a table
is imported, or now if it has been already.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


CONFIGS = {"speech_language_model": "SpeechLMConfig", "hubert_unit_codec": "HubertUnitCodecConfig"}
MODELS = {"speech_language_model": "SpeechLMForCausalLM", "hubert_unit_codec": "HubertUnitCodec"}
CAUSAL_LMS = {"speech_language_model": "SpeechLMForCausalLM"}
CODECS = {"hubert_unit_codec": "HubertUnitCodec"}
TOKENIZERS = {"speech_language_model": "HubertUnitTokenizer"}
FEATURE_EXTRACTORS = {"hubert_unit_codec": "EncodecFeatureExtractor"}
PROCESSORS = {"speech_language_model": "SpeechLMProcessor"}


def register_all() -> None:
    for model_type in CONFIGS:
        sys.modules[f"transformers.models.{model_type}"] = sys.modules[__package__]
    sys.meta_path.insert(0, _RegisterAfterImport())
    for name, register in REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])


def _register_configs(module: ModuleType) -> None:
    module.CONFIG_MAPPING_NAMES.update(CONFIGS)


def _register_models(module: ModuleType) -> None:
    _enter(module.MODEL_MAPPING, MODELS)
    _enter(module.MODEL_FOR_CAUSAL_LM_MAPPING, CAUSAL_LMS)
    _enter(module.MODEL_FOR_AUDIO_TOKENIZATION_MAPPING, CODECS)


def _register_tokenizers(module: ModuleType) -> None:
    _enter(module.TOKENIZER_MAPPING, TOKENIZERS)


def _register_feature_extractors(module: ModuleType) -> None:
    _enter(module.FEATURE_EXTRACTOR_MAPPING, FEATURE_EXTRACTORS)


def _register_processors(module: ModuleType) -> None:
    _enter(module.PROCESSOR_MAPPING, PROCESSORS)


def _enter(mapping, class_names: dict[str, str]) -> None:
    mapping._model_mapping.update(class_names)
    # The table by configuration, which transformers derives from the names that it knows at its own import.
    mapping._reverse_config_mapping.update((config, model_type) for model_type, config in CONFIGS.items())


def _register_pipelines(module: ModuleType) -> None:
    module.SUPPORTED_TASKS["audio-to-audio"] = {
        "impl": f"{__package__}.pipeline_audio_to_audio.AudioToAudioPipeline",
        "pt": (module.AutoModelForCausalLM,),
        "type": "audio",
    }


def _register_builders(module: ModuleType) -> None:
    importlib.import_module(".corpora.builders", __package__)


REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.tokenization_auto": _register_tokenizers,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
    "transformers.models.auto.processing_auto": _register_processors,
    "transformers.pipelines": _register_pipelines,
    "datasets.packaged_modules": _register_builders,
}


class _RegisterAfterImport(MetaPathFinder):
    """Finds the modules of `REGISTRATIONS` as Python would, and registers with each once it has been executed."""

    def find_spec(self, fullname: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        register = REGISTRATIONS.get(fullname)
        spec = None if register is None else PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        exec_module = spec.loader.exec_module

        def exec_module_and_register(module: ModuleType) -> None:
            exec_module(module)
            register(module)

        spec.loader.exec_module = exec_module_and_register
        return spec
