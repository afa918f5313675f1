"""Tiny speech encoders with random weights, of each kind that a codec can be built on."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel


SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
WAVEFORM = {
    **SIZE,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.2,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
DATA2VEC = {**WAVEFORM, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 9, "initializer_range": 0.2}
BERT = {**SIZE, "feature_projection_input_dim": 40, "conv_depthwise_kernel_size": 7, "max_source_positions": 20}
CONFORMER = {**WAVEFORM, "conv_depthwise_kernel_size": 7, "max_source_positions": 20}
ENCODERS = {
    "hubert": ("hubert", WAVEFORM),
    "wav2vec2": ("wav2vec2", WAVEFORM),
    "wav2vec2, stable": ("wav2vec2", {**WAVEFORM, **STABLE}),
    "wav2vec2, adapter in the layers": ("wav2vec2", {**WAVEFORM, **STABLE, "adapter_attn_dim": 8}),
    "wav2vec2, adapter above": ("wav2vec2", {**WAVEFORM, "add_adapter": True, "output_hidden_size": 24}),
    "wav2vec2 at 25 Hz": (
        "wav2vec2",
        {**WAVEFORM, "conv_dim": [16] * 8, "conv_kernel": [10, *[3] * 4, 2, 2, 2], "conv_stride": [5, *[2] * 7]},
    ),
    "wavlm": ("wavlm", {**WAVEFORM, "num_buckets": 40, "max_bucket_distance": 60}),
    "wavlm, stable": ("wavlm", {**WAVEFORM, **STABLE, "num_buckets": 40}),
    "data2vec-audio": ("data2vec-audio", DATA2VEC),
    "data2vec-audio, even kernel": ("data2vec-audio", {**DATA2VEC, "conv_pos_kernel_size": 8}),
    "unispeech": ("unispeech", {**WAVEFORM, "codevector_dim": 16}),
    "unispeech-sat": ("unispeech-sat", {**WAVEFORM, "codevector_dim": 16}),
    "unispeech-sat, stable": ("unispeech-sat", {**WAVEFORM, **STABLE, "codevector_dim": 16}),
    "wav2vec2-conformer, relative": ("wav2vec2-conformer", {**CONFORMER, "position_embeddings_type": "relative"}),
    "wav2vec2-conformer, rotary": ("wav2vec2-conformer", {**CONFORMER, "position_embeddings_type": "rotary"}),
    "wav2vec2-bert, relative key": (
        "wav2vec2-bert",
        {**BERT, "position_embeddings_type": "relative_key", "left_max_position_embeddings": 9},
    ),
    "wav2vec2-bert, relative": ("wav2vec2-bert", {**BERT, "position_embeddings_type": "relative"}),
    "wav2vec2-bert, rotary": ("wav2vec2-bert", {**BERT, "position_embeddings_type": "rotary"}),
    "wav2vec2-bert, no positions": ("wav2vec2-bert", {**BERT, "position_embeddings_type": None}),
}


def make_encoder(name: str, **settings) -> PreTrainedModel:
    """One of [`ENCODERS`], whose norms, biases and positions all matter."""
    torch.manual_seed(0)
    model_type, config = ENCODERS[name]
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **{**config, **settings})).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.GroupNorm | torch.nn.LayerNorm):
                if module.weight is None:
                    continue
                module.weight.normal_(1, 0.3)
                module.bias.normal_(0, 0.3)
        for name, parameter in model.named_parameters():
            if "pos_bias" in name or "gru_rel_pos" in name or name.endswith(("conv.bias", "proj.bias")):
                parameter.normal_(0, 0.3)
    return model
