"""Reads the models of *Scaling Properties of Speech Language Models* (https://aclanthology.org/2024.emnlp-main.21/)."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..checkpoint_files import weight_files
from ..configuration_speech_lm import SpeechLMConfig
from ..loading_utils import read_json
from ..modeling_speech_lm import SpeechLMForCausalLM


_RENAMED = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def read_gslm_scaling(folder: str | os.PathLike) -> SpeechLMForCausalLM:
    r"""
    Read a model of https://huggingface.co/collections/tiagoCuervo/gslm-scaling as a Llama of transformers.

    Its ids are the units, then the end-of-sequence token, which also starts a sequence, then the padding token: 500
    and 501 for 500 units (see `src/slm_data` and `notebooks` in https://github.com/tiagoCuervo/slm_scaling). They are
    reordered for [`HubertUnitTokenizer`].

    Args:
        folder (`str` or `os.PathLike`):
            The folder: `config.json` (`"model_type": "slm"`, `"format_version": 1`) and safetensors.

    Returns:
        [`SpeechLMForCausalLM`] in float32, in evaluation mode.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the format is different, a file is damaged, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    content = read_json(folder / "config.json")
    args = content.get("model_args")
    if content.get("model_type") != "slm" or content.get("format_version") != 1 or not isinstance(args, dict):
        raise ValueError(f"'{folder}': config.json is not of format 1 of `slm_scaling`.")
    if args.get("prefix_vocab_size") is not None:
        raise ValueError(
            f"'{folder}': this model is conditioned on a prefix of other tokens; only units are supported."
        )
    weights = {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
    try:
        config = _read_config(args)
        model = SpeechLMForCausalLM(config)
        model.lm.load_state_dict(_rename(weights, args))
    except (LookupError, TypeError, RuntimeError) as error:
        raise ValueError(f"'{folder}': the weights and config.json do not fit each other: {error}") from error
    return model.eval()


def _read_config(args: dict[str, Any]) -> SpeechLMConfig:
    multiple = args["multiple_of"]
    hidden_dim = args["hidden_dim"] or -(-(8 * args["dim"] // 3) // multiple) * multiple
    base_config = {
        "model_type": "llama",
        "hidden_size": args["dim"],
        "intermediate_size": hidden_dim,
        "num_hidden_layers": args["n_layers"],
        "num_attention_heads": args["n_heads"],
        "num_key_value_heads": args["n_kv_heads"] or args["n_heads"],
        "rms_norm_eps": args["norm_eps"],
        "max_position_embeddings": args["block_size"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": True,
    }
    return SpeechLMConfig(base_config=base_config, vocab_size=args["vocab_size"])


def _rename(weights: dict[str, torch.Tensor], args: dict[str, Any]) -> dict[str, torch.Tensor]:
    vocab_size = args["vocab_size"]
    ids = torch.tensor([vocab_size - 1, vocab_size - 2, *range(vocab_size - 2)])
    embedding = weights.pop("tok_embeddings.weight", weights.pop("output.weight", None))  # tied, and saved once
    renamed = {"model.embed_tokens.weight": embedding[ids], "lm_head.weight": embedding[ids]}
    for name, tensor in weights.items():
        for old, new in _RENAMED.items():
            name = name.replace(f".{old}.", f".{new}.")
        if "q_proj" in name or "k_proj" in name:
            # Rotary embeddings rotate neighbours there, and pairs across halves in transformers.
            pairs = tensor.unflatten(0, (-1, args["dim"] // args["n_heads"] // 2, 2))
            tensor = pairs.transpose(1, 2).flatten(0, 2)
        renamed[f"model.{name}"] = tensor
    return renamed
