"""The page in a real browser: Chromium, driven by Playwright, without a screen. `SLAM_HF_SCREENSHOTS=folder` keeps the
pictures of the README."""

import base64
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoTokenizer, EncodecFeatureExtractor, Qwen2Config, pipeline

from slam_hf import (
    HubertUnitCodec,
    SpeechLMConfig,
    SpeechLMForCausalLM,
    SpeechLMProcessor,
    SpeechTextTokenizer,
)
from slam_hf.quickstart import QUICKSTART


playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
gr = pytest.importorskip("gradio", reason="needs gradio")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="needs Chromium")]

EXAMPLE = QUICKSTART / "prompt.flac"
SPOKEN = Path(__file__).parent / "fixtures" / "librispeech-clips" / "audio1.flac"
OPTIONS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
TAKES = "[...document.querySelectorAll('.take')]"
NOTE_STATUS = """() => {
    window.noted = [];
    const status = document.querySelector('.status');
    const note = () => noted.push({
        status: status.innerText,
        takes: document.querySelectorAll('.take').length,
        invites: document.querySelector('#player .empty').offsetParent !== null,
    });
    new MutationObserver(note).observe(status, {childList: true, characterData: true, subtree: true});
}"""
READ = """async (card) => {
    const bytes = new Uint8Array(await (await fetch(card.querySelector('audio').src)).arrayBuffer());
    let text = '';
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
}"""
READ_TEXTS = "#head h1, #head p, #keeps p, .status, .facts, .take h3, .skip, .time, #go, #stop, [role=tab], label span"
CONTRASTS = """(selector) => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => sum + weight * linear(rgb[i] / 255), 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parts(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const seen = [...document.querySelectorAll(selector)].filter((node) => node.offsetParent && node.innerText.trim());
    return seen.map((node) => {
        const pair = [light(parts(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
        return [node.innerText.slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05)];
    });
}"""


@contextmanager
def serve(speak, folder: Path) -> Iterator[str]:
    """The address of a page, which is served in threads of this process."""
    from slam_hf.demo.launch import page_options
    from slam_hf.demo.page import make_page

    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        page = make_page(speak)
        options = {"server_name": "127.0.0.1", "server_port": port, "prevent_thread_lock": True, "quiet": True}
        page.launch(**{**page_options(), **options})
        yield f"http://127.0.0.1:{port}/"
        page.close(verbose=False)


@pytest.fixture(scope="module")
def speak():
    return pipeline("audio-to-audio", model="quickstart:model")


@pytest.fixture(scope="module")
def address(speak, tmp_path_factory):
    with serve(speak, tmp_path_factory.mktemp("sent")) as address:
        yield address


