"""Adds the code to a repository that loads it with `trust_remote_code=True` if this package is not installed.

`save_pretrained` copies the code of each class with an `_auto_class`. It leaves out the pipeline and further Auto
classes, such as `AutoModel`; and other toolkits save no code at all.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from .. import auto
from ..checkpoint_files import write_json
from ..loading_utils import read_json
from ..unit_vocabulary import SPEECH_TEXT_TOKENIZER, UNIT_TOKENIZER, holds_text


PACKAGE = Path(auto.__file__).parent
PIPELINE = "pipeline_audio_to_audio.AudioToAudioPipeline"
MODELS = {
    "speech_language_model": {
        "AutoConfig": "configuration_speech_lm.SpeechLMConfig",
        "AutoModel": "modeling_speech_lm.SpeechLMForCausalLM",
        "AutoModelForCausalLM": "modeling_speech_lm.SpeechLMForCausalLM",
    },
    "hubert_unit_codec": {
        "AutoConfig": "configuration_hubert_unit_codec.HubertUnitCodecConfig",
        "AutoModel": "modeling_hubert_unit_codec.HubertUnitCodec",
        "AutoModelForAudioTokenization": "modeling_hubert_unit_codec.HubertUnitCodec",
    },
}
PROCESSOR = "processing_speech_lm.SpeechLMProcessor"
TOKENIZERS = {
    UNIT_TOKENIZER: f"tokenization_hubert_unit.{UNIT_TOKENIZER}",
    SPEECH_TEXT_TOKENIZER: f"tokenization_speech_text.{SPEECH_TEXT_TOKENIZER}",
}


def export_remote_code(folder: str | os.PathLike) -> list[Path]:
    r"""
    Make a saved model or codec load without this package, with `trust_remote_code=True`: copy the code of its classes
    into the folder, and name the classes in `config.json`, `tokenizer_config.json` and `processor_config.json`.

    If the package is imported, its own classes are used instead, without `trust_remote_code`.

    Args:
        folder (`str` or `os.PathLike`):
            The folder, as written by `save_pretrained`.

    Returns:
        `list[Path]`: the copied files.

    Raises:
        FileNotFoundError: the folder has no `config.json`.
        ValueError: the folder holds another type of model.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in MODELS:
        raise ValueError(
            f"'{folder}' holds a model of type {model_type!r}; this package has the code of {', '.join(MODELS)}."
        )
    config["auto_map"] = MODELS[model_type]
    classes = list(MODELS[model_type].values())
    if model_type == "speech_language_model":
        config["custom_pipelines"] = {
            "audio-to-audio": {"impl": PIPELINE, "pt": ["AutoModelForCausalLM"], "type": "audio"}
        }
        classes += [PIPELINE, PROCESSOR]  # which needs both tokenizers
        tokenizer = TOKENIZERS[SPEECH_TEXT_TOKENIZER if holds_text(config) else UNIT_TOKENIZER]
        _add_auto_map(folder / "tokenizer_config.json", AutoTokenizer=[tokenizer, None])
        _add_auto_map(folder / "processor_config.json", AutoProcessor=PROCESSOR)
    write_json(folder / "config.json", config)
    return [Path(shutil.copyfile(source, folder / source.name)) for source in code_files(classes)]


def code_files(classes: list[str]) -> list[Path]:
    """List the files of this package that define classes, such as `"modeling_speech_lm.SpeechLMForCausalLM"`."""
    modules = {PACKAGE / f"{name.split('.')[0]}.py" for name in classes}
    imported = {Path(file) for module in modules for file in get_relative_import_files(module)}
    return sorted(modules | imported)


def _add_auto_map(path: Path, **classes: Any) -> None:
    if path.is_file():
        content = read_json(path)
        write_json(path, {**content, "auto_map": {**content.get("auto_map", {}), **classes}})
