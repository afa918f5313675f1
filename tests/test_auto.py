import re
import subprocess
import sys
from pathlib import Path

import pytest

import slam_hf


SHOW = """
from datasets import load_dataset_builder
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioTokenization
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

config = AutoConfig.from_pretrained(checkpoint)
print(type(config).__name__)
print(type(AutoTokenizer.from_pretrained(checkpoint)).__name__)
print(type(AutoProcessor.from_pretrained(checkpoint)).__name__)
for auto_class in (AutoModel, AutoModelForCausalLM):
    print(type(auto_class.from_config(config)).__name__)
codec = AutoConfig.for_model("hubert_unit_codec", encoder_config={"hidden_size": 48, "num_hidden_layers": 1})
for auto_class in (AutoModel, AutoModelForAudioTokenization):
    print(type(auto_class.from_config(codec)).__name__)
codec.save_pretrained(folder)
print(type(AutoFeatureExtractor.from_pretrained(folder)).__name__)
implementation = PIPELINE_REGISTRY.check_task("audio-to-audio")[1]["impl"]
print(f"{implementation.__module__}.{implementation.__name__}")
print(load_dataset_builder("speech_units", data_files=f"{folder}/config.json").__class__.__name__)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import slam_hf, transformers.pipelines",
        "import transformers.models.auto.modeling_auto, datasets, slam_hf",
        "import slam_hf.processing_speech_lm, transformers.models.auto.processing_auto",
    ],
)
def test_registration_does_not_depend_on_the_order_of_imports(imports, published_checkpoint, tmp_path):
    code = f"{imports}\ncheckpoint, folder = {str(published_checkpoint)!r}, {str(tmp_path)!r}\n{SHOW}"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == [
        "SpeechLMConfig",
        "HubertUnitTokenizer",
        "SpeechLMProcessor",
        "SpeechLMForCausalLM",
        "SpeechLMForCausalLM",
        "HubertUnitCodec",
        "HubertUnitCodec",
        "EncodecFeatureExtractor",
        "slam_hf.pipeline_audio_to_audio.AudioToAudioPipeline",
        "SpeechUnits",
    ]


def test_registration_is_by_public_calls():
    code = Path(slam_hf.auto.__file__).read_text(encoding="utf-8")
    assert not re.search(r"\._|meta_path|sys\.modules|_NAMES", code)


def test_public_names_are_importable():
    assert all(getattr(slam_hf, name).__name__ == name for name in slam_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        slam_hf.Nothing  # noqa: B018
