import ast
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoModelForAudioTokenization, AutoModelForCausalLM, AutoProcessor

import slam_hf
from slam_hf.hub.remote_code import export_remote_code


@pytest.fixture
def folder(tiny_model, tiny_processor, tmp_path):
    """As another toolkit could have saved it: without code and without its names."""
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    for code in tmp_path.glob("*.py"):
        code.unlink()
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        content.pop("auto_map", None)
        path.write_text(json.dumps(content))
    return tmp_path


def read(path):
    return json.loads(path.read_text())


def test_the_classes_are_named_and_their_code_is_there(folder):
    code = {path.name for path in export_remote_code(folder)}
    assert {"pipeline_audio_to_audio.py", "audio_streamer.py"} <= code
    config = read(folder / "config.json")
    pipelines = config["custom_pipelines"]
    assert list(config["auto_map"]) == ["AutoConfig", "AutoModel", "AutoModelForCausalLM"]
    references = [*config["auto_map"].values(), pipelines["audio-to-audio"]["impl"]]
    references.append(read(folder / "tokenizer_config.json")["auto_map"]["AutoTokenizer"][0])
    references.append(read(folder / "processor_config.json")["auto_map"]["AutoProcessor"])
    for reference in references:
        module, name = reference.split(".")
        assert f"{module}.py" in code
        assert name in {
            node.name for node in ast.parse((folder / f"{module}.py").read_text()).body if hasattr(node, "name")
        }
        assert getattr(slam_hf, name).__name__ == name


@pytest.fixture
def interleaved_folder(interleaved_checkpoint, tmp_path):
    """A model of text and speech, saved whole, with its code."""
    text_tokenizer = interleaved_checkpoint / "text-tokenizer"
    AutoModelForCausalLM.from_pretrained(interleaved_checkpoint).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer).save_pretrained(tmp_path)
    export_remote_code(tmp_path)
    return tmp_path


def test_models_of_text_and_speech_name_their_tokenizer(interleaved_folder):
    reference = read(interleaved_folder / "tokenizer_config.json")["auto_map"]["AutoTokenizer"]
    assert reference == ["tokenization_speech_text.SpeechTextTokenizer", None]
    assert (interleaved_folder / "tokenization_speech_text.py").is_file()


WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["slam_hf"] = None
import torch
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

folder, prompt = sys.argv[1], json.loads(sys.argv[2])
tokenizer, processor, model = (
    auto.from_pretrained(folder, trust_remote_code=True)
    for auto in (AutoTokenizer, AutoProcessor, AutoModelForCausalLM)
)
assert {type(part).__module__.split(".")[0] for part in (tokenizer, processor, model)} == {"transformers_modules"}
assert type(tokenizer).__name__ == type(processor.tokenizer).__name__ == "SpeechTextTokenizer"
ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
assert PreTrainedTokenizerFast.from_pretrained(folder)(prompt)["input_ids"] == ids[0].tolist()
banned = tokenizer.ids_outside("text")
generated = model.generate(ids, max_new_tokens=20, do_sample=False, suppress_tokens=banned)
print(json.dumps(generated.tolist()))
"""


@pytest.mark.slow
def test_models_of_text_and_speech_work_without_the_package(interleaved_folder, interleaved_checkpoint, tmp_path):
    case = read(interleaved_checkpoint / "interleaved.json")["cases"][0]
    command = [
        sys.executable,
        "-c",
        WITHOUT_THE_PACKAGE,
        str(interleaved_folder),
        json.dumps(case["string"] + "<text>"),
    ]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    expected = np.load(interleaved_checkpoint / "reference.npz")["generated_text"]
    assert json.loads(finished.stdout.splitlines()[-1]) == expected.tolist()


def test_the_code_needs_no_other_file(folder):
    code = {path.stem: ast.parse(path.read_text()) for path in export_remote_code(folder)}
    for name, tree in code.items():
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("slam_hf") for alias in node.names), name
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 or (node.level == 1 and node.module in code), (name, node.module)
                assert not (node.module or "").startswith("slam_hf"), name


def test_the_package_goes_before_the_code_of_a_folder(folder, tiny_codec, tmp_path):
    export_remote_code(folder)
    for code in folder.glob("*.py"):
        code.write_text("raise RuntimeError('remote code was executed')")
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is slam_hf.SpeechLMForCausalLM
    assert not hasattr(AutoModelForCausalLM.from_pretrained(folder).config, "custom_pipelines")

    tiny_codec.save_pretrained(tmp_path / "codec")
    export_remote_code(tmp_path / "codec")
    assert read(tmp_path / "codec" / "config.json")["auto_map"].keys() == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForAudioTokenization",
    }
    assert type(AutoModelForAudioTokenization.from_pretrained(tmp_path / "codec")) is slam_hf.HubertUnitCodec


def test_other_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        export_remote_code(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match="holds a model of type 'qwen2'"):
        export_remote_code(tmp_path)
