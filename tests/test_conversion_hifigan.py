import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from slam_hf.conversion import read_hifigan


FOLDER = Path(__file__).parent / "fixtures" / "unit-hifigan"
CHECKPOINT, CONFIG = FOLDER / "g_00500000", FOLDER / "config.json"


@pytest.fixture
def generator() -> dict[str, torch.Tensor]:
    return torch.load(CHECKPOINT, weights_only=True)["generator"]


@pytest.fixture
def config() -> dict:
    return json.loads(CONFIG.read_text())


def save(generator: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save({"generator": generator}, path)
    return path


def synthesise(state: dict[str, torch.Tensor], config: dict, inputs: torch.Tensor) -> torch.Tensor:
    """HiFi-GAN as its paper has it, on the weights of a checkpoint with weight norm, from `(1, channels, frames)`."""

    def convolve(name, inputs, dilation=1, rate=None):
        gain, direction, bias = (state[f"{name}.{part}"] for part in ("weight_g", "weight_v", "bias"))
        weight = gain * direction / direction.flatten(1).norm(dim=1)[:, None, None]
        size = weight.shape[2]
        if rate:
            return functional.conv_transpose1d(inputs, weight, bias, stride=rate, padding=(size - rate) // 2)
        return functional.conv1d(inputs, weight, bias, padding=dilation * (size - 1) // 2, dilation=dilation)

    def residual(name, inputs, dilations):
        for i, dilation in enumerate(dilations):
            if f"{name}.convs.{i}.bias" in state:
                change = convolve(f"{name}.convs.{i}", functional.leaky_relu(inputs, 0.1), dilation)
            else:
                change = convolve(f"{name}.convs1.{i}", functional.leaky_relu(inputs, 0.1), dilation)
                change = convolve(f"{name}.convs2.{i}", functional.leaky_relu(change, 0.1))
            inputs = inputs + change
        return inputs

    hidden = convolve("conv_pre", inputs)
    for i, rate in enumerate(config["upsample_rates"]):
        hidden = convolve(f"ups.{i}", functional.leaky_relu(hidden, 0.1), rate=rate)
        branches = config["resblock_dilation_sizes"]
        outputs = [
            residual(f"resblocks.{i * len(branches) + j}", hidden, dilations) for j, dilations in enumerate(branches)
        ]
        hidden = sum(outputs) / len(outputs)
    return convolve("conv_post", functional.leaky_relu(hidden, 0.01)).tanh()[0, 0]


@pytest.mark.parametrize("index", [0, 1])
def test_reference_waveforms(index):
    vocoder = read_hifigan(CHECKPOINT, CONFIG)
    with np.load(FOLDER / "reference.npz") as arrays:
        units, expected = torch.from_numpy(arrays[f"codes_{index}"])[None], torch.from_numpy(arrays[f"wav_{index}"])
    with torch.no_grad():
        waveform = vocoder(units, vocoder.predict_durations(units))[0]
    torch.testing.assert_close(waveform, expected, atol=1e-6, rtol=0)
    assert not vocoder.training


def test_safetensors_and_a_config_in_memory(generator, config, tmp_path):
    save_file(generator, tmp_path / "vocoder.safetensors")
    vocoder = read_hifigan(tmp_path / "vocoder.safetensors", config)
    for name, tensor in read_hifigan(CHECKPOINT, CONFIG).state_dict().items():
        assert torch.equal(tensor, vocoder.state_dict()[name]), name


def test_speakers_and_styles(generator, config, tmp_path):
    torch.manual_seed(0)
    width = config["embedding_dim"]
    generator["spkr.weight"], generator["style.weight"] = torch.randn(4, width), torch.randn(3, width)
    generator["conv_pre.weight_v"] = torch.randn(config["upsample_initial_channel"], 3 * width, 7)
    config |= {"multispkr": "_", "num_speakers": 4, "multistyle": "_", "num_styles": 3, "model_in_dim": 3 * width}
    vocoder = read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)
    assert (vocoder.config.num_speakers, vocoder.config.num_styles) == (4, 3)
    assert vocoder.config.speaker_names is None

    (tmp_path / "speakers.txt").write_text("ex01\nex02\nex03\nex04\n")
    (tmp_path / "styles.txt").write_text("default\nlaughing\nwhisper\n")
    named = read_hifigan(tmp_path / "vocoder.pt", config, tmp_path / "speakers.txt", tmp_path / "styles.txt")
    assert named.find_voices("ex03", "laughing", 1) == ([2], [1])
    with pytest.raises(ValueError, match="`speaker_names` must hold 4 different names"):
        read_hifigan(tmp_path / "vocoder.pt", config, tmp_path / "styles.txt")

    units = [7, 7, 0, 3]
    inputs = torch.cat(
        [generator["dict.weight"][units], generator["spkr.weight"][[2] * 4], generator["style.weight"][[1] * 4]], dim=1
    )
    with torch.no_grad():
        waveform = vocoder(torch.tensor([units]), torch.ones(1, 4, dtype=torch.long), speaker_id=2, style_id=1)[0]
    torch.testing.assert_close(waveform, synthesise(generator, config, inputs.T[None]), atol=1e-6, rtol=1e-4)


def test_second_kind_of_residual_block(generator, config, tmp_path):
    generator = {key.replace("convs1", "convs"): weight for key, weight in generator.items() if "convs2" not in key}
    vocoder = read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)
    assert vocoder.config.resblock_type == 2
    inputs = generator["dict.weight"][[7, 0, 3]].T[None]
    with torch.no_grad():
        waveform = vocoder(torch.tensor([[7, 0, 3]]), torch.ones(1, 3, dtype=torch.long))[0]
    torch.testing.assert_close(waveform, synthesise(generator, config, inputs), atol=1e-6, rtol=1e-4)


def test_width_of_the_duration_predictor_is_its_own(generator, config, tmp_path):
    torch.manual_seed(0)
    width = config["embedding_dim"]
    predictor = {
        "conv1.0.weight": torch.randn(5, width, 3),
        "conv1.0.bias": torch.randn(5),
        "ln1.weight": torch.ones(5),
        "ln1.bias": torch.zeros(5),
        "conv2.0.weight": torch.randn(5, 5, 3),
        "conv2.0.bias": torch.randn(5),
        "ln2.weight": torch.ones(5),
        "ln2.bias": torch.zeros(5),
        "proj.weight": torch.randn(1, 5),
        "proj.bias": torch.randn(1),
    }
    generator |= {f"dur_predictor.{name}": weight for name, weight in predictor.items()}
    vocoder = read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)

    hidden = generator["dict.weight"][[7, 0, 3]]
    for i in (1, 2):
        weight, bias = predictor[f"conv{i}.0.weight"], predictor[f"conv{i}.0.bias"]
        hidden = functional.layer_norm(functional.conv1d(hidden.T, weight, bias, padding=1).relu().T, (5,))
    log_durations = hidden @ predictor["proj.weight"][0] + predictor["proj.bias"]
    expected = [max(1, round(math.exp(value) - 1)) for value in log_durations.tolist()]
    assert vocoder.predict_durations(torch.tensor([[7, 0, 3]])).tolist() == [expected]


