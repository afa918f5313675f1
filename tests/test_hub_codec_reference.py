import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback_hub import hub_environment, serve_hub
from loopback_repositories import Repository
from safetensors.numpy import save

from slam_hf.hub.codec_reference import drop_local_codec
from slam_hf.quickstart import QUICKSTART


OLD, NEW = (save({"codebook": np.float32([value])}) for value in (0, 1))

PIN = """
import sys
from pathlib import Path
from slam_hf.hub.codec_reference import pin_codec

try:
    print(pin_codec(Path(sys.argv[1]), *sys.argv[2:]))
except (OSError, ValueError) as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def pin(tmp_path):
    """Pin the codec of a model of 50 units, on a Hub with a codec of 50 units, and one of 100."""
    (tmp_path / "config.json").write_text('{"vocab_size": 52}')
    with serve_hub() as hub:
        for name, num_units in (("codec", 50), ("other", 100), ("bert", None)):
            model_type = "bert" if num_units is None else "hubert_unit_codec"
            config = json.dumps({"model_type": model_type, "num_units": num_units}).encode()
            repository = hub.repositories["models", f"user/{name}"] = Repository("user", private=True)
            repository.tags["v1"] = repository.commit({"config.json": config, "model.safetensors": OLD}, "main")
            repository.commit({"config.json": config, "model.safetensors": NEW}, "main")

        def run(reference: dict | None, *codec: str) -> str:
            processor = {"processor_class": "SpeechLMProcessor", **({} if reference is None else {"codec": reference})}
            (tmp_path / "processor_config.json").write_text(json.dumps(processor))
            command = [sys.executable, "-c", PIN, str(tmp_path), *codec]
            environment = hub_environment(hub, tmp_path / "home")
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout.strip()

        run.commits = hub.repositories["models", "user/codec"]
        yield run


def reference(folder: Path) -> dict:
    return json.loads((folder / "processor_config.json").read_text())["codec"]


def test_a_codec_is_named_with_its_commit(pin, tmp_path):
    newest, tagged = pin.commits.branches["main"], pin.commits.tags["v1"]
    assert pin(None, "user/codec") == f"user/codec@{newest}"
    assert pin(None, "user/codec@v1") == f"user/codec@{tagged}"
    assert reference(tmp_path) == {"name_or_path": "user/codec", "revision": tagged}
    assert pin({"name_or_path": "user/codec", "revision": None}) == f"user/codec@{newest}"
    assert pin({"name_or_path": "user/codec", "revision": tagged}) == f"user/codec@{tagged}"
    assert pin(None) == "None"


def test_a_codec_that_is_not_that_of_the_model_is_refused(pin):
    assert "ValueError: The codec 'user/other' has 100 units and the model 50" in pin(None, "user/other")
    assert "ValueError: user/bert holds a model of type 'bert', not a unit codec" in pin(None, "user/bert")
    assert "ConnectionError: The codec user/nothing at revision main is not on the Hub" in pin(None, "user/nothing")
    assert "ConnectionError: The codec user/codec at revision v2" in pin(None, "user/codec@v2")


def test_the_published_codec_is_the_one_that_the_processor_was_saved_with(pin, tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    (local / "model.safetensors").write_bytes(OLD)
    named = {"name_or_path": str(local), "revision": None}
    assert "ValueError: The processor names its codec by a folder" in pin(named)
    assert "ValueError: user/codec has other weights" in pin(named, "user/codec")
    assert pin(named, "user/codec@v1").startswith("user/codec@")


def test_the_codec_of_the_package_is_published_before_it_is_named(pin):
    named = {"name_or_path": "quickstart:codec", "revision": None}
    assert f"--folder {QUICKSTART / 'codec'} --repo_id" in pin(named)
    assert "ValueError: user/codec has other weights" in pin(named, "user/codec")


@pytest.mark.parametrize(
    ("codec", "stays"),
    [
        ({"name_or_path": "user/codec", "revision": "0" * 40}, True),
        ({"name_or_path": "user/codec", "revision": None}, True),
        ({"name_or_path": "quickstart:codec", "revision": None}, True),
        ({"name_or_path": "/home/jane/secret/codec", "revision": None}, False),
        ({"name_or_path": "../codec"}, False),
        (None, False),
    ],
)
def test_the_path_of_a_codec_stays_here(tmp_path, codec, stays):
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"processor_class": "SpeechLMProcessor", "codec": codec})
    )
    drop_local_codec(tmp_path)
    content = json.loads((tmp_path / "processor_config.json").read_text())
    assert content.get("codec") == (codec if stays else None)
    assert content["processor_class"] == "SpeechLMProcessor"