@pytest.fixture(scope="module")
def text_address(interleaved_checkpoint, tmp_path_factory):
    """The page of a model of speech and text."""
    text_tokenizer = AutoTokenizer.from_pretrained(interleaved_checkpoint / "text-tokenizer")
    tokenizer = SpeechTextTokenizer.from_text_tokenizer(text_tokenizer, num_units=500)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    base_config = Qwen2Config(**sizes, num_key_value_heads=2).to_dict()
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config, **tokenizer.model_vocabulary)).eval()
    processor = SpeechLMProcessor(EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000), tokenizer)
    codec = HubertUnitCodec.from_pretrained("quickstart:codec")
    speak = pipeline("audio-to-audio", model=model, processor=processor, codec=codec)
    with serve(speak, tmp_path_factory.mktemp("text")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    waveform, rate = soundfile.read(SPOKEN)
    soundfile.write(spoken, waveform, rate, subtype="PCM_16")
    with playwright.sync_playwright() as driver:
        options = [*OPTIONS, f"--use-file-for-fake-audio-capture={spoken}"]
        browser = driver.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Opens a page. At the end, nothing was asked of any other server, and no error is in the console."""
    requests, errors, contexts = [], [], []

    def open_page(address: str, reads_console: bool = True, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        if reads_console:
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.get_by_role("button", name="Continue", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert len(requests) > 10
    assert [url for url in requests if not url.startswith(("http://127.0.0.1:", "blob:", "data:"))] == []
    assert errors == []


def give(page, path: Path, label: str = "#recording") -> None:
    """Give the page a recording."""
    page.locator(f"{label} input[type=file]").set_input_files(path)
    page.locator(f"{label} [aria-label=Clear]:visible").wait_for()


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def wait_for_takes(page, number: int) -> None:
    page.wait_for_function(f"{TAKES}.length === {number} && {TAKES}.every((take) => take.dataset.done === 'true')")


def heard(page, index: int) -> np.ndarray:
    """The samples of the audio element of a take."""
    card = page.locator(".take").nth(index).element_handle()
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(page.evaluate(READ, card))), dtype="float32")
    assert rate == 16_000
    return waveform


def error_of(page) -> str:
    """The sentence that is shown after a mistake."""
    toast = page.locator(".toast-body").first
    toast.wait_for()
    text = toast.inner_text()
    keep_picture(page, "demo-error")
    page.locator(".toast-close").first.click()
    toast.wait_for(state="detached")
    assert "Traceback" not in text and str(Path.home()) not in text and "/tmp" not in text
    return " ".join(text.split())


def keep_picture(page, name: str, **options) -> None:
    if folder := os.environ.get("SLAM_HF_SCREENSHOTS"):
        from PIL import Image

        picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
        picture.save(Path(folder) / f"{name}.webp", quality=80, method=6)


def test_a_recording_is_continued_and_heard_while_it_is_made(visit, address, speak):
    page = visit(address, viewport={"width": 1120, "height": 1000})
    give(page, SPOKEN)
    pressed = page.evaluate("performance.now()")
    press(page, "Continue")
    wait_for_takes(page, 3)
    page.mouse.move(0, 0)
    keep_picture(page, "demo")
    marks = page.evaluate("performance.getEntriesByType('mark').map((mark) => [mark.name, mark.startTime])")
    times = dict(marks)
    assert pressed < times["first sound"] < times["made Continuation 1"] < times["made Continuation 2"]
    for index in (1, 2):
        expected = speak(str(SPOKEN), prompt_duration=3.0, seed=index - 1)
        waveform = heard(page, index)
        np.testing.assert_allclose(waveform, np.clip(expected["audio"], -1, 1), atol=2e-3)
        assert np.sqrt(np.square(waveform).mean()) > 0.01
        facts = page.locator(".take").nth(index).locator(".facts").inner_text()
        assert f"seed {index - 1} · {len(expected['units'])} units" in facts
    prompt = heard(page, 0)
    np.testing.assert_array_equal(prompt, heard(page, 1)[: len(prompt)])
    assert 1.5 < len(prompt) / 16_000 < 4.5 and np.sqrt(np.square(prompt).mean()) > 0.01

    page.get_by_role("button", name="Play Continuation 2").click()
    playing = f"{TAKES}.map((take) => take.querySelector('audio')).map((audio) => !audio.paused)"
    page.wait_for_function(f"{TAKES}[2].querySelector('audio').currentTime > 0.3")
    assert page.evaluate(playing) == [False, False, True]
    assert page.get_by_role("button", name="Play Continuation 1").count() == 1  # it was stopped
    page.locator(".take").nth(1).get_by_role("button", name="Skip the prompt").click()
    page.wait_for_function(f"{TAKES}[1].querySelector('audio').currentTime > {len(prompt) / 16_000}")
    assert page.evaluate(playing) == [False, True, False]
    with page.expect_download() as download:
        page.get_by_role("link", name="Save Continuation 1").click()
    assert download.value.suggested_filename == "continuation-1.wav"


def test_stop_and_a_closed_page_free_the_model_for_others(visit, address):
    first, second = visit(address), visit(address)
    for page in (first, second):
        give(page, SPOKEN)
        page.get_by_role("button", name="Sampling and seed").click()
        page.get_by_label("number input for Longest continuation, in units").fill("400")
        page.get_by_label("number input for Continuations").fill("4")
    press(first, "Continue")
    first.locator(".take").first.wait_for()
    press(first, "Stop")
    first.wait_for_function("document.querySelector('.status').innerText === 'Stopped.'")
    assert first.evaluate(f"{TAKES}.every((take) => take.dataset.done === 'true')")
    assert len(heard(first, 0)) > 8_000
    first.evaluate(NOTE_STATUS)
    press(first, "Continue")
    first.wait_for_function("document.querySelector('.status').innerText.startsWith('Making')")
    # What was made before is not shown while the prompt is read.
    assert first.evaluate("noted[0]") == {"status": "Reading the prompt …", "takes": 0, "invites": False}
    first.close()
    second.get_by_label("number input for Continuations").fill("1")
    press(second, "Continue")
    wait_for_takes(second, 2)


def test_the_microphone_is_heard(visit, address):
    page = visit(address, permissions=["microphone"])
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.locator("#recording").get_by_role("button", name="Stop").first.click()
    page.locator("#recording [aria-label=Clear]:visible").wait_for()
    page.get_by_label("number input for Continuations").fill("1")
    press(page, "Continue")
    wait_for_takes(page, 2)
    assert np.sqrt(np.square(heard(page, 0)).mean()) > 0.01


def test_two_recordings_are_compared(visit, address, speak):
    page = visit(address)
    page.get_by_role("tab", name="Compare").click()
    press(page, "Which is more natural?")
    assert "The first recording is missing" in error_of(page)
    press(page, "Use the example, forwards and backwards")
    for label in ("#first", "#second"):
        page.locator(f"{label} [aria-label=Clear]:visible").wait_for()
    press(page, "Which is more natural?")
    page.locator(".verdict").wait_for()
    assert page.locator(".verdict").inner_text() == "The model finds the first recording more natural."
    forwards, backwards = (
        float(text.split()[0].replace("−", "-")) for text in page.locator(".scored b").all_inner_texts()
    )
    assert backwards < forwards - 1
    ids = speak.preprocess(str(EXAMPLE))["input_ids"]
    ids = torch.cat([ids, torch.tensor([[speak.tokenizer.eos_token_id]])], dim=1)
    assert forwards == pytest.approx(speak.model.log_likelihood(ids).item(), abs=0.006)
    assert page.locator(".strip").count() == 2 and page.locator(".strip i").count() > 40
    page.get_by_role("button", name="Which is more natural?").click()
    page.wait_for_function("!document.querySelector('.verdict')")
    page.locator(".verdict").wait_for()


def test_mistakes_are_answered_with_a_sentence(visit, address, tmp_path):
    page = visit(address, reads_console=False)  # the player of recordings complains there about one that is damaged
    press(page, "Continue")
    assert "There is no recording yet: record something, or choose a file." in error_of(page)
    assert page.locator(".status").inner_text() == "" and page.locator("#player .empty").is_visible()
    (tmp_path / "notes.wav").write_text("This is a text and not a recording.")
    long = np.random.default_rng(0).uniform(-0.1, 0.1, 61 * 8_000)
    soundfile.write(tmp_path / "long.wav", long, 8_000)
    (tmp_path / "big.wav").write_bytes(bytes(26 * 2**20))
    for name, sentence in {
        "notes.wav": "'notes.wav': cannot be read as audio",
        "long.wav": "'long.wav' is longer than 60 seconds: choose a shorter recording.",
    }.items():
        page.locator("#recording input[type=file]").set_input_files(tmp_path / name)
        page.locator("#recording [aria-label=Clear]:visible").wait_for()
        press(page, "Continue")
        assert sentence in error_of(page)
        page.locator("#recording [aria-label=Clear]:visible").click()
        page.locator("#recording input[type=file]").wait_for(state="attached")
    page.locator("#recording input[type=file]").set_input_files(tmp_path / "big.wav")
    assert "maximum allowed size of 25" in error_of(page)
    # The page still works.
    give(page, SPOKEN)
    page.get_by_label("number input for Continuations").fill("1")
    press(page, "Continue")
    wait_for_takes(page, 2)


def test_a_phone_shows_everything_within_its_width(visit, address):
    page = visit(address, **PHONE)
    press(page, "Use the example recording")
    page.locator("#recording [aria-label=Clear]:visible").wait_for()
    press(page, "Continue")
    wait_for_takes(page, 3)
    page.wait_for_function(f"{TAKES}[1].getBoundingClientRect().top < innerHeight")  # it scrolls to them
    keep_picture(page, "demo-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = "[...document.querySelectorAll('{}')].map((element) => element.getBoundingClientRect().{})"
    assert max(page.evaluate(boxes.format(".take, #go, #recording", "right"))) <= 390
    sizes = [page.evaluate(boxes.format(".play, #go, #stop", side)) for side in ("width", "height")]
    assert min(map(min, sizes)) >= 40
    page.get_by_role("tab", name="Compare").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_alone_is_enough(visit, address):
    page = visit(address)

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(document.activeElement.ariaLabel || document.activeElement.innerText || '').trim()"
            )
            if focused == name:
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{name} does not show that it has the focus"
                return
        raise AssertionError(f"Tab does not lead to {name}.")

    # Playwright does not wait until Chromium hands it the dialog of files: it has the time of the way there.
    with page.expect_file_chooser() as chooser:
        tab_to("Drop an audio file here to upload")
        page.keyboard.press("Enter")
    chooser.value.set_files(SPOKEN)
    page.locator("#recording [aria-label=Clear]:visible").wait_for()
    tab_to("Continue")
    page.keyboard.press("Enter")
    wait_for_takes(page, 3)
    tab_to("Play Continuation 2")
    page.keyboard.press("Space")
    page.wait_for_function(f"{TAKES}[2].querySelector('audio').currentTime > 0.1")
    page.keyboard.press("Space")
    page.wait_for_function(f"{TAKES}[2].querySelector('audio').paused")
    tab_to("Position in Continuation 2")
    before = page.evaluate(f"{TAKES}[2].querySelector('audio').currentTime")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{TAKES}[2].querySelector('audio').currentTime") > before + 0.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_can_be_read(visit, address, scheme):
    page = visit(address, color_scheme=scheme)
    press(page, "Use the example recording")
    page.locator("#recording [aria-label=Clear]:visible").wait_for()
    page.get_by_label("number input for Continuations").fill("1")
    press(page, "Continue")
    wait_for_takes(page, 2)
    keep_picture(page, f"demo-{scheme}", full_page=True)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(background) > 600) == (scheme == "light")
    contrasts = page.evaluate(CONTRASTS, READ_TEXTS)
    assert len(contrasts) > 12
    assert [contrast for contrast in contrasts if contrast[1] < 4.5] == []


def test_a_model_of_text_reads_and_writes(visit, text_address):
    page = visit(text_address)
    page.get_by_label("Text before the recording").fill("Once upon a time")
    page.get_by_role("radio", name="text").check()
    page.get_by_label("number input for Continuations").fill("1")
    press(page, "Continue")
    wait_for_takes(page, 1)
    assert page.locator(".take blockquote span").inner_text() == "Once upon a time"
    assert page.locator(".take blockquote strong").inner_text() != ""
    page.get_by_role("radio", name="speech").check()
    give(page, SPOKEN)
    press(page, "Continue")
    wait_for_takes(page, 2)
    assert len(heard(page, 1)) > len(heard(page, 0))


def test_nothing_that_was_sent_stays_or_leaves_the_machine(speak, browser, tmp_path, monkeypatch):
    connect, connected = socket.socket.connect, set()

    def note(self, address):
        connected.add(address[0] if isinstance(address, tuple) else "local")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    sent = tmp_path / "sent"
    with serve(speak, sent) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        give(page, SPOKEN)
        files = [path for path in sent.rglob("*") if path.is_file()]
        assert [path.name for path in files] == [SPOKEN.name]
        press(page, "Continue")
        wait_for_takes(page, 3)
        assert [path for path in sent.rglob("*") if path.is_file()] == files  # no file has what the model says
        context.close()
    wait_until(lambda: not any(path.is_file() for path in sent.rglob("*")))
    assert connected <= {"local", "127.0.0.1", "localhost", "::1", "0.0.0.0"}


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
