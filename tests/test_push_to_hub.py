import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import push_to_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import hub_environment, serve_hub
from loopback_repositories import Repository
from transformers import EncodecFeatureExtractor

from slam_hf import HubertUnitTokenizer, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.recordings import Recording
from slam_hf.encoding.sources import file_source
from slam_hf.evaluation.report import Evaluation, save_evaluation
from slam_hf.fingerprints import describe_model
from slam_hf.hub.repository_files import MODEL_FILES, OPTIONAL_FILES
from slam_hf.quickstart import QUICKSTART


SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "push_to_hub.py"

LOAD = """
import numpy as np
import torch
from transformers import AutoModel, AutoModelForAudioTokenization, AutoModelForCausalLM, AutoProcessor, AutoTokenizer
from transformers import pipeline


def load(repo, codec, recording, **options):
    model = AutoModelForCausalLM.from_pretrained(repo, **options).eval()
    assert type(AutoModel.from_pretrained(repo, **options)) is type(model)
    tokenizer = AutoTokenizer.from_pretrained(repo, **options)
    processor = AutoProcessor.from_pretrained(repo, **options)
    codec = AutoModelForAudioTokenization.from_pretrained(codec, **options)
    speak = pipeline("audio-to-audio", model=repo, **options)
    ids = tokenizer("<Un3><Un49><Un7><Un7>", return_tensors="pt")["input_ids"]
    spoken = speak(recording, prompt_duration=1.0, do_sample=False, max_new_tokens=20)
    waveform = np.sin(np.arange(16_000, dtype=np.float32) ** 1.3)
    with torch.no_grad():
        logits = model(ids).logits.numpy()
    return {
        "logits": logits,
        "ids": ids.numpy(),
        "commit": model.config._commit_hash,
        "generation": model.generation_config.eos_token_id,
        "units": processor(waveform, sampling_rate=16_000)["input_ids"].numpy(),
        "revision": processor.audio_tokenizer.config._commit_hash,
        "codes": codec.encode(torch.from_numpy(waveform)[None]).audio_codes.numpy(),
        "continuation": spoken["units"],
        "audio": spoken["audio"],
    }
"""

PUBLISH_AND_LOAD = f"""
import contextlib, io, json, runpy, sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parent)!r})
import slam_hf
import push_to_hub
from push_to_hub import PushArguments
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer
{LOAD}
folder, recording = Path(sys.argv[1]), sys.argv[2]
push_to_hub.main(PushArguments(repo_id="user/codec", folder=str(folder / "codec"), tag="v1"))
options = {{"folder": str(folder / "model"), "codec": "user/codec@v1"}}
with contextlib.redirect_stdout(io.StringIO()) as shown:
    push_to_hub.main(PushArguments(repo_id="user/model", dry_run=True, **options))
(folder / "shown.txt").write_text(shown.getvalue())
push_to_hub.main(PushArguments(repo_id="user/model", private=True, **options))

# The codec changes, and published models go on with the one that they were trained on.
codec = slam_hf.HubertUnitCodec.from_pretrained(folder / "codec")
codec.codebook.neg_()
codec.push_to_hub("user/codec")
np.savez(folder / "expected.npz", **load("user/model", "user/codec", recording))
assert not any(name.startswith("transformers_modules") for name in sys.modules)

model = AutoModelForCausalLM.from_pretrained("user/model")
processor = AutoProcessor.from_pretrained("user/model")
model.push_to_hub("user/stock")
processor.push_to_hub("user/stock")
loaded = AutoProcessor.from_pretrained("user/stock")
print(loaded.audio_tokenizer.config._commit_hash, type(AutoTokenizer.from_pretrained("user/stock")).__name__)
"""

PUSH_THE_REST = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(SCRIPT.parent), str(Path(__file__).parent)]!r}
import evaluate
import convert_checkpoint
import push_to_hub
from convert_checkpoint import ConversionArguments
from datasets import load_dataset
from push_to_hub import PushArguments
from training_utils import Dataset, HubertUnitTokenizer, Trainer, TrainingArguments, tiny_speech_lm
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer

folder = Path(sys.argv[1])
push_to_hub.main(PushArguments(repo_id="user/units", corpus=str(folder / "units")))
print(list(load_dataset("user/units", split="train")["id"]))
push_to_hub.main(PushArguments(repo_id="user/sblimp", metric="sblimp"))
print(evaluate.load("user/sblimp").name)

convert_checkpoint.main(ConversionArguments(output_dir=str(folder / "converted"), source="user/published"))
print(AutoProcessor.from_pretrained(folder / "converted").tokenizer.num_units)

