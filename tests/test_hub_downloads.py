"""What the Hub's own client does with private repositories and damaged files, on which loading by name rests."""

import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import hub_environment, serve_hub
from loopback_repositories import Repository


FIXTURE = Path(__file__).parent / "fixtures" / "published-checkpoint"

DOWNLOAD = """
import sys
from huggingface_hub import HfApi, hf_hub_download

try:
    print(len(open(hf_hub_download(sys.argv[1], "model.safetensors"), "rb").read()))
    check = HfApi().verify_repo_checksums(sys.argv[1])
    print([mismatch["path"] for mismatch in check.mismatches])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def hub():
    with serve_hub() as hub:
        for name in ("open", "secret"):
            repository = Repository("user", private=name == "secret")
            repository.commit({path.name: path.read_bytes() for path in FIXTURE.iterdir()}, "main")
            hub.repositories["models", f"user/{name}"] = repository
        yield hub


@pytest.fixture
def download(hub, tmp_path):
    def run(repo_id: str, token: str = "hf_loopback", script: str = DOWNLOAD) -> list[str]:
        command = [sys.executable, "-c", script, repo_id]
        environment = hub_environment(hub, tmp_path / "home", token)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout.splitlines()

    return run


def test_private_repositories_are_for_their_owner(download):
    size = str((FIXTURE / "model.safetensors").stat().st_size)
    for repo_id, token in (("user/open", ""), ("user/open", "hf_other"), ("user/secret", "hf_reader")):
        assert download(repo_id, token) == [size, "[]"]


@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_other", 404)])
def test_others_are_not_told_whether_a_private_repository_exists(download, token, status):
    for repo_id in ("user/secret", "user/nothing"):
        [first, *_] = download(repo_id, token)
        assert first.startswith(f"RepositoryNotFoundError {status} Client Error"), first


def test_a_file_that_is_cut_short_is_refused_and_fetched_again(hub, download):
    hub.damage = lambda path, content: content[:-1]
    [error, *_] = download("user/open")
    assert error.startswith("OSError Consistency check failed: file should be of size")
    hub.damage = lambda path, content: content
    assert len(download("user/open")) == 2


def test_other_content_of_the_same_size_is_found_by_its_checksum(hub, download):
    hub.damage = lambda path, content: content[:-1] + bytes([content[-1] ^ 1])
    assert download("user/open")[1] == "['model.safetensors']"
