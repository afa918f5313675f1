import subprocess
import sys

import pytest


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy():
    loaded = run("import sys, slam_hf; print(*(m for m in ('torch', 'transformers', 'datasets') if m in sys.modules))")
    assert loaded.split() == []


@pytest.mark.parametrize(
    "imports", ["import transformers.pipelines, slam_hf", "import slam_hf, transformers.pipelines"]
)
def test_registration_does_not_depend_on_the_order_of_imports(imports, published_checkpoint):
    code = f"""
{imports}
from transformers import AutoConfig, AutoModel, AutoModelForAudioTokenization, AutoModelForCausalLM, AutoProcessor
from transformers import AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY
config = AutoConfig.from_pretrained({str(published_checkpoint)!r})
print(type(config).__name__)
print(type(AutoTokenizer.from_pretrained({str(published_checkpoint)!r})).__name__)
print(type(AutoProcessor.from_pretrained({str(published_checkpoint)!r})).__name__)
for auto_class in (AutoModel, AutoModelForCausalLM):
    print(auto_class._model_mapping[type(config)].__name__)
for auto_class in (AutoModel, AutoModelForAudioTokenization):
    print(auto_class._model_mapping[slam_hf.HubertUnitCodecConfig].__name__)
print(PIPELINE_REGISTRY.check_task("audio-to-audio")[1]["impl"])
"""
    assert run(code).split() == [
        "SpeechLMConfig",
        "HubertUnitTokenizer",
        "SpeechLMProcessor",
        "SpeechLMForCausalLM",
        "SpeechLMForCausalLM",
        "HubertUnitCodec",
        "HubertUnitCodec",
        "slam_hf.pipeline_audio_to_audio.AudioToAudioPipeline",
    ]


def test_public_names_are_importable():
    import slam_hf

    assert all(getattr(slam_hf, name).__name__ == name for name in slam_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        slam_hf.Nothing  # noqa: B018
