"""The notebook runs from the first cell to the last."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


NOTEBOOK = Path(__file__).parents[1] / "model_cards" / "quickstart.ipynb"


def test_the_notebook_runs_and_holds_no_output(monkeypatch):
    pytest.importorskip("matplotlib")
    played = []
    display = ModuleType("IPython.display")
    display.Audio = lambda samples, rate: played.append((samples, rate))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in code)
    names = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    (recording, _), (continuation, rate) = played
    assert rate == 16_000 and len(continuation) > len(recording) > 0
    assert 0.01 < np.sqrt(np.mean(continuation**2)) < 0.5
    assert names["scores"]["forwards"] > names["scores"]["backwards"]
