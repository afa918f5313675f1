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
MODULES = {"dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile", "zipfile"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}


def dangers(code: str) -> Iterator[str]:
    """What in a module could run the code of a file, unpack an archive, or trust a repository for the user."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                yield from (f"import {alias.name}" for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES | {"pickle"}:
                yield f"from {module}"
            case ast.Call():
                yield from dangers_of_call(ast.unparse(node.func), {word.arg: word.value for word in node.keywords})
            case ast.Assign(targets=[ast.Attribute(attr="trust_remote_code")]):
                yield "trust_remote_code"
            case ast.Dict(keys=keys) if any(
                isinstance(k, ast.Constant) and k.value == "trust_remote_code" for k in keys
            ):
                yield "trust_remote_code"
            case ast.arg(arg="trust_remote_code"):
                yield "trust_remote_code"


def dangers_of_call(function: str, keywords: dict[str | None, ast.expr]) -> Iterator[str]:
    def is_true(name: str) -> bool:
        return isinstance(keywords.get(name), ast.Constant) and keywords[name].value is True

    if function in NAMES | CALLS or function.endswith((".extractall", ".unpack_archive")):
        yield function
    if function == "torch.load" and not is_true("weights_only"):
        yield "torch.load without weights_only=True"
    for name in {"allow_pickle", "trust_remote_code", "shell"} & keywords.keys():
        if not (isinstance(keywords[name], ast.Constant) and keywords[name].value is False):
            yield name


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.load(file)",
        "from pickle import load",
        "import joblib",
        "from zipfile import ZipFile",
        "archive.extractall(folder)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "exec(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, **{'trust_remote_code': True})",
        "args.trust_remote_code = True",
        "def load(name, trust_remote_code=True): pass",
        "subprocess.run(command, shell=True)",
        "yaml.load(text)",
    ],
)
def test_dangerous_code_is_recognised(code):
    assert list(dangers(code))


def test_harmless_code_is_not():
    assert not list(dangers("torch.load(path, weights_only=True)\nmodel.eval()\nnp.load(path)\nre.compile('a')"))


def test_no_code_of_the_project_is_dangerous():
    assert len(CODE) > 80
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text(encoding="utf-8"))) for path in CODE}
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
def test_ids_of_recordings_are_no_paths(tiny_codec, tmp_path, id):
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
    with pytest.raises(ValueError, match="which is no file of this folder"):
        publishable_files(tmp_path)


def test_a_processor_brings_no_code_along(published_checkpoint, tmp_path):
    witness = tmp_path / "witness"
    AutoProcessor.from_pretrained(published_checkpoint).save_pretrained(tmp_path)
    for path in tmp_path.glob("*.py"):
        path.write_text(f"import os\nos.mkdir({str(witness)!r})\n")
    (tmp_path / "config.json").write_bytes((published_checkpoint / "config.json").read_bytes())
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.num_units == 500
    assert not witness.exists()
