import sys
from types import SimpleNamespace

import demo
import pytest


def test_the_script_opens_the_page_of_a_model_on_this_machine_alone(monkeypatch):
    calls = []
    page = SimpleNamespace(launch_demo=lambda *args, **options: calls.append((args, options)))
    monkeypatch.setitem(sys.modules, "slam_hf.demo.launch", page)
    demo.main(demo.DemoArguments(codec="user/codec", port=7000))
    [(args, options)] = calls
    assert args == ("quickstart:model", "user/codec", None)
    assert options == {"server_name": "127.0.0.1", "server_port": 7000, "inbrowser": False}


def test_a_page_without_gradio_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "slam_hf.demo.launch", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'The page needs gradio: pip install "slam-hf\[demo\]"'):
        demo.main(demo.DemoArguments())
