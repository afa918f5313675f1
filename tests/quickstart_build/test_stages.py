import json

import pytest
from quickstart import stages


def test_stage_runs_once_and_keeps_its_figures(tmp_path):
    calls = []
    runner = stages.Stages(tmp_path)
    for _ in range(2):
        runner.run("count", lambda: calls.append(1) or {"answer": 42})
    assert len(calls) == 1
    assert stages.Stages(tmp_path).figures()["count"]["answer"] == 42
    assert json.loads((tmp_path / "done" / "count.json").read_text())["answer"] == 42


def test_failed_stage_leaves_no_marker(tmp_path):
    runner = stages.Stages(tmp_path)
    with pytest.raises(ZeroDivisionError):
        runner.run("fail", lambda: {"answer": 1 / 0})
    assert not runner.is_done("fail")
