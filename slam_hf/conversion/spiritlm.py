"""Reads models in the layout of SpiritLM (https://huggingface.co/papers/2402.05755)."""

import os

from transformers import AutoModelForCausalLM

from ..configuration_speech_lm import SpeechLMConfig
from ..loading_utils import naming_damaged_files
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..tokenization_speech_text import LAYOUTS, SpeechTextTokenizer


def read_spiritlm(folder: str | os.PathLike) -> tuple[SpeechLMForCausalLM, SpeechTextTokenizer]:
    r"""
    Read a text LM whose tokenizer holds speech, as the models of https://github.com/facebookresearch/spiritlm do: a
    Llama whose text tokens are followed by `[Text]`, `[Speech]`, the units `[Hu0]`, ..., and by the pitch and style
    tokens `[Pi0]`, ... and `[St0]`, ... All of them are kept, with their ids.

    Args:
        folder (`str` or `os.PathLike`):
            The folder of the model, with its tokenizer.

    Returns:
        The [`SpeechLMForCausalLM`], in evaluation mode, and its tokenizer.

    Raises:
        ValueError: the tokenizer has another layout, or more tokens than the model, or a file is damaged.
    """
    tokenizer = SpeechTextTokenizer.from_pretrained(folder)
    if tokenizer.speech_token != LAYOUTS["spiritlm"].speech:
        raise ValueError(f"'{folder}' has {tokenizer.speech_token} where the models of SpiritLM have [Speech].")
    with naming_damaged_files(folder):
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)
        config = SpeechLMConfig(
            base_config={**lm.config.to_dict(), "_name_or_path": ""},  # a path of this machine
            twist_init=True,
            **tokenizer.model_vocabulary
            | {name: getattr(lm.config, name) for name in ("vocab_size", "bos_token_id", "eos_token_id")},
        )
    model = SpeechLMForCausalLM._from_config(config, dtype=lm.dtype)
    model.lm.load_state_dict(lm.state_dict())
    return model.eval(), tokenizer
