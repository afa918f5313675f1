"""What a file from somebody else must never do: run code, or reach out of its folder."""

import ast
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import load_dataset
from transformers import AutoProcessor, OPTConfig

from slam_hf import HubertUnitCodec, SpeechLMForCausalLM
from slam_hf.conversion import read_hifigan, read_hubert, read_kmeans
from slam_hf.conversion.twist import read_twist
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.recordings import Recording
from slam_hf.encoding.sources import file_source
from slam_hf.hub.repository_files import publishable_files


ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "slam_hf").rglob("*.py"), *(ROOT / "hub_scripts").rglob("*.py")])
# What ruff's rules S do not cover.
UNSAFE_ARGUMENTS = {"allow_pickle", "trust_remote_code"}


def unsafe_arguments(code: str) -> Iterator[str]:
    """The arguments in a module that let a file or a repository run code: only `False` is safe."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.keyword(arg=name, value=value) if name in UNSAFE_ARGUMENTS:
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield name
            case ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()) if name in UNSAFE_ARGUMENTS:
                yield name
            case ast.Dict(keys=keys):
                names = {key.value for key in keys if isinstance(key, ast.Constant)}
                yield from names & UNSAFE_ARGUMENTS


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, **{'trust_remote_code': True})",
        "args.trust_remote_code = True",
        "def load(name, trust_remote_code=True): pass",
    ],
)
def test_unsafe_arguments_are_recognised(code):
    assert list(unsafe_arguments(code))


def test_safe_arguments_are_not():
    assert not list(unsafe_arguments("np.load(path, allow_pickle=False)\nnp.load(path)"))


def test_no_code_of_the_project_has_unsafe_arguments():
    assert len(CODE) > 80
    found = {str(path.relative_to(ROOT)): list(unsafe_arguments(path.read_text(encoding="utf-8"))) for path in CODE}
    assert {path: names for path, names in found.items() if names} == {}


class Malicious:
    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def test_pickles_are_not_executed(tmp_path, tiny_model, tiny_codec, request):
    witness = tmp_path / "witness"
    pickled = tmp_path / "pickled.bin"
    pickled.write_bytes(pickle.dumps(Malicious(witness), protocol=2))
    saved = tmp_path / "saved.pt"
    torch.save({"generator": Malicious(witness)}, saved)
    models = {"model": tiny_model.config, "codec": tiny_codec.config, "hubert": tiny_codec.config.encoder_config}
    models["twist"] = OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=54)
    models["twist"].offset = 4
    for name, config in models.items():
        config.save_pretrained(tmp_path / name)
        torch.save({"weight": Malicious(witness)}, tmp_path / name / "pytorch_model.bin")
    vocoder_config = request.path.parent / "fixtures" / "unit-hifigan" / "config.json"
    for read in (
        lambda: read_kmeans(pickled),
        lambda: read_hifigan(pickled, vocoder_config),
        lambda: read_hifigan(saved, vocoder_config),
        lambda: read_hubert(tmp_path / "hubert"),
        lambda: read_twist(tmp_path / "twist"),
        lambda: HubertUnitCodec.from_pretrained(tmp_path / "codec"),
        lambda: SpeechLMForCausalLM.from_pretrained(tmp_path / "model"),
    ):
        with pytest.raises((ValueError, OSError, pickle.UnpicklingError)):
            read()
        assert not witness.exists()
    torch.load(saved, weights_only=False)
    assert witness.exists()  # the pickle does what it would


@pytest.mark.parametrize("id", ["../escaped", "/escaped", "a/../../../escaped", "a/b", "..", "nul\\..\\escaped"])
def test_ids_of_recordings_are_not_paths(tiny_codec, tmp_path, id):
    audio = tmp_path / "audio.wav"
    soundfile.write(audio, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    output = tmp_path / "below" / "units"
    tokenize_corpus(file_source([Recording(id=id, audio=str(audio))]), tiny_codec, output, num_workers=0)
    assert load_dataset(str(output), split="train", cache_dir=tmp_path / "cache")["id"] == [id]
    assert {path.name for path in (tmp_path / "below").iterdir()} == {"units"}
    assert {path.name for path in tmp_path.iterdir()} == {"audio.wav", "below", "cache"}
    assert not Path("/escaped").exists()


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/secret.safetensors", "a/b.safetensors", "config.json"]
)
def test_an_index_of_weights_names_no_files_elsewhere(tiny_codec, tmp_path, name):
    tiny_codec.config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"codebook": name}}))
    with pytest.raises(ValueError, match="weights must be safetensors in the folder of their index"):
        publishable_files(tmp_path)


def test_a_processor_brings_no_code_along(published_checkpoint, tmp_path):
    witness = tmp_path / "witness"
    AutoProcessor.from_pretrained(published_checkpoint).save_pretrained(tmp_path)
    for path in tmp_path.glob("*.py"):
        path.write_text(f"import os\nos.mkdir({str(witness)!r})\n")
    (tmp_path / "config.json").write_bytes((published_checkpoint / "config.json").read_bytes())
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.num_units == 500
    assert not witness.exists()
