"""Samples of a model: made, checked, on its card and in its repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from loopback_hub import hub_environment, serve_hub
from transformers import pipeline

from slam_hf import SpeechLMProcessor, load_audio
from slam_hf.hub.model_card import render_model_card
from slam_hf.hub.preview import render_page
from slam_hf.hub.samples import MAX_BYTES, read_samples, save_samples


SCRIPTS = Path(__file__).parents[1] / "hub_scripts"


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_processor, tiny_codec, recordings):
    """A model with samples of two recordings, and a codec beside it."""
    tiny_codec.save_pretrained(tmp_path / "codec")
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    speak = pipeline("audio-to-audio", model=tiny_model, processor=tiny_processor, codec=tiny_codec, max_new_tokens=8)
    save_samples(tmp_path / "model", speak, list(map(str, recordings)), seeds=(3, 4), prompt_seconds=1.0)
    return tmp_path / "model"


def test_samples_are_what_the_pipeline_says(folder, tiny_model, tiny_codec, recordings):
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        *("1-seed-3.flac", "1-seed-3.png", "1-seed-4.flac", "1.flac"),
        *("2-seed-3.flac", "2-seed-3.png", "2-seed-4.flac", "2.flac", "samples.json"),
    ]
    processor = SpeechLMProcessor.from_pretrained(folder)
    speak = pipeline("audio-to-audio", model=tiny_model, processor=processor, codec=tiny_codec, max_new_tokens=8)
    said = speak(str(recordings[1]), prompt_duration=1.0, seed=4)["audio"]
    written, rate = soundfile.read(folder / "samples/2-seed-4.flac", dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(written, said, atol=2**-15)
    prompt, _ = soundfile.read(folder / "samples/2.flac", dtype="float32")
    np.testing.assert_allclose(prompt, load_audio(recordings[1], 16_000)[:16_000], atol=2**-15)
    third = read_samples(folder)[2]
    assert (third.recording, third.prompt, third.seed) == ("audio2.flac", "2.flac", 3)
    assert third.settings == {"temperature": 0.8, "top_k": 25, "repetition_penalty": 1.1}


def test_the_card_plays_the_samples(folder):
    card = render_model_card(folder, "user/model", revision="a/b")
    url = "https://huggingface.co/user/model/resolve/a%2Fb/samples"
    assert (
        "`audio1.flac`, sampled with temperature 0.8, top k 25, repetition penalty 1.1:\n\n"
        "| the first 1.0 s | continued, seed 3 | continued, seed 4 |\n"
        "| --- | --- | --- |\n"
        f'| <audio controls src="{url}/1.flac"></audio> | <audio controls src="{url}/1-seed-3.flac"></audio> | '
        f'<audio controls src="{url}/1-seed-4.flac"></audio> |\n\n'
        "![Spectrogram and units of the prompt and of the first continuation](samples/1-seed-3.png)\n"
    ) in card.text
    assert card.data.widget == [
        {"src": f"{url}/1.flac", "example_title": "audio1.flac"},
        {"src": f"{url}/2.flac", "example_title": "audio2.flac"},
    ]


def test_the_card_of_a_model_without_an_owner_plays_the_files_beside_it(folder):
    card = render_model_card(folder)
    assert '<audio controls src="samples/1.flac"></audio>' in card.text and card.data.get("widget") is None


def change(folder, **changes):
    path = folder / "samples/samples.json"
    samples = json.loads(path.read_text())
    samples[0] |= changes
    path.write_text(json.dumps(samples))


def test_names_in_the_list_are_escaped(folder):
    change(folder, recording='</audio><script>alert(1)</script>`| "x"', settings={"<img src=x>": 1})
    text = render_model_card(folder, "user/model").text
    assert "<script" not in text and "<img" not in text
    page = render_page_of(folder, text)
    assert "<script" not in page and "<img src=x" not in page


def render_page_of(folder, text):
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{text}")
    return render_page(folder, "https://huggingface.co/user/model/resolve/main/")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "../../secret.flac"}, "names '../../secret.flac', which is not a .flac or .png file beside it"),
        ({"continuation": "run.py"}, "names 'run.py', which is not a .flac or .png file beside it"),
        ({"picture": "/etc/passwd"}, "names '/etc/passwd'"),
        ({"seed": "0"}, "is not a list of samples"),
        ({"more": 1}, "is not a list of samples"),
    ],
)
def test_a_list_that_names_other_files_is_refused(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        render_model_card(folder, "user/model")


def test_samples_are_bounded(folder):
    (folder / "samples/1.flac").write_bytes(b"fLaC" + bytes(MAX_BYTES))
    with pytest.raises(ValueError, match=r"1.flac' has 1,048,580 bytes: a sample may have 1,048,576"):
        read_samples(folder)
    samples = json.loads((folder / "samples/samples.json").read_text())
    samples = [{**samples[0], "continuation": f"{number}.flac"} for number in range(60)]
    (folder / "samples/samples.json").write_text(json.dumps(samples))
    with pytest.raises(ValueError, match="names 61 files: at most 48 belong on a card"):
        read_samples(folder)


def test_a_model_without_samples_has_none_on_its_card(folder):
    (folder / "samples/samples.json").unlink()
    assert read_samples(folder) == [] and "Samples" not in render_model_card(folder, "user/model").text


def test_the_page_holds_the_audio_and_fetches_nothing(folder):
    text = render_model_card(folder, "user/model").text
    (folder.parent / "secret.png").write_bytes(b"secret")
    text += '\n![x](../secret.png) <img src="https://elsewhere.org/x.png">\n'
    page = render_page_of(folder, text)
    assert page.count('<audio controls src="data:audio/') == 6
    assert page.count('src="data:image/png;base64,') == 2
    assert 'src="../secret.png"' in page and "c2VjcmV0" not in page
    assert "default-src 'none'; img-src data:; media-src data:" in page
    assert "<h2>Samples</h2>" in page and "<table>" in page and "license: mit" in page


PUSH = """
import os, sys
import push_to_hub
from push_to_hub import PushArguments

