"""Tiny configurations of the causal LMs of transformers, by model type."""

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig


_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "n_inner", "ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "dim_ff", "dff", "mamba_d_ssm"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "q_lora_rank"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "linear_num_value_heads", "mamba_d_conv"), 4),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("head_dim", "global_head_dim", "v_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "mamba_d_head", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_headdim", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "index_head_dim", "qk_head_dim"), 8),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "qk_nope_head_dim"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "n_mamba_heads", "mamba_expand", "index_n_heads"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_ngroups", "mamba_n_groups", "n_shared_experts"), 1),
    **dict.fromkeys(("num_shared_experts", "first_k_dense_replace", "zero_expert_num"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), 128),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "pronunciation_vocab_size", "shape_vocab_size"), 52),
    **{"kv_lora_rank": 16, "index_topk": 64, "attention_hidden_size": 32},
    **{"initializer_range": 0.5, "init_std": 0.5, "tie_word_embeddings": False, "is_decoder": True},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
_WINDOWS = {
    **dict.fromkeys(("sliding_window", "attention_window_size", "sliding_window_size", "window_size"), 8),
    **{"attention_chunk_size": 8, "use_sliding_window": True, "max_window_layers": 0},
}
_LATENT = {"num_key_value_heads": 4, "head_dim": 4}
_PARTICULARS = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), _LATENT),
    **dict.fromkeys(("glm_moe_dsa", "longcat_flash", "sarvam_mla", "youtu"), _LATENT),
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "minicpm3": {"num_key_value_heads": 4},
    "reformer": {"axial_pos_embds": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, **overrides: Any) -> PreTrainedConfig:
    """
    A configuration of four layers, 32 dimensions, 52 ids and, where the architecture has any, windows of 8 tokens;
    weights are drawn wide enough that every token matters to those after it.
    """
    config_class = CONFIG_MAPPING[model_type]
    renamed = config_class.attribute_map
    fields = config_class().to_dict().keys() | renamed.keys()
    values = (_SIZES | _WINDOWS).items()
    known = {name: value for name, value in values if name in fields and renamed.get(name) not in _SIZES}
    return config_class(**(known | _PARTICULARS.get(model_type, {}) | overrides))
