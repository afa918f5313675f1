"""What a repository needs to load by `trust_remote_code=True` where this package is not installed.

`save_pretrained` writes the code of each class beside what it saves, as transformers does for every class with an
`_auto_class`. That leaves out the pipeline and the second names of a class, such as `AutoModel`, and all of it is
missing where another toolkit saved the folder.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from .. import auto


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
TOKENIZER = "tokenization_hubert_unit.HubertUnitTokenizer"


def export_remote_code(folder: str | os.PathLike) -> list[Path]:
    r"""
    Complete a saved model or codec so that it loads without this package, by `trust_remote_code=True`: copy the code
    of its classes beside it, and name them in `config.json`, `tokenizer_config.json` and `processor_config.json`.

    With the package imported, its own classes go before those of the folder, and need no `trust_remote_code`.

    Args:
        folder (`str` or `os.PathLike`):
            The folder, as `save_pretrained` writes it.

    Returns:
        `list[Path]`: the files of code, in the folder.

    Raises:
        FileNotFoundError: there is no `config.json`.
        ValueError: it is of another type of model.
    """
    folder = Path(folder)
    config = _read(folder / "config.json")
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
        classes += [PIPELINE, TOKENIZER, PROCESSOR]
        _add_auto_map(folder / "tokenizer_config.json", AutoTokenizer=[TOKENIZER, None])
        _add_auto_map(folder / "processor_config.json", AutoProcessor=PROCESSOR)
    _write(folder / "config.json", config)
    return [Path(shutil.copyfile(source, folder / source.name)) for source in code_files(classes)]


def code_files(classes: list[str]) -> list[Path]:
    """The files of this package that classes, such as `"modeling_speech_lm.SpeechLMForCausalLM"`, are made of."""
    modules = {PACKAGE / f"{name.split('.')[0]}.py" for name in classes}
    imported = {Path(file) for module in modules for file in get_relative_import_files(module)}
    return sorted(modules | imported)


def _add_auto_map(path: Path, **classes: Any) -> None:
    if path.is_file():
        content = _read(path)
        _write(path, {**content, "auto_map": {**content.get("auto_map", {}), **classes}})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
