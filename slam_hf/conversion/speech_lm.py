"""Reads checkpoints in the form of `slprl/slam`."""

import os
from pathlib import Path

from ..checkpoint_files import weight_files
from ..modeling_speech_lm import SpeechLMForCausalLM


def read_speech_lm(folder: str | os.PathLike) -> SpeechLMForCausalLM:
    r"""
    Read a speech language model.

    Args:
        folder (`str` or `os.PathLike`):
            The folder: `config.json` (`"model_type": "speech_language_model"`) and safetensors.

    Returns:
        [`SpeechLMForCausalLM`] in the type of the file's weights, in evaluation mode.

    Raises:
        FileNotFoundError: there are no safetensors.
        ValueError: a file is damaged, or weights are missing or unknown.
    """
    weight_files(Path(folder))
    return SpeechLMForCausalLM.from_pretrained(folder, dtype="auto")
