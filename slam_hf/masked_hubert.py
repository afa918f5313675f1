"""HuBERT on padded batches, with the hidden states that each clip has when it is alone.

In transformers' `HubertModel`, padding changes the states of a clip in three places: the group norm of the first
convolution averages over time, the batch norm before the positional convolution makes zeros non-zero, and attention
without a mask sees all frames. Here each of them sees the frames of the clip only.
"""

import torch
from torch import nn
from transformers import HubertModel
from transformers.masking_utils import create_bidirectional_mask


def hubert_states(
    encoder: HubertModel, waveforms: torch.FloatTensor, num_samples: torch.LongTensor
) -> tuple[torch.FloatTensor, torch.LongTensor]:
    r"""
    Compute the output of HuBERT's last transformer layer, before any final layer norm.

    Args:
        encoder ([`~transformers.HubertModel`]):
            The model, in evaluation mode.
        waveforms (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
            Clips, padded on the right with anything finite.
        num_samples (`torch.LongTensor` of shape `(batch_size,)`):
            Samples of each clip.

    Returns:
        `tuple`: the states, of shape `(batch_size, num_frames, hidden_size)`, and the frames of each clip, of shape
        `(batch_size,)`. The states after a clip's frames mean nothing.
    """
    features, num_frames = waveforms[:, None], num_samples
    for layer in encoder.feature_extractor.conv_layers:
        features = layer.conv(features)
        num_frames = (num_frames - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            features = _norm_over_time(features, _valid(num_frames, features.shape[2]), norm)
        elif norm is not None:
            features = norm(features.transpose(1, 2)).transpose(1, 2)
        features = layer.activation(features)

    states = encoder.feature_projection(features.transpose(1, 2))
    valid = _valid(num_frames, states.shape[1])
    transformer = encoder.encoder
    states = states.where(valid[..., None], 0)
    states = states + _embed_positions(transformer.pos_conv_embed, states, valid)
    if not encoder.config.do_stable_layer_norm:
        states = transformer.layer_norm(states)
    # A mask in any case: to find that none is needed, the device would be waited for, and the result of a clip would
    # depend on whether another one in the batch is shorter.
    mask = create_bidirectional_mask(
        encoder.config, inputs_embeds=states, attention_mask=valid, allow_is_bidirectional_skip=False
    )
    for layer in transformer.layers:
        states = layer(states, attention_mask=mask)
    return states, num_frames


def _valid(lengths: torch.LongTensor, longest: int) -> torch.BoolTensor:
    """Which positions belong to a clip, of shape `(batch_size, longest)`."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def _norm_over_time(features: torch.Tensor, valid: torch.BoolTensor, norm: nn.GroupNorm) -> torch.Tensor:
    """Group norm with a group for each channel, over the valid frames of `(batch_size, num_channels, num_frames)`."""
    dtype, num_frames = features.dtype, features.shape[2]
    # In float32, as the norms of PyTorch sum on a GPU. In few passes, for nothing else in HuBERT is as large.
    features = features.float()
    count = valid.sum(dim=1)[:, None, None]
    mean = features @ valid[:, :, None].float() / count
    # Frames that equal the mean add nothing to the sum of squares.
    features = features.where(valid[:, None], mean)
    variance = features.var(dim=2, correction=0, keepdim=True) * (num_frames / count)
    scale = (variance + norm.eps).rsqrt() * norm.weight[:, None]
    return torch.addcmul(norm.bias[:, None] - mean * scale, features, scale).to(dtype)


def _embed_positions(module: nn.Module, states: torch.Tensor, valid: torch.BoolTensor) -> torch.Tensor:
    """The output of HuBERT's positional convolution, which sees zeros beyond the end of each clip."""
    if module.batch_norm is None:
        return module(states)
    normed = module.batch_norm(states.transpose(1, 2)).where(valid[:, None], 0)
    return module.activation(module.padding(module.conv(normed))).transpose(1, 2)
