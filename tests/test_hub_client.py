import httpx2
import pytest
from huggingface_hub import HfApi, close_session, constants, get_session, hf_hub_download, set_client_factory
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from slam_hf.hub_client import fail_without_network
from slam_hf.loading_utils import naming_damaged_files


@pytest.fixture
def asked(monkeypatch):
    """A process that fails without a network. What `asked[0]` says is sent, or raised, and every request is kept."""
    asked = [httpx2.ConnectError("no route")]

    def send(self, request, **options):
        asked.append(f"{request.method} {request.url.path}")
        if isinstance(asked[0], Exception):
            raise asked[0]
        return httpx2.Response(asked[0], request=request, json={"id": "user/a"})

    monkeypatch.setattr(httpx2.Client, "send", send)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", asked.append)
    fail_without_network(pause=0.25)
    yield asked
    set_client_factory(httpx2.Client)


def download(name, cache_dir):
    hf_hub_download(name, "config.json", cache_dir=cache_dir)


def test_a_name_that_is_nowhere_fails_after_one_pause(asked, tmp_path):
    with pytest.raises(OfflineModeIsEnabled, match=r"^https://huggingface.co cannot be reached \(no route\)$"):
        get_session().get(f"{constants.ENDPOINT}/a")
    assert asked[1:] == ["GET /a", 0.25, "GET /a"]
    for _ in range(2):
        message = (
            "^There is no folder 'user/a', and from the Hub it cannot be loaded: https://huggingface.co cannot be"
        )
        with pytest.raises(OSError, match=message), naming_damaged_files("user/a"):
            download("user/a", tmp_path)
    assert asked[4:].count("HEAD /user/a/resolve/main/config.json") == 2
    assert not [pause for pause in asked[4:] if isinstance(pause, float)]


@pytest.mark.parametrize("problem", [httpx2.ConnectTimeout("late"), httpx2.ReadTimeout("late"), 503])
def test_a_slow_hub_is_asked_as_often_as_before(asked, problem, tmp_path):
    asked[0] = problem
    with pytest.raises((LocalEntryNotFoundError, httpx2.HTTPError)):
        download("user/a", tmp_path)
    assert asked[1:].count("HEAD /user/a/resolve/main/config.json") == 7
    assert [pause for pause in asked[1:] if isinstance(pause, int | float)] == [1, 2, 4, 8, 8]


def test_a_hub_that_has_answered_is_waited_for(asked, tmp_path):
    asked[0] = 200
    assert HfApi().model_info("user/a").id == "user/a"
    asked[0] = httpx2.ConnectError("no route")
    with pytest.raises(LocalEntryNotFoundError):
        download("user/a", tmp_path)
    assert [pause for pause in asked[1:] if isinstance(pause, int | float)] == [1, 2, 4, 8, 8]


def test_uploads_and_other_servers_are_waited_for(asked):
    for method, url in (("POST", f"{constants.ENDPOINT}/api/repos/create"), ("GET", "https://example.org/a.flac")):
        with pytest.raises(httpx2.ConnectError):
            get_session().request(method, url)
    close_session()
    assert asked[1:] == ["POST /api/repos/create", "GET /a.flac"]