rows = Dataset.from_list([{{"input_ids": list(range(2, 18)), "labels": list(range(2, 18))}}] * 4)
settings = TrainingArguments(str(folder / "model"), max_steps=1, report_to=[], hub_model_id="user/trained")
trainer = Trainer(tiny_speech_lm(), settings, train_dataset=rows, processing_class=HubertUnitTokenizer(num_units=50))
trainer.push_to_hub()
for auto_class in (AutoModelForCausalLM, AutoTokenizer, AutoProcessor):
    print(type(auto_class.from_pretrained("user/trained")).__name__)
"""

LOAD_WITHOUT_THE_PACKAGE = f"""
import sys


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "slam_hf":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, NotInstalled())
{LOAD}
np.savez(sys.argv[1], **load("user/model", "user/codec", sys.argv[2], trust_remote_code=True))
processor = AutoProcessor.from_pretrained("user/stock", trust_remote_code=True)
print(type(AutoModelForCausalLM.from_pretrained("user/stock", trust_remote_code=True)).__module__.split(".")[0])
print(type(processor).__module__.split(".")[0], processor.audio_tokenizer.config._commit_hash)
try:
    AutoModelForCausalLM.from_pretrained("user/model")
except ValueError as error:
    print("trust_remote_code=True" in str(error))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, tiny_codec) -> Path:
    """What a training leaves behind: a model, and beside it what nobody else needs."""
    folder = tmp_path_factory.mktemp("published")
    tiny_codec.save_pretrained(folder / "codec")
    tiny_model.save_pretrained(folder / "model")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    processor = SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50))
    processor.save_pretrained(folder / "model")
    for name in ("training_args.bin", "checkpoint-5/optimizer.pt", "runs/events.out.tfevents.1", "notes.txt"):
        (folder / "model" / name).parent.mkdir(exist_ok=True)
        (folder / "model" / name).write_text("for nobody else")
    return folder


def run(script: str, arguments: list[str], environment: dict[str, str], cwd: Path) -> str:
    command = [sys.executable, "-c", script, *arguments]
    environment = {**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    finished = subprocess.run(command, env=environment, cwd=cwd, timeout=300, **pipes)
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, output
    assert "hf_loopback" not in output
    return finished.stdout


@pytest.fixture(scope="module")
def published(folder, recordings):
    """The codec and the model on a Hub, and what they compute with the package."""
    with serve_hub() as hub:
        environment = hub_environment(hub, folder / "home")
        hub.printed = run(PUBLISH_AND_LOAD, [str(folder), str(recordings[0])], environment, folder)
        yield hub


@pytest.mark.slow
def test_a_model_is_one_complete_private_commit(published, folder):
    repository = published.repositories["models", "user/model"]
    assert len(repository.commits) == 2  # the first one is made with the repository
    assert repository.private
    files = repository.resolve("main")[1]
    assert {path for path in files if not path.endswith(".py")} == {
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    codec = published.repositories["models", "user/codec"]
    reference = json.loads(files["processor_config.json"])["codec"]
    assert reference == {"name_or_path": "user/codec", "revision": codec.tags["v1"]}
    assert codec.tags["v1"] != codec.branches["main"]
    shown = (folder / "shown.txt").read_text()
    assert shown.endswith(files["README.md"].decode() + "\n")
    assert all(path in shown for path in files if path != ".gitattributes")
    for path, content in files.items():
        assert b"hf_loopback" not in content, path
        assert os.fsencode(folder) not in content, path


@pytest.mark.slow
def test_repositories_load_alike_with_and_without_the_package(published, folder, recordings):
    environment = hub_environment(published, folder / "other-home")
    result = folder / "result.npz"
    printed = run(LOAD_WITHOUT_THE_PACKAGE, [str(result), str(recordings[0])], environment, folder)
    expected, loaded = np.load(folder / "expected.npz"), np.load(result)
    for name in expected.files:
        assert np.array_equal(loaded[name], expected[name]), name
    pinned = published.repositories["models", "user/codec"].tags["v1"]
    assert expected["revision"] == pinned
    assert expected["commit"] == published.repositories["models", "user/model"].branches["main"]
    assert not np.array_equal(expected["units"][0, 1:], expected["codes"][0, 0])
    # `push_to_hub` of the model and of the processor, without the script
    assert published.printed.splitlines()[-1] == f"{pinned} HubertUnitTokenizer"
    assert printed.split()[:3] == ["transformers_modules", "transformers_modules", pinned]
    assert printed.endswith("True\n")  # and behind the question whether to run the code


@pytest.mark.slow
def test_everything_else_loads_from_the_hub(folder, tiny_codec, recordings, published_checkpoint):
    source = file_source([Recording(id="a", audio=str(recordings[0]), duration=2.0)])
    tokenize_corpus(source, tiny_codec, folder / "units", num_workers=0)
    (folder / "units" / "notes.txt").write_text("for nobody else")
    with serve_hub() as hub:
        hub.repositories["models", "user/published"] = repository = Repository("user", private=False)
        repository.commit({path.name: path.read_bytes() for path in published_checkpoint.iterdir()}, "main")
        printed = run(PUSH_THE_REST, [str(folder)], hub_environment(hub, folder / "third-home"), folder)
        corpus, trained = hub.repositories["datasets", "user/units"], hub.repositories["models", "user/trained"]
    loaded = ["['a']", "sblimp", "500", "SpeechLMForCausalLM", "HubertUnitTokenizer", "SpeechLMProcessor"]
    assert [line for line in printed.splitlines() if line in loaded] == loaded
    data = "data/train-00000-of-00001.parquet"
    assert sorted(corpus.resolve("main")[1]) == [".gitattributes", "README.md", data]
    files = set(trained.resolve("main")[1])
    assert {"modeling_speech_lm.py", "processing_speech_lm.py", "tokenization_hubert_unit.py"} < files
    assert not any(path.startswith("checkpoint-") for path in files)


ATTACK = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parent)!r})
import push_to_hub
import tokenize_corpus
from push_to_hub import PushArguments

