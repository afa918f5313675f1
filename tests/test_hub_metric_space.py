import doctest
import re
import runpy
import sys
from types import SimpleNamespace

import evaluate
import pandas as pd
import pytest
import yaml
from loopback_hub import run_with_hub
from test_metrics_loading import NAMES

from slam_hf.hub.metric_space import list_requirements, metric_space


@pytest.fixture(autouse=True)
def modules_cache(tmp_path, monkeypatch):
    """evaluate keeps copies of what it loads in a folder of modules."""
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_space_has_what_the_hub_and_evaluate_look_for(name, tmp_path):
    folder = metric_space(name, tmp_path / name, f"user/{name}")
    assert {path.name for path in folder.iterdir()} == {"README.md", "app.py", "requirements.txt", f"{name}.py"}
    _, metadata, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert (metadata["sdk"], metadata["app_file"]) == ("gradio", "app.py")
    assert metadata["tags"] == ["evaluate", "metric"]
    metric = evaluate.load(str(folder), keep_in_memory=True)
    assert metric.description.strip() in text
    for feature in metric.features:
        assert re.search(rf"^- `[^`]*\b{feature}\b[^`]*` \(`list`", text, re.MULTILINE)
    assert f'evaluate.load("user/{name}")' in text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "genppl"])  # whose example needs an LM
def test_the_example_gives_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (metric_space(name, tmp_path / name) / "README.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    test = doctest.DocTestParser().get_doctest(example, {}, name, None, None)
    assert len(test.examples) >= 3
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_demo_computes_the_metric_of_a_table(tmp_path, monkeypatch):
    folder, interfaces = metric_space("storycloze", tmp_path / "storycloze"), []
    gradio = SimpleNamespace(
        Dataframe=lambda **options: options,
        JSON=lambda **options: options,
        Interface=lambda **options: interfaces.append(options),
    )
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    runpy.run_path(str(folder / "app.py"), run_name="app")
    [interface] = interfaces
    assert interface["inputs"][0]["headers"] == ["correct_scores", "incorrect_scores"]
    table = pd.DataFrame({"correct_scores": [0.0, 1.0], "incorrect_scores": [-1.0, 1.0]})
    assert interface["fn"](table)["accuracy"] == 0.75
    assert interface["article"].strip().startswith("# Accuracy on the spoken StoryCloze tests")


def test_requirements_are_what_is_imported(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("import re\nimport numpy as np\nfrom torch.nn import functional\nfrom collections import abc\n")
    assert list_requirements(module) == ["numpy", "torch"]


def test_a_metric_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no metric 'blimp': choose one of auto_bleu, genppl, salmon"):
        metric_space("blimp", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_a_metric_needs_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "slam_hf.metrics.auto_bleu.auto_bleu", raising=False)
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    with pytest.raises(ImportError, match="The metric auto_bleu needs nltk: pip install nltk[.]"):
        metric_space("auto_bleu", tmp_path / "auto_bleu")


PUSH = """
import evaluate
from huggingface_hub import HfApi

api = HfApi()
api.create_repo("user/storycloze", repo_type="space", space_sdk="gradio")
api.upload_folder(repo_id="user/storycloze", repo_type="space", folder_path={folder!r})
storycloze = evaluate.load("user/storycloze")
print(storycloze.compute(correct_scores=[0.0, 1.0], incorrect_scores=[-1.0, 1.0])["accuracy"])
"""


def test_a_space_loads_from_the_hub(tmp_path):
    folder = metric_space("storycloze", tmp_path / "storycloze")
    output = run_with_hub(PUSH.format(folder=str(folder)), tmp_path / "cache")
    assert output.split()[-1] == "0.75"
