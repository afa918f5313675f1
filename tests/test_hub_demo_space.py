import os
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import httpx2
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from loopback_hub import hub_environment, serve_hub

from slam_hf.hub import demo_space as module
from slam_hf.hub.demo_space import demo_space, pinned_requirements


COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def hub(monkeypatch):
    """A Hub with the model `user/slam` alone, and the packages that are installed."""

    def model_info(self, name, revision=None):
        if name != "user/slam" or revision == "gone":
            raise HfHubHTTPError("404", response=httpx2.Response(404, request=httpx2.Request("GET", "http://hub")))
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(HfApi, "model_info", model_info)
    lines = ["soundfile>=0.13", "torch>=2.11,<2.15", 'gradio>=6.31; extra == "demo"', 'ruff>=0.17; extra == "test"']
    monkeypatch.setattr(module, "requires", lambda name: lines)
    versions = {"soundfile": "0.13.1", "torch": "2.11.0+cpu", "gradio": "6.31.0"}
    monkeypatch.setattr(module, "version", versions.__getitem__)
    return versions


def launched(app, monkeypatch) -> tuple[tuple, dict]:
    """What the app of a Space calls the page with."""
    calls = []
    page = SimpleNamespace(launch_demo=lambda *args, **options: calls.append((args, options)))
    monkeypatch.setitem(sys.modules, "slam_hf.demo.launch", page)
    runpy.run_path(str(app), run_name="__main__")
    [call] = calls
    return call


def test_a_space_has_an_app_its_pinned_requirements_and_the_code(tmp_path, monkeypatch):
    folder = demo_space("user/slam", tmp_path, "user/slam-demo", license="apache-2.0")
    assert {path.name for path in folder.iterdir()} == {"README.md", "app.py", "requirements.txt", "slam_hf"}
    _, metadata, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert metadata["sdk"] == "gradio" and metadata["sdk_version"] == "6.31.0"
    assert metadata["app_file"] == "app.py" and metadata["models"] == ["user/slam"]
    assert metadata["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert metadata["license"] == "apache-2.0" and len(metadata["short_description"]) <= 60
    assert "user/slam" in text and COMMIT in text
    assert (folder / "requirements.txt").read_text() == "gradio==6.31.0\nsoundfile==0.13.1\ntorch==2.11.0\n"
    carried = {path.relative_to(folder / "slam_hf").as_posix() for path in (folder / "slam_hf").rglob("*.*")}
    assert {
        "__init__.py",
        "demo/player.js",
        "demo/style.css",
        "hub/templates/model_card.md",
        "quickstart/prompt.flac",
    } <= carried
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2**21
    assert launched(folder / "app.py", monkeypatch) == (("user/slam",), {"revision": COMMIT})


def test_a_space_can_install_the_package_and_name_a_codec(tmp_path, monkeypatch):
    requirement = "slam-hf @ git+https://github.com/user/slam-hf"
    folder = demo_space("user/slam@v1", tmp_path, "user/demo", codec="user/codec", requirement=requirement)
    assert {path.name for path in folder.iterdir()} == {"README.md", "app.py", "requirements.txt"}
    assert (folder / "requirements.txt").read_text().splitlines()[0] == requirement
    assert launched(folder / "app.py", monkeypatch) == (("user/slam",), {"revision": COMMIT, "codec": "user/codec"})
    metadata = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n", 2)[1])
    assert metadata["models"] == ["user/slam", "user/codec"] and metadata["license"] == "mit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "outputs/slam/final"}, "'outputs/slam/final' is not the name of a repository"),
        ({"model": "user/other"}, "The model user/other at revision main is not on the Hub"),
        ({"model": "user/slam@gone"}, "The model user/slam at revision gone is not on the Hub"),
        ({"codec": 'user/c", x="'}, "is not the name of a repository"),
        ({"requirement": "slam hf"}, "'slam hf' is not a requirement of pip"),
        ({"license": "MIT License"}, "is not a licence of the Hub"),
    ],
)
def test_what_cannot_be_published_is_named(options, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        demo_space(**{"model": "user/slam", "output_dir": tmp_path / "space", "repo_id": "user/demo", **options})


def test_a_package_that_is_not_installed_is_named(hub, monkeypatch):
    def version(name):
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", version)
    with pytest.raises(ImportError, match="A Space needs gradio, at the version that works here"):
        pinned_requirements()


PUBLISH = """
import sys
from pathlib import Path
import push_to_hub
from push_to_hub import PushArguments

folder = Path(sys.argv[1])
push_to_hub.main(PushArguments(repo_id="user/codec", folder=str(folder / "codec")))
push_to_hub.main(PushArguments(repo_id="user/model", folder=str(folder / "model"), codec="user/codec"))
push_to_hub.main(PushArguments(repo_id="user/demo", space="user/model", dry_run=True))
push_to_hub.main(PushArguments(repo_id="user/demo", space="user/model"))
push_to_hub.main(PushArguments(repo_id="user/demo", space="user/model", requirement="slam-hf"))
push_to_hub.main(PushArguments(repo_id="user/demo", space="user/model"))
"""


@pytest.mark.slow
def test_the_app_of_a_published_space_starts(tmp_path, tiny_model, tiny_processor, tiny_codec):
    pytest.importorskip("gradio")
    tiny_codec.save_pretrained(tmp_path / "codec")
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    scripts = os.path.join(os.path.dirname(__file__), "..", "hub_scripts")
    with serve_hub() as hub:
        environment = hub_environment(hub, tmp_path / "home")
        publish = {**environment, "PYTHONPATH": f"{scripts}{os.pathsep}{os.path.dirname(scripts)}"}
        command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
        finished = subprocess.run(command, env=publish, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr
        shown = finished.stdout
        assert "app.py" in shown and "slam_hf/demo/page.py" in shown and "sdk: gradio" in shown
        repository = hub.repositories["spaces", "user/demo"]
        assert len(repository.commits) == 4  # the first one is made with the repository
        without, files = (repository.resolve(commit)[1] for commit in list(repository.commits)[-2:])
        assert not any(path.startswith("slam_hf/") for path in without)  # what was carried before is gone
        space = tmp_path / "space"
        for path, content in files.items():
            (space / path).parent.mkdir(parents=True, exist_ok=True)
            (space / path).write_bytes(content)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # As a Space runs it: with the code that it carries, which comes before an installed package.
        environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "PYTHONPATH": str(space)}
        environment["GRADIO_TEMP_DIR"] = str(sent := tmp_path / "sent")
        with subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stderr=subprocess.PIPE) as app:
            try:
                page = wait_for(f"http://127.0.0.1:{port}/", app)
                httpx2.post(
                    f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": b"spoken"}
                ).raise_for_status()
                assert [path.read_bytes() for path in sent.rglob("*") if path.is_file()] == [b"spoken"]
                app.terminate()
                app.wait(30)
            finally:
                app.kill()
        assert "Hear user/model" in page
        assert [path for path in sent.rglob("*") if path.is_file()] == []


def wait_for(url: str, app: subprocess.Popen) -> str:
    for _ in range(600):
        assert app.poll() is None, app.stderr.read().decode()
        try:
            with urllib.request.urlopen(url) as page:
                return page.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer.")
