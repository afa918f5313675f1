"""HuBERT and its relatives on padded batches, with the hidden states that each clip has when it is alone.

In the models of transformers, padding changes the states of a clip in several places: the group norm of the first
convolution averages over time, norms and biases between or before positional convolutions make zeros non-zero, the
convolutions of a Conformer reach into the padding, and attention without a mask sees all frames. Here each of them
sees the frames of the clip only.
"""

from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from .padding_utils import is_inside


_MODEL_TYPES = {
    "data2vec-audio",
    "hubert",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-bert",
    "wav2vec2-conformer",
    "wavlm",
}


def can_mask(config: PreTrainedConfig) -> bool:
    """Whether [`layer_states`] knows a model. Clips of any other one must go through it alone."""
    return config.model_type in _MODEL_TYPES


def layer_states(
    encoder: PreTrainedModel, inputs: torch.FloatTensor, lengths: torch.LongTensor
) -> tuple[list[torch.FloatTensor], torch.LongTensor]:
    r"""
    Compute the output of each transformer layer, from the first to the last, before any final layer norm.

    Args:
        encoder ([`~transformers.PreTrainedModel`]):
            The model, in evaluation mode. [`can_mask`] says which there may be.
        inputs (`torch.FloatTensor` of shape `(batch_size, num_samples)` or `(batch_size, num_frames, num_features)`):
            Clips, padded on the right with anything finite: waveforms, or the features that a wav2vec2-BERT takes.
        lengths (`torch.LongTensor` of shape `(batch_size,)`):
            Samples, or frames, of each clip.

    Returns:
        `tuple`: the states of each layer, of shape `(batch_size, num_frames, hidden_size)`, and the frames of each
        clip, of shape `(batch_size,)`. The states after a clip's frames mean nothing.
    """
    is_waveform = inputs.ndim == 2
    features, num_frames = _convolve(encoder.feature_extractor, inputs, lengths) if is_waveform else (inputs, lengths)
    states = encoder.feature_projection(features)
    states = states[0] if isinstance(states, tuple) else states
    valid = is_inside(num_frames, states.shape[1])
    states = states.where(valid[..., None], 0)
    return list(_transform(encoder, states, valid)), num_frames


