"""Every call that loads the files of a repository, on a Hub where all files are hostile.

None of them may execute anything. `DOORS` says how each ends, and from which repositories it asks for something.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loopback_hub import hub_environment, serve_hub
from loopback_repositories import Repository
from test_security import Malicious
from transformers import Qwen2Config


DOORS = {
    # References to code elsewhere are not followed: the package has the classes.
    "AutoConfig.from_pretrained('evil/model')": ("", {"evil/model"}),
    "AutoModel.from_pretrained('evil/model')": ("", {"evil/model"}),
    "AutoModelForCausalLM.from_pretrained('evil/model')": ("", {"evil/model"}),
    "AutoTokenizer.from_pretrained('evil/model')": ("", {"evil/model"}),
    "AutoProcessor.from_pretrained('evil/model')": ("", {"evil/model"}),
    "AutoFeatureExtractor.from_pretrained('evil/codec')": ("", {"evil/codec"}),
    "AutoModelForAudioTokenization.from_pretrained('evil/codec')": ("", {"evil/codec"}),
    # A processor may only give the repository of its codec, and a revision.
    "pipeline('audio-to-audio', model='evil/model')": (
        "OSError: The model's processor",
        {"evil/model", "evil/pickles"},
    ),
    "AutoProcessor.from_pretrained('evil/options')": ("ValueError: evil/options: processor_config", {"evil/options"}),
    "pipeline('audio-to-audio', model='evil/options')": ("ValueError: evil/options: processor_", {"evil/options"}),
    "pipeline('audio-to-audio', model='evil/itself')": ("ValueError: evil/itself: processor_", {"evil/itself"}),
    "AutoProcessor.from_pretrained('evil/folder')": ("ValueError: evil/folder: processor_config", {"evil/folder"}),
    "AutoProcessor.from_pretrained('evil/parent')": ("ValueError: evil/parent: processor_config", {"evil/parent"}),
    "AutoProcessor.from_pretrained('evil/revision')": ("ValueError: evil/revision: processor", {"evil/revision"}),
    # The text tokenizer of a model of text and speech is on the Hub, and comes without code.
    "AutoTokenizer.from_pretrained('evil/mixed')": (
        "OSError: 'evil/mixed' extends the text tokenizer 'evil/tokenizer', which cannot be loaded",
        {"evil/mixed", "evil/tokenizer"},
    ),
    "AutoProcessor.from_pretrained('evil/mixed')": (
        "OSError: 'evil/mixed' extends the text tokenizer",
        {"evil/mixed", "evil/tokenizer"},
    ),
    "AutoTokenizer.from_pretrained('evil/outside')": ("ValueError: 'evil/outside' names the text m", {"evil/outside"}),
    # Pickles are not executed, whatever their names.
    "load_codec('evil/pickles')": ("OSError: ", {"evil/pickles"}),
    "HubertUnitCodec.from_pretrained('evil/pickles', weights_only=False)": ("OSError: ", {"evil/pickles"}),
    "AutoModelForAudioTokenization.from_pretrained('evil/pickles')": ("OSError: ", {"evil/pickles"}),
    "load_codec('evil/index')": ("ValueError: 'evil/index' cannot be loaded: ", {"evil/index"}),
    "load_codec('evil/renamed')": ("OSError: ", {"evil/renamed"}),
    "load_codec('evil/model')": ("ValueError: 'evil/model' holds a model of type 'speech_", {"evil/model"}),
    "AutoModelForCausalLM.from_pretrained('evil/lm')": ("OSError: ", {"evil/lm"}),
    "AutoModelForCausalLM.from_pretrained('evil/lm', use_safetensors=False)": ("OSError: ", {"evil/lm"}),
    "SpeechLMForCausalLM.from_text_lm('evil/text')": ("UnpicklingError: Weights only load failed", {"evil/text"}),
    "read_hubert('evil/hubert')": ("UnpicklingError: Weights only load failed", {"evil/hubert"}),
    "AutoModelForCausalLM.from_pretrained('evil/adapter')": (
        "UnpicklingError: Weights only load failed",
        {"evil/adapter", "evil/model"},
    ),
    # The scripts.
    "pretrain('evil/text')": ("UnpicklingError: Weights only load failed", {"evil/text"}),
    "pretrain('evil/lm')": ("OSError: ", {"evil/lm"}),
    "evaluate('evil/model')": ("OSError: The model's processor names the codec", {"evil/model", "evil/pickles"}),
    "convert('evil/model', 'evil/pickles')": ("", {"evil/model", "evil/pickles"}),
    "convert('evil/lm', None)": ("FileNotFoundError: ", {"evil/lm"}),
    "pin_codec(local('evil/options'))": ("ValueError: ", {"evil/options"}),
}

TEXT_LM = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 60,
}

VISIT = """
import json, os, sys, tempfile, urllib.error, urllib.request
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioTokenization
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, pipeline
from trl import ModelConfig
from slam_hf import HubertUnitCodec, SpeechLMForCausalLM
from slam_hf.conversion import read_hubert
from slam_hf.evaluation.pairs import load_pipeline, own_processor
from slam_hf.hub.codec_reference import pin_codec
from slam_hf.processing_speech_lm import load_codec
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.initialization import initial_model

