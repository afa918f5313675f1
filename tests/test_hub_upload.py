import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import hub_environment, serve_hub
from loopback_repositories import HubError


PUBLISH = """
import sys
from pathlib import Path
from slam_hf.hub.upload import publish_folder

options = dict(option.split("=") for option in sys.argv[3:])
options = {name: value == "True" if value in ("True", "False") else value for name, value in options.items()}
try:
    print(publish_folder(Path(sys.argv[1]), sys.argv[2], **options).oid)
except (OSError, ValueError) as error:
    raise SystemExit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def hub():
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / ".hidden").write_text("not for others")
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def publish(hub, folder, tmp_path):
    """Publish the folder in a process of its own, as the user of a token; returns what it prints."""

    def run(repo_id: str = "user/model", token: str = "hf_loopback", **options) -> str:
        arguments = [str(folder), repo_id, *(f"{name}={value}" for name, value in options.items())]
        process = subprocess.run(
            [sys.executable, "-c", PUBLISH, *arguments],
            env=hub_environment(hub, tmp_path / "home", token),
            capture_output=True,
            text=True,
            timeout=60,
        )
        output = process.stdout + process.stderr
        assert token == "" or token not in output
        return output.strip()

    return run


def files(hub, repo_id: str = "user/model", revision: str = "main", kind: str = "models") -> set[str]:
    return set(hub.repositories[kind, repo_id].resolve(revision)[1]) - {".gitattributes"}


def test_a_folder_is_one_commit(hub, folder, publish):
    first = publish().splitlines()[0]
    repository = hub.repositories["models", "user/model"]
    assert list(repository.commits)[1:] == [first]
    assert files(hub) == {"config.json", "model-1.safetensors", "model-2.safetensors"}
    assert repository.commits[first]["model-1.safetensors"] == b"model-1.safetensors"
    assert not repository.private

    (folder / "model-2.safetensors").unlink()
    (folder / "model-1.safetensors").rename(folder / "model.safetensors")
    second = publish(revision="next", tag="v1", delete_patterns="model*.safetensors").splitlines()[0]
    assert files(hub, revision="v1") == files(hub, revision="next") == {"config.json", "model.safetensors"}
    assert (repository.branches["main"], repository.branches["next"]) == (first, second)
    assert "ValueError: user/model has a tag 'v1' already" in publish(tag="v1")


def test_private_stays_private(hub, publish):
    publish("user/secret", private=True, repo_type="dataset")
    assert hub.repositories["datasets", "user/secret"].private
    publish("user/open")
    assert "ValueError: user/open exists and is public" in publish("user/open", private=True)


@pytest.mark.parametrize(
    ("token", "repo_id", "error"),
    [
        ("", "user/model", "PermissionError: You are not logged in to the Hub"),
        ("hf_forgotten", "user/model", "PermissionError: The Hub does not know your token"),
        ("hf_reader", "user/model", "PermissionError: Your token may not write to user/model"),
        ("hf_loopback", "other/model", "PermissionError: Your token may not write to other/model"),
        ("hf_loopback", "user/mo del", "HFValidationError: Repo id must use alphanumeric chars"),
    ],
)
def test_errors_say_what_to_do(hub, publish, token, repo_id, error):
    assert error in publish(repo_id, token)
    assert hub.repositories == {}


def test_a_token_that_the_server_repeats_is_not_shown(hub, publish):
    hub.refused = HubError(418, "Refused", {"error": "your token is hf_loopback, once hf_another1"})
    assert "(HTTP 418: " in (output := publish())
    assert "your token is <token>, once <token>" in output


def test_links_and_files_that_hold_the_token_are_refused(hub, folder, publish, tmp_path):
    (folder / "notes.txt").symlink_to(tmp_path / "home" / "token")
    assert f"ValueError: '{folder / 'notes.txt'}' is not a regular file" in publish()
    (folder / "notes.txt").unlink()
    (folder / "README.md").write_text("my token is hf_loopback.")
    assert "ValueError: 'README.md' holds your token of the Hub" in publish()
    assert hub.repositories == {}


def test_an_interrupted_upload_leaves_nothing_behind_and_can_be_repeated(hub, folder, publish, tmp_path):
    hub.stalls_after = 1
    command = [sys.executable, "-c", PUBLISH, str(folder), "user/model"]
    process = subprocess.Popen(command, env=hub_environment(hub, tmp_path / "home"), stderr=subprocess.DEVNULL)
    assert hub.stalled.wait(60)
    process.kill()
    process.wait()
    assert files(hub) == set()

    hub.stalls_after = None
    hub.requests.clear()
    publish()
    assert files(hub) == {"config.json", "model-1.safetensors", "model-2.safetensors"}
    assert len([request for request in hub.requests if request.startswith("PUT")]) == 1