errors = {{}}
for kind in ("folder", "corpus"):
    for path in sorted(Path(sys.argv[1]).glob(f"{{kind}}-*")):
        try:
            push_to_hub.main(PushArguments(repo_id=f"user/{{path.name}}", **{{kind: str(path)}}))
        except (OSError, ValueError) as error:
            errors[path.name] = str(error)
try:
    tokenize_corpus.push(Path(sys.argv[1]) / "corpus-planted", "user/tokenised", private=False)
except (OSError, ValueError) as error:
    errors["tokenised"] = str(error)
print(json.dumps(errors))
"""

PLANTED = (
    ".env",
    "token",
    "notes.txt",
    "optimizer.pt",
    "training_args.bin",
    "id_rsa",
    "keys.pem",
    ".cache/x",
    "sub/a",
)
LINKED = {
    "folder": [*MODEL_FILES, *OPTIONAL_FILES, "model.safetensors"],
    "corpus": ["README.md", "data/train-00000-of-00001.parquet", "data"],
}


@pytest.fixture(scope="module")
def attacked(folder, tmp_path_factory):
    """A Hub after folders with planted files, and folders with a file replaced by a link, were pushed; the errors."""
    root = tmp_path_factory.mktemp("attacked")
    shutil.copytree(folder / "model", root / "folder-planted")
    png, wav = b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVE"
    contents = (b"{}", b"[]", png, wav, png)
    for name, content in zip(OPTIONAL_FILES, contents, strict=True):
        (root / "folder-planted" / name).write_bytes(content)
    corpus = root / "corpus-planted"
    (corpus / "data").mkdir(parents=True)
    table = pa.table({"id": ["a"], "units": [[1, 2]], "durations": [[1, 1]], "num_frames": [2]})
    pq.write_table(table, corpus / "data" / "train-00000-of-00001.parquet")
    (corpus / "README.md").write_text("---\ndataset_info: {splits: [{name: train, num_examples: 1}]}\n---\n")
    (corpus / "skipped").mkdir()
    (corpus / "skipped" / "train.jsonl").write_text("")
    for kind, names in LINKED.items():
        for number, name in enumerate(names):
            attacked = root / f"{kind}-{number}"
            shutil.copytree(root / f"{kind}-planted", attacked)
            outside = (attacked / name).rename(root / f"outside-{kind}-{number}")
            (attacked / name).symlink_to(outside)
    for planted in (root / "folder-planted", corpus, corpus / "data", corpus / "skipped"):
        for name in PLANTED:
            (planted / name).parent.mkdir(exist_ok=True)
            (planted / name).write_text("for nobody else")
    with serve_hub() as hub:
        printed = run(ATTACK, [str(root)], hub_environment(hub, root / "home"), root)
    return hub, json.loads(printed.splitlines()[-1])


def test_nothing_leaves_but_the_files_that_are_named(attacked):
    hub, errors = attacked
    received = {name: repository.resolve("main")[1] for (_, name), repository in hub.repositories.items()}
    assert received.keys() == {"user/folder-planted", "user/corpus-planted", "user/tokenised"}
    model = {path for path in received["user/folder-planted"] if not path.endswith(".py")}
    assert model == {".gitattributes", "README.md", "model.safetensors", *MODEL_FILES, *OPTIONAL_FILES}
    corpus = {".gitattributes", "README.md", "data/train-00000-of-00001.parquet"}
    assert received["user/corpus-planted"].keys() == corpus
    assert received["user/tokenised"].keys() == corpus | {"skipped/train.jsonl"}
    contents = [*hub.uploads.values(), *(content for files in received.values() for content in files.values())]
    assert not any(b"for nobody else" in content for content in contents)
    assert "tokenised" not in errors


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in LINKED.items() for name in names])
def test_a_link_is_refused_by_its_name_before_anything_is_sent(attacked, kind, name):
    hub, errors = attacked
    pushed = f"{kind}-{LINKED[kind].index(name)}"
    assert f"{pushed}/{name}' is a link" in errors[pushed]
    assert not any(pushed in request for request in hub.requests)


@pytest.fixture
def push(capsys, monkeypatch):
    def run_script(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return str(stopped.value)

    return run_script


def test_incomplete_folders_are_refused_by_what_they_lack(push, folder, tmp_path):
    for name in ("tokenizer.json", "processor_config.json", "generation_config.json", "model.safetensors"):
        shutil.copytree(folder / "model", tmp_path / name)
        (tmp_path / name / name).unlink()
        assert f"lacks {name}" in push("--repo_id", "user/model", "--folder", str(tmp_path / name))
    weights = tmp_path / "model.safetensors" / "model.safetensors"
    weights.write_bytes((folder / "model" / "model.safetensors").read_bytes()[:1000])
    assert "damaged or cut short" in push("--repo_id", "user/model", "--folder", str(weights.parent))
    assert "lacks config.json" in push("--repo_id", "user/model", "--folder", str(tmp_path))
    assert "lacks data" in push("--repo_id", "user/units", "--corpus", str(tmp_path))
    assert "There is no metric 'wer'" in push("--repo_id", "user/wer", "--metric", "wer")
    assert "Name one of" in push("--repo_id", "user/model")


def test_the_card_has_the_evaluations_beside_the_model(folder, tmp_path):
    source = shutil.copytree(folder / "model", tmp_path / "model")
    results = {"accuracy": 0.5886, "accuracy_interval": [0.57, 0.61]}
    model = describe_model(SpeechLMForCausalLM.from_pretrained(source))
    data = {"name": "sblimp", "hash": "0" * 64}
    save_evaluation(
        Evaluation("sblimp", results, [{"skipped": None}], model, data, None, {}), source / "evaluation", 10
    )
    (tmp_path / "staged").mkdir()
    push_to_hub.prepare(push_to_hub.PushArguments(repo_id="user/model", folder=str(source)), tmp_path / "staged")
    assert "| sBLIMP ↑ | 58.86 |" in (tmp_path / "staged" / "README.md").read_text("utf-8")
    assert not (tmp_path / "staged" / "evaluation").exists()


def test_a_codec_on_this_machine_must_be_published_first(push, folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    config["codec"] = {"name_or_path": str(folder / "codec"), "revision": None}
    (tmp_path / "model" / "processor_config.json").write_text(json.dumps(config))
    error = push("--repo_id", "user/model", "--folder", str(tmp_path / "model"))
    assert f"Publish the codec first, `slam-hf push --folder {folder / 'codec'}" in error


@pytest.mark.parametrize("name", ["folder", "corpus"])
def test_what_comes_with_the_package_can_be_named(name):
    part = {"folder": "codec", "corpus": "corpus"}[name]
    args = push_to_hub.PushArguments("user/name", **{name: f"quickstart:{part}"})
    assert getattr(args, name) == str(QUICKSTART / part)
    with pytest.raises(FileNotFoundError, match="'quickstart:other': slam-hf brings no such data with it"):
        push_to_hub.PushArguments("user/name", **{name: "quickstart:other"})


def test_the_card_of_a_codec_keeps_its_licence(tmp_path, capsys):
    push_to_hub.main(
        push_to_hub.PushArguments("user/codec", "quickstart:codec", dry_run=True, page=str(tmp_path / "card.html"))
    )
    assert "\nlicense: mit\n" in capsys.readouterr().out