witness, scripts = sys.argv[1:]
sys.path.insert(0, scripts)
import convert_checkpoint

def local(name):
    return Path(snapshot_download(name, local_dir=tempfile.mkdtemp()))

def pretrain(name):
    initial_model(PretrainArguments(num_units=50), ModelConfig(model_name_or_path=name), seed=0)

def evaluate(name):
    args = SimpleNamespace(model=name, codec=None)
    model = AutoModelForCausalLM.from_pretrained(name)
    load_pipeline(args, model, own_processor(args, model))

def convert(source, codec):
    output = os.path.join(tempfile.mkdtemp(), "converted")
    convert_checkpoint.main(convert_checkpoint.ConversionArguments(source=source, codec=codec, output_dir=output))

for door in json.loads(sys.stdin.read()):
    try:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/next-door")
    except urllib.error.HTTPError:
        pass
    try:
        eval(door)
        end = ""
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    print(json.dumps({"door": door, "end": end, "executed": os.path.exists(witness)}), flush=True)
"""


@pytest.fixture(scope="module")
def visits(tmp_path_factory, tiny_model, tiny_codec):
    """By door: how it ended, whether code was executed, and the repositories that were asked for something."""
    folder = tmp_path_factory.mktemp("hostile")
    witness = folder / "witness"
    pickled = folder / "pickled.bin"
    torch.save({"weight": Malicious(witness)}, pickled)
    code = f"import os\nos.mkdir({str(witness)!r})\n".encode()
    elsewhere = "evil/code--code"
    options = {"weights_only": False, "use_safetensors": False, "dtype": "auto"}

    def files(model, **changes) -> dict[str, bytes]:
        """A model as it is saved, with a reference to code elsewhere in each of its files, and these changes."""
        path = folder / "saved"
        model.save_pretrained(path)
        files = {file.name: file.read_bytes() for file in path.iterdir()}
        for file in path.iterdir():
            file.unlink()
        config = json.loads(files["config.json"])
        names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForAudioTokenization")
        config |= {"auto_map": {name: f"{elsewhere}.{name}" for name in names}, "trust_remote_code": True}
        config |= {"attn_implementation": "evil/code", "weights_only": False, "use_safetensors": False}
        if "base_config" in config:
            config["base_config"] |= {"auto_map": config["auto_map"], "trust_remote_code": True}
            config["base_config"] |= {"_name_or_path": "evil/code", "attn_implementation": "evil/code"}
        else:
            config["encoder_config"] |= {"auto_map": config["auto_map"], "_name_or_path": "evil/code"}
        as_json = {"config.json": config, **{name: value for name, value in changes.items() if name.endswith(".json")}}
        return {**files, "code.py": code, **{name: json.dumps(value).encode() for name, value in as_json.items()}}

    def processor(codec) -> dict:
        config = {"processor_class": "SpeechLMProcessor", "auto_map": {"AutoProcessor": f"{elsewhere}.P"}}
        extractor = {"feature_extractor_type": "EvilExtractor", "auto_map": {"AutoFeatureExtractor": f"{elsewhere}.F"}}
        return {"processor_config.json": {**config, "feature_extractor": extractor, "codec": codec}}

    tokenizer = {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": [f"{elsewhere}.T", None]}}}
    lm = files(tiny_model, **tokenizer)
    codec = files(tiny_codec, **{"preprocessor_config.json": {"feature_extractor_type": "EncodecFeatureExtractor"}})
    pickles = {name: content for name, content in codec.items() if name != "model.safetensors"}
    pickles["pytorch_model.bin"] = pickled.read_bytes()
    index = {"metadata": {}, "weight_map": {"codebook": "pytorch_model.bin"}}
    renamed = {**json.loads(codec["config.json"]), "transformers_weights": "pytorch_model.bin"}
    hubert, text = tiny_codec.config.encoder_config, Qwen2Config(**TEXT_LM)

    def with_processor(reference) -> dict[str, bytes]:
        return lm | {name: json.dumps(value).encode() for name, value in processor(reference).items()}

    def only_pickled(config: dict) -> dict[str, bytes]:
        return {"config.json": json.dumps(config).encode(), "pytorch_model.bin": pickled.read_bytes()}

    def mixed(text_tokenizer: str) -> dict[str, bytes]:
        config = json.loads(lm["config.json"])
        config["tokenizer_class"], config["base_config"]["_name_or_path"] = "SpeechTextTokenizer", text_tokenizer
        return {"config.json": json.dumps(config).encode(), "code.py": code}

    adapter = {"peft_type": "LORA", "base_model_name_or_path": "evil/model", "target_modules": ["q_proj"], "r": 2}
    repositories = {
        "code": {"code.py": code},
        "model": with_processor({"name_or_path": "evil/pickles", "revision": "main"}),
        "options": with_processor({"name_or_path": "evil/pickles", **options}),
        "itself": with_processor({"name_or_path": "evil/itself", "subfolder": "codec", **options})
        | {f"codec/{name}": content for name, content in pickles.items()},
        "folder": with_processor({"name_or_path": str(folder)}),
        "parent": with_processor({"name_or_path": "../codec"}),
        "revision": with_processor({"name_or_path": "evil/pickles", "revision": "../../code"}),
        "codec": codec,
        "pickles": pickles,
        "mixed": mixed("evil/tokenizer"),
        "outside": mixed(str(folder)),
        "tokenizer": {
            "tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}).encode(),
            "config.json": json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "code.C"}}).encode(),
            "code.py": code,
            "vocab.pkl": pickled.read_bytes(),
        },
        "index": pickles | {"model.safetensors.index.json": json.dumps(index).encode()},
        "renamed": pickles | {"config.json": json.dumps(renamed).encode()},
        "lm": only_pickled(json.loads(lm["config.json"])),
        "text": only_pickled(text.to_dict()),
        "hubert": only_pickled(hubert.to_dict()),
        "adapter": {
            "adapter_config.json": json.dumps(adapter).encode(),
            "adapter_model.bin": pickled.read_bytes(),
        },
    }
    with serve_hub() as hub:
        for name, content in repositories.items():
            repository = hub.repositories["models", f"evil/{name}"] = Repository("evil", private=False)
            repository.commit(content, "main")
        scripts = str(Path(__file__).parents[1] / "hub_scripts")
        finished = subprocess.run(
            [sys.executable, "-c", VISIT, str(witness), scripts],
            input=json.dumps(list(DOORS)),
            env={
                **hub_environment(hub, folder / "home"),
                "DISABLE_SAFETENSORS_CONVERSION": "1",
                "TMPDIR": str(folder),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert finished.returncode == 0, finished.stderr
    ends = [json.loads(line) for line in re.findall(r'\{"door".*', finished.stdout)]
    asked = "\n".join(hub.requests).split("GET /next-door")[1:]
    for end, requests in zip(ends, asked, strict=True):
        end["repositories"] = set(re.findall(r"\bevil/[a-z]+\b", requests))
    torch.load(pickled, weights_only=False)
    assert witness.exists()  # the pickle does what it would
    return {end["door"]: end for end in ends}


@pytest.mark.parametrize("door", DOORS)
def test_nothing_hostile_is_executed(visits, door):
    end, repositories = DOORS[door]
    visit = visits[door]
    assert not visit["executed"]
    assert visit["end"].startswith(end) and bool(visit["end"]) == bool(end), visit["end"]
    assert visit["repositories"] == repositories