def _convolve(
    feature_extractor: nn.Module, waveforms: torch.FloatTensor, num_samples: torch.LongTensor
) -> tuple[torch.FloatTensor, torch.LongTensor]:
    """The output of the convolutions over the waveform, of shape `(batch_size, num_frames, num_channels)`."""
    features, num_frames = waveforms[:, None], num_samples
    for layer in feature_extractor.conv_layers:
        features = layer.conv(features)
        num_frames = (num_frames - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            features = _norm_over_time(features, is_inside(num_frames, features.shape[2]), norm)
        elif norm is not None:
            features = norm(features.transpose(1, 2)).transpose(1, 2)
        features = layer.activation(features)
    return features.transpose(1, 2), num_frames


def _transform(encoder: PreTrainedModel, states: torch.Tensor, valid: torch.BoolTensor) -> Iterator[torch.Tensor]:
    """The output of each transformer layer."""
    config, transformer = encoder.config, encoder.encoder
    is_conformer = config.model_type in ("wav2vec2-bert", "wav2vec2-conformer")
    if not is_conformer:
        states = states + _embed_positions(transformer.pos_conv_embed, states, valid)
        if not getattr(config, "do_stable_layer_norm", False):
            states = transformer.layer_norm(states)
    # A mask in any case: to find that none is needed, the device would be waited for, and the result of a clip would
    # depend on whether another one in the batch is shorter.
    mask = create_bidirectional_mask(
        config, inputs_embeds=states, attention_mask=valid, allow_is_bidirectional_skip=False
    )
    positions = transformer.embed_positions(states) if getattr(transformer, "embed_positions", None) else None
    bias = None
    for layer in transformer.layers:
        match config.model_type:
            case "wavlm":
                states, bias = layer(states, attention_mask=valid, position_bias=bias)
            case "wav2vec2-conformer":
                states = _conformer_layer(layer, states, mask, positions, valid)
            case "wav2vec2-bert":
                states = layer(states, mask, relative_position_embeddings=positions, conv_attention_mask=valid)
            case _:
                states = layer(states, attention_mask=mask)
        yield states


def _conformer_layer(
    layer: nn.Module,
    states: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor | None,
    valid: torch.BoolTensor,
) -> torch.Tensor:
    """A layer of wav2vec2-Conformer, whose depthwise convolution sees zeros beyond the end of each clip."""
    states = states + 0.5 * layer.ffn1(layer.ffn1_layer_norm(states))
    normed = layer.self_attn_layer_norm(states)
    states = states + layer.self_attn(normed, attention_mask=mask, relative_position_embeddings=positions)[0]
    # The pointwise convolution has no bias: zeros stay zeros until the depthwise one.
    normed = layer.conv_module.layer_norm(states).where(valid[..., None], 0).transpose(1, 2)
    convolved = layer.conv_module.depthwise_conv(layer.conv_module.glu(layer.conv_module.pointwise_conv1(normed)))
    convolved = layer.conv_module.activation(layer.conv_module.batch_norm(convolved))
    states = states + layer.conv_module.pointwise_conv2(convolved).transpose(1, 2)
    states = states + 0.5 * layer.ffn2(layer.ffn2_layer_norm(states))
    return layer.final_layer_norm(states)


def _norm_over_time(features: torch.Tensor, valid: torch.BoolTensor, norm: nn.GroupNorm) -> torch.Tensor:
    """Group norm with a group for each channel, over the valid frames of `(batch_size, num_channels, num_frames)`."""
    dtype, num_frames = features.dtype, features.shape[2]
    # In float32, as the norms of PyTorch sum on a GPU. In few passes, for nothing else is as large.
    features = features.float()
    count = valid.sum(dim=1)[:, None, None]
    mean = features @ valid[:, :, None].float() / count
    # Frames that equal the mean add nothing to the sum of squares.
    features = features.where(valid[:, None], mean)
    variance = features.var(dim=2, correction=0, keepdim=True) * (num_frames / count)
    scale = (variance + norm.eps).rsqrt() * norm.weight[:, None]
    return torch.addcmul(norm.bias[:, None] - mean * scale, features, scale).to(dtype)


def _embed_positions(module: nn.Module, states: torch.Tensor, valid: torch.BoolTensor) -> torch.Tensor:
    """The output of the positional convolutions, which see zeros beyond the end of each clip."""
    if hasattr(module, "layers"):  # data2vec-audio
        for layer in module.layers:
            states = layer(states.transpose(1, 2)).transpose(1, 2).where(valid[..., None], 0)
        return states
    states = states.transpose(1, 2)
    if getattr(module, "batch_norm", None) is not None:
        states = module.batch_norm(states).where(valid[:, None], 0)
    convolved = convolve_groups(module.conv, states) if states.device.type == "cuda" else module.conv(states)
    return module.activation(module.padding(convolved)).transpose(1, 2)


def convolve_groups(conv: nn.Conv1d, inputs: torch.FloatTensor) -> torch.FloatTensor:
    """A convolution of stride 1 with groups, as products of matrices. cuDNN runs one group after the other: on an
    H200, this took 85 % of the time of a HuBERT-base in bfloat16, for 3 % of its operations."""
    (padding,), (kernel_size,) = conv.padding, conv.kernel_size
    windows = nn.functional.pad(inputs, (padding, padding)).unflatten(1, (conv.groups, -1)).unfold(3, kernel_size, 1)
    batch_size, num_frames = windows.shape[0], windows.shape[3]
    columns = windows.permute(1, 2, 4, 0, 3).reshape(conv.groups, -1, batch_size * num_frames)
    weight = conv.weight.unflatten(0, (conv.groups, -1)).flatten(2)
    bias = conv.bias.view(conv.groups, -1, 1)
    outputs = torch.baddbmm(bias, weight, columns)
    return outputs.flatten(0, 1).unflatten(1, (batch_size, num_frames)).transpose(0, 1)
