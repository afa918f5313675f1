from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from slam_hf import HubertUnitCodec, cuda_graphs
from slam_hf.cuda_graphs import replay_layer_states
from slam_hf.masked_hubert import layer_states


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replayed_states_are_those_of_the_kernels_one_by_one(dtype):
    encoder = HubertUnitCodec.from_pretrained("quickstart:codec").encoder.to("cuda", dtype)
    layers = [1, encoder.config.num_hidden_layers]
    for shape in ((2, 20_000), (3, 10_000)) * 3:  # seen, recorded, replayed
        inputs, lengths = (
            torch.randn(shape, device="cuda", dtype=dtype),
            torch.tensor([shape[1], 9_000, 400])[: shape[0]],
        )
        with torch.no_grad():
            states = replay_layer_states(encoder, inputs, lengths.cuda(), layers)
            expected, _ = layer_states(encoder, inputs, lengths.cuda())
        assert all(torch.equal(one, expected[layer - 1]) for one, layer in zip(states, layers, strict=True))
    assert None not in cuda_graphs._recordings[encoder].graphs.values()


def test_on_a_cpu_nothing_is_recorded():
    encoder = HubertUnitCodec.from_pretrained("quickstart:codec").encoder
    inputs, lengths = torch.randn(2, 10_000), torch.tensor([10_000, 9_000])
    with torch.no_grad():
        for _ in range(2):
            (states,) = replay_layer_states(encoder, inputs, lengths, [2])
        expected, _ = layer_states(encoder, inputs, lengths)
    assert torch.equal(states, expected[1]) and encoder not in cuda_graphs._recordings


def test_a_gpu_records_its_own_kernels(monkeypatch):
    """The second GPU while the first is the current one, of which PyTorch would take a stream."""
    made = SimpleNamespace(streams=[])

    @contextmanager
    def graph(graph, pool, stream, capture_error_mode):
        made.streams.append(stream)
        yield

    for name, stand_in in {
        "Stream": lambda device: device,
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": object,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    encoder, second = HubertUnitCodec.from_pretrained("quickstart:codec").encoder, torch.device("cuda:1")
    recordings = cuda_graphs._find_recordings(encoder, second)
    for _ in range(2):
        cuda_graphs._Graph(lambda *inputs: inputs, torch.zeros(1, 400), torch.tensor([400]), recordings)
    assert made.streams == [second, second]
