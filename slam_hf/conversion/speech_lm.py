"""Reads checkpoints in the form of `slprl/slam`, and refuses what `from_pretrained` would only warn about."""

import os
from pathlib import Path

from ..hub.repository_files import weight_files
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
    model, loading = SpeechLMForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys"):
        if loading[kind]:
            raise ValueError(
                f"'{folder}': the weights do not fit config.json, {kind.replace('_keys', '')} are "
                f"{', '.join(sorted(loading[kind])[:5])}."
            )
    # What the toolkit of the published checkpoints keeps of the call that loaded the text LM is not about the model.
    for name in ("trust_remote_code", "use_safetensors"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model
