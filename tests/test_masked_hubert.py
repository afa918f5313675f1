import itertools

import pytest
import torch
from transformers import HubertConfig, HubertModel

from slam_hf.masked_hubert import convolve_groups, layer_states


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 8,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
AT_50_HZ = {"conv_dim": (16,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
VARIANTS = {
    "group norm": {},
    "layer norm": {"feat_extract_norm": "layer"},
    "batch norm": {"conv_pos_batch_norm": True},
    "stable layer norm": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "odd positional kernel": {"num_conv_pos_embeddings": 17},
    "no norm of features": {"feat_proj_layer_norm": False},
    "50 Hz": AT_50_HZ,
    "50 Hz, batch norm": {**AT_50_HZ, "conv_pos_batch_norm": True},
    "layer norm, batch norm": {"feat_extract_norm": "layer", "conv_pos_batch_norm": True},
    "50 Hz, layer norm": {**AT_50_HZ, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
}
LENGTHS = (16_000, 7_000, 1_500, 900)


def make_hubert(**config) -> HubertModel:
    """A tiny HuBERT whose norms all matter."""
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**{**TINY, **config})).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.GroupNorm | torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_states_in_a_batch_are_those_of_the_clip_alone(variant):
    model = make_hubert(**VARIANTS[variant])
    clips = [0.1 * torch.randn(length) for length in LENGTHS]
    expected = [model(clip[None], output_hidden_states=True).hidden_states[3][0] for clip in clips]
    for order, padding in itertools.product(itertools.permutations(range(4)), (0, 5_000)):
        batch = torch.full((4, 16_000 + padding), 3.0)
        for row, index in zip(batch, order, strict=True):
            row[: LENGTHS[index]] = clips[index]
        (*_, states), num_frames = layer_states(model, batch, torch.tensor([LENGTHS[index] for index in order]))
        for row, length, index in zip(states, num_frames, order, strict=True):
            torch.testing.assert_close(row[:length], expected[index], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours_in_a_batch_of_the_same_shape():
    model = make_hubert(conv_pos_batch_norm=True)
    clip = 0.1 * torch.randn(7_000)
    states = []
    for position, seed in itertools.product(range(3), range(3)):
        torch.manual_seed(seed)
        batch, lengths = torch.randn(3, 9_000), torch.randint(1_000, 9_000, (3,))
        batch[position, :7_000], lengths[position] = clip, 7_000
        (*_, hidden_states), num_frames = layer_states(model, batch, lengths)
        states.append(hidden_states[position, : num_frames[position]])
    assert all(torch.equal(states[0], other) for other in states[1:])


@torch.no_grad()
def test_a_clip_with_an_offset_has_the_states_of_the_clip_alone():
    """Where the mean is far larger than the deviation, moments that are subtracted from each other would not do."""
    model = make_hubert()
    clip = 0.5 + 0.002 * torch.randn(6_000)
    expected = model(clip[None], output_hidden_states=True).hidden_states[3][0]
    batch = torch.nn.functional.pad(clip, (0, 3_000)).repeat(2, 1)
    (*_, states), num_frames = layer_states(model, batch, torch.tensor([6_000, 9_000]))
    torch.testing.assert_close(states[0, : num_frames[0]], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [16, 17])
def test_a_convolution_with_groups_equals_products_of_matrices(kernel_size):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(32, 32, kernel_size, padding=kernel_size // 2, groups=4).double()
    conv = torch.nn.utils.parametrizations.weight_norm(conv, dim=2)
    inputs = torch.randn(3, 32, 21, dtype=torch.float64)
    torch.testing.assert_close(convolve_groups(conv, inputs), conv(inputs), rtol=0, atol=1e-14)