folder, step = sys.argv[1:]
push_to_hub.webbrowser.open = None  # nobody is there to see it
options = {"folder": folder, "codec": "user/codec", "repo_id": "user/model"}
if step == "first":
    push_to_hub.main(PushArguments(repo_id="user/codec", folder=f"{folder}/../codec"))
    push_to_hub.main(PushArguments(dry_run=True, page=f"{os.path.dirname(folder)}/card.html", **options))
push_to_hub.main(PushArguments(**options))
"""


def test_samples_are_published_in_the_same_commit(folder):
    (folder / "samples/notes.txt").write_text("for nobody else")
    with serve_hub() as hub:
        environment = hub_environment(hub, folder.parent / "home")
        environment |= {"PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])}

        def push(step):
            command = [sys.executable, "-c", PUSH, str(folder), step]
            finished = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert finished.returncode == 0, finished.stderr
            return hub.repositories["models", "user/model"].resolve("main")[1], finished.stdout

        files, shown = push("first")
        names = {name for name in files if name.startswith("samples/")}
        assert names == {f"samples/{path.name}" for path in (folder / "samples").iterdir()} - {"samples/notes.txt"}
        assert files["samples/1.flac"] == (folder / "samples/1.flac").read_bytes()
        assert b'src="https://huggingface.co/user/model/resolve/main/samples/2-seed-4.flac"' in files["README.md"]
        assert len(hub.repositories["models", "user/model"].commits) == 2  # the first one is made with the repository
        page = folder.parent / "card.html"
        assert f"The card as a page: {page}\n" in shown and page.read_text().count("data:audio/") == 6

        samples = json.loads((folder / "samples/samples.json").read_text())[:1]
        (folder / "samples/samples.json").write_text(json.dumps(samples))
        files, _ = push("again")
        names = {name for name in files if name.startswith("samples/")}
        assert names == {"samples/1.flac", "samples/1-seed-3.flac", "samples/1-seed-3.png", "samples/samples.json"}