def test_vocoder_without_a_duration_predictor(generator, config, tmp_path):
    generator = {key: weight for key, weight in generator.items() if not key.startswith("dur_predictor")}
    vocoder = read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)
    assert vocoder.duration_predictor is None


@pytest.mark.parametrize("key", ["f0", "embedder_params", "num_style_tokens"])
def test_vocoders_with_other_inputs_are_refused(config, key):
    with pytest.raises(ValueError, match=f"`{key}` in its configuration"):
        read_hifigan(CHECKPOINT, {**config, key: True})


def test_checkpoint_that_does_not_fit_its_configuration_is_refused(generator, config, tmp_path):
    with pytest.raises(ValueError, match="do not fit each other"):
        read_hifigan(CHECKPOINT, {**config, "upsample_kernel_sizes": [9, 8, 8, 8, 4]})
    with pytest.raises(ValueError, match="do not fit each other"):
        read_hifigan(CHECKPOINT, {key: value for key, value in config.items() if key != "upsample_rates"})
    with pytest.raises(ValueError, match="do not fit each other"):
        read_hifigan(CHECKPOINT, {**config, "upsample_rates": "5,4,4,4,2"})
    with pytest.raises(ValueError, match="conv_pre.weight_g"):
        without_gain = {key: weight for key, weight in generator.items() if key != "conv_pre.weight_g"}
        read_hifigan(save(without_gain, tmp_path / "vocoder.pt"), config)
    generator["f0_quant_embed.weight"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="f0_quant_embed"):
        read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)
    del generator["dict.weight"]
    with pytest.raises(ValueError, match="unit_embedding"):
        read_hifigan(save(generator, tmp_path / "vocoder.pt"), config)


