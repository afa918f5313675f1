"""Each metric's folder is a Space as it stands: `evaluate.load` needs nothing of this package."""

import importlib
import inspect
import shutil
import sys
from pathlib import Path

import evaluate
import pytest

import slam_hf.metrics


METRICS = Path(slam_hf.metrics.__file__).parent
NAMES = ["auto_bleu", "genppl", "salmon", "sblimp", "storycloze", "swuggy"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a copy of a metric's folder as a process would that has no slam_hf."""
    shutil.copytree(METRICS, tmp_path / "metrics", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("slam_hf", "evaluate_modules")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "slam_hf", None)  # importing it fails
    yield lambda name: evaluate.load(str(tmp_path / "metrics" / name), keep_in_memory=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


def test_all_metrics_are_here():
    assert sorted(path.name for path in METRICS.iterdir() if path.is_dir() and path.name[0] not in "._") == NAMES


def test_pair_metrics_load_without_this_package(load):
    scores = {"correct_scores": [0.0, 1.0], "incorrect_scores": [-1.0, 1.0]}
    sblimp = load("sblimp").compute(**scores, types=["a", "a"], subtypes=["a", "a"], ids=["1", "2"])
    assert sblimp["macro_accuracy"] == 0.75
    assert load("swuggy").compute(**scores, ids=["1", "2"], frequencies=[0, 1])["item_accuracy"] == 0.75
    assert load("storycloze").compute(**scores)["accuracy"] == 0.75
    assert load("salmon").compute(**scores, parts=["a", "b"])["accuracy"] == 0.75


def test_text_metrics_load_without_this_package(load):
    assert load("auto_bleu").compute(predictions=["no no no"])["auto_bleu"] == 1.0
    assert list(load("genppl").features) == ["predictions"]


@pytest.mark.parametrize(
    ("function", "names"),
    [("confidence_interval", NAMES), ("pair_outcomes", ["salmon", "sblimp", "storycloze", "swuggy"])],
)
def test_what_the_scripts_share_is_the_same_in_all(function, names):
    modules = [importlib.import_module(f"slam_hf.metrics.{name}.{name}") for name in names]
    assert len({inspect.getsource(getattr(module, function)) for module in modules}) == 1
