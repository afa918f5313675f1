"""Each metric's folder is a Space as it stands: `evaluate.load` needs nothing of this package."""

import importlib
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import slam_hf.metrics


METRICS = Path(slam_hf.metrics.__file__).parent
NAMES = ["auto_bleu", "genppl", "salmon", "sblimp", "storycloze", "swuggy"]

LOAD_ALL = """
import json, sys
sys.modules["slam_hf"] = None  # importing it fails
import evaluate
modules = {name: evaluate.load(f"{sys.argv[1]}/{name}", keep_in_memory=True) for name in json.loads(sys.argv[2])}
scores = {"correct_scores": [0.0, 1.0], "incorrect_scores": [-1.0, 1.0]}
print(json.dumps([
    modules["storycloze"].compute(**scores)["accuracy"],
    modules["salmon"].compute(**scores, parts=["a", "b"])["accuracy"],
    modules["sblimp"].compute(**scores, types=["a", "a"], subtypes=["a", "a"], ids=["1", "2"])["macro_accuracy"],
    modules["swuggy"].compute(**scores, ids=["1", "2"], frequencies=[0, 1])["item_accuracy"],
    modules["auto_bleu"].compute(predictions=["no no no"])["auto_bleu"],
    sorted(modules["genppl"].features),
]))
"""


def test_all_metrics_are_here():
    assert sorted(path.name for path in METRICS.iterdir() if path.is_dir() and path.name[0] not in "._") == NAMES


def test_folders_load_without_this_package(tmp_path):
    shutil.copytree(METRICS, tmp_path / "metrics", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_EVALUATE_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    process = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, tmp_path / "metrics", json.dumps(NAMES)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [0.75, 0.75, 0.75, 0.75, 1.0, ["predictions"]]


@pytest.mark.parametrize(
    ("function", "names"),
    [("confidence_interval", NAMES), ("pair_outcomes", ["salmon", "sblimp", "storycloze", "swuggy"])],
)
def test_what_the_scripts_share_is_the_same_in_all(function, names):
    modules = [importlib.import_module(f"slam_hf.metrics.{name}.{name}") for name in names]
    assert len({inspect.getsource(getattr(module, function)) for module in modules}) == 1
