"""Exports the plain causal LM of a speech language model, which other engines load without this package."""

import os
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from ..checkpoint_files import write_json
from ..loading_utils import read_json
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..unit_vocabulary import UNIT_PATTERN


def save_text_lm(model: SpeechLMForCausalLM, tokenizer: TokenizersBackend, folder: str | os.PathLike) -> None:
    r"""
    Save the plain causal LM of a speech language model (`Qwen2ForCausalLM`, ...) with a plain tokenizer of the same
    ids. `AutoModelForCausalLM` and `AutoTokenizer` load the folder without this package, and vLLM serves it.

    Args:
        model ([`SpeechLMForCausalLM`]):
            The model. If its vocabulary is padded, the padding is cut off, because other engines would generate it.
        tokenizer ([`~transformers.TokenizersBackend`]):
            Its tokenizer, such as a [`HubertUnitTokenizer`].
        folder (`str` or `os.PathLike`):
            The folder to write.
    """
    folder = Path(folder)
    if len(tokenizer) < model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    model.to_text_lm().save_pretrained(folder)
    config = read_json(folder / "config.json")
    if "rope_theta" in (rope := config.get("rope_parameters") or {}):
        config["rope_theta"] = rope["rope_theta"]  # where engines on transformers 4 read it
        write_json(folder / "config.json", config)

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    # For some base models, such as Qwen2, transformers loads any tokenizer file as their own kind of tokenizer, which
    # would split units. Every kind keeps added tokens whole.
    units = filter(UNIT_PATTERN.fullmatch, tokenizer.get_vocab())
    backend.add_tokens([AddedToken(token, normalized=False) for token in units])
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.special_tokens_map).save_pretrained(folder)
    # transformers 5 writes another name of this class, which transformers 4 does not know.
    config = read_json(folder / "tokenizer_config.json") | {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", config)