@pytest.mark.parametrize("content", [{"model": {}}, [torch.zeros(1)], {"generator": {"step": 3}}], ids=str)
def test_other_checkpoints_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "vocoder.pt")
    with pytest.raises(ValueError, match="under the key 'generator'"):
        read_hifigan(tmp_path / "vocoder.pt", CONFIG)


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_checkpoint_with_code_is_refused(generator, tmp_path):
    path = save({**generator, "hook": Hostile(tmp_path / "executed")}, tmp_path / "vocoder.pt")
    with pytest.raises(ValueError, match="not a PyTorch checkpoint of tensors alone"):
        read_hifigan(path, CONFIG)
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists(), "the checkpoint was harmless"


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", CHECKPOINT.read_bytes()[:5000]])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "vocoder.pt").write_bytes(content)
    with pytest.raises(ValueError, match="vocoder.pt"):
        read_hifigan(tmp_path / "vocoder.pt", CONFIG)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "upsample_rates",
            [[], [0], [-1, 4, 4, 4, 2], [1] * 100, [10**12] * 5, [4, 4, 4, 4, 2], "x", None, [None], [1.5]],
        ),
        ("upsample_kernel_sizes", [[], [0] * 5, [11, 8, 8, 8], [3] * 5, [12, 8, 8, 8, 4], [10**12] * 5, {}, True]),
        ("resblock_kernel_sizes", [[], [3, 7], [0, 7, 11], [3, 7, 11, 3], [1] * 100, "3", [[3]]]),
        (
            "resblock_dilation_sizes",
            [[], [[]], [1, 3, 5], [[1, 3, 5]] * 2, [[0, 1, 3]] * 3, [["a"]] * 3, [[1] * 99] * 3, None],
        ),
        ("upsample_initial_channel", [0, -1, 31, 2.5, "64", [64], None]),
        ("dur_predictor_params", [1, "x", [1], {"var_pred_dropout": "x"}]),
        ("sampling_rate", [0, -1, "16000", None, 1e300]),
    ],
)
def test_odd_configurations_are_refused_by_the_field(config, field, values):
    name = "duration_dropout" if field == "dur_predictor_params" else field
    for value in values:
        with pytest.raises(ValueError, match=f"{field}|{name}"):
            read_hifigan(CHECKPOINT, {**config, field: value})


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"{", b"\xff\xfe"])
def test_a_configuration_that_is_damaged_is_named(tmp_path, content):
    (tmp_path / "vocoder.json").write_bytes(content)
    with pytest.raises(ValueError, match="vocoder.json"):
        read_hifigan(CHECKPOINT, tmp_path / "vocoder.json")


def test_memory_does_not_follow_the_configuration(config):
    with pytest.raises(ValueError, match="do not fit each other"):
        read_hifigan(CHECKPOINT, {**config, "upsample_initial_channel": 2**40})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["dict.weight", "conv_pre.weight_g", "ups.2.weight_v", "conv_post.bias"])
def test_weights_that_are_not_finite_are_refused_by_their_name(generator, tmp_path, name, value):
    generator[name].view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"vocoder.pt: the tensor '{name}' does not hold finite"):
        read_hifigan(save(generator, tmp_path / "vocoder.pt"), CONFIG)


def test_a_direction_of_norm_0_is_refused(generator, tmp_path):
    generator["conv_pre.weight_v"][3] = 0
    with pytest.raises(ValueError, match="'conv_pre.weight_v' has a slice of norm 0"):
        read_hifigan(save(generator, tmp_path / "vocoder.pt"), CONFIG)


def test_tensors_are_no_larger_than_their_file(generator, tmp_path):
    generator["dict.weight"] = torch.zeros(1, 1).expand(2**20, 2**10)
    path = save(generator, tmp_path / "vocoder.pt")
    assert path.stat().st_size < 10**6
    with pytest.raises(ValueError, match="its tensors are larger than the file"):
        read_hifigan(path, CONFIG)


def test_archives_that_grow_are_refused(generator, tmp_path):
    generator["dict.weight"] = torch.zeros(2**10, 2**10)
    path = save(generator, tmp_path / "vocoder.pt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for name in archive.namelist():
            small.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="Its archive is compressed"):
        read_hifigan(tmp_path / "small.pt", CONFIG)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, dtype=torch.int64), torch.zeros(3, device="meta"), torch.zeros(3).to_sparse()], ids=str
)
def test_other_tensors_are_refused_by_their_name(generator, tmp_path, tensor):
    with pytest.raises(ValueError, match="'conv_post.bias' does not hold finite"):
        read_hifigan(save({**generator, "conv_post.bias": tensor}, tmp_path / "vocoder.pt"), CONFIG)


def test_half_precision_becomes_single(generator, tmp_path):
    path = save({name: tensor.half() for name, tensor in generator.items()}, tmp_path / "vocoder.pt")
    assert {weight.dtype for weight in read_hifigan(path, CONFIG).state_dict().values()} == {torch.float32}
