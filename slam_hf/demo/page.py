"""The page: what a visitor can do and what they see."""

import html
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..pipeline_audio_to_audio import AudioToAudioPipeline
from ..public_names import public_name
from ..quickstart import QUICKSTART
from .speaking import MAX_SECONDS, Sampling, continue_prompt, read_recording, score


FOLDER = Path(__file__).parent
EXAMPLE = QUICKSTART / "prompt.flac"
KEPT_SECONDS = 600
"""How long a recording stays on the server, so that it can be continued again."""

MAX_WAITING = 20
"""Visitors who may wait for the model, which works for one at a time."""

FAILED = "This did not work"

# What the browser shows at once when a visitor begins or stops, and when the model is free again. As long as it works,
# the status ends with an ellipsis, and gradio ignores another press.
BEGIN = """(value) => value && value.status && value.status.endsWith("…") ? value :
    ({run: String(Date.now()), takes: [], status: "Reading the prompt …"})"""
STOPPED = """(value) => {
    if (!value || !value.status || !value.status.endsWith("…")) return value;
    return {...value, takes: value.takes.map((take) => ({...take, done: true})), stopped: true, status: "STATUS"};
}"""
STOP, END = STOPPED.replace("STATUS", "Stopping …"), STOPPED.replace("STATUS", "Stopped.")


def make_page(speak: AudioToAudioPipeline, name: str | None = None) -> gr.Blocks:
    r"""
    Make the page of a model.

    Args:
        speak ([`AudioToAudioPipeline`]):
            The model with its codec.
        name (`str`, *optional*):
            The model's name on the page. Defaults to the one that it was loaded by, without the path of a folder.

    Returns:
        `gradio.Blocks`, which [`launch_demo`] serves.
    """
    name = name or public_name(speak.model.name_or_path)
    with gr.Blocks(title=f"Hear {name}", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.HTML(_head(name, speak.tokenizer.has_text), elem_id="head")
        with gr.Tab("Continue"):
            _continue_tab(speak)
        with gr.Tab("Compare"):
            _compare_tab(speak)
        gr.HTML(
            f"<p>Recordings have at most {MAX_SECONDS} seconds. They stay on this server for {KEPT_SECONDS // 60} "
            "minutes at most, and nothing that is made of them is stored.</p>",
            elem_id="keeps",
        )
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)


def _head(name: str, has_text: bool) -> str:
    what = "speech and text" if has_text else "speech"
    return (
        f"<h1>What comes next?</h1><p>Say something, and a language model of {what} goes on: "
        f"<code>{html.escape(name)}</code> hears the units of your recording, predicts the units that follow, and a "
        "vocoder speaks them.</p>"
    )


def _recording(label: str, elem_id: str) -> gr.Audio:
    return gr.Audio(
        label=label, sources=["upload", "microphone"], type="filepath", elem_id=elem_id, buttons=[], editable=True
    )


def _continue_tab(speak: AudioToAudioPipeline) -> None:
    has_text = speak.tokenizer.has_text
    defaults = Sampling()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=290):
            text = gr.Textbox(
                label="Text before the recording", placeholder="Once upon a time", lines=2, visible=has_text
            )
            recording = _recording("Recording", "recording")
            example = gr.Button("Use the example recording", size="sm")
            modality = gr.Radio(["speech", "text"], value="speech", label="Continue in", visible=has_text)
            duration = gr.Slider(0.5, 15, defaults.prompt_duration, step=0.5, label="Prompt, in seconds")
            count = gr.Slider(1, 4, 2, step=1, label="Continuations")
            with gr.Accordion("Sampling and seed", open=False):
                temperature = gr.Slider(
                    0, 1.5, defaults.temperature, step=0.05, label="Temperature", info="0: the most likely unit"
                )
                top_k = gr.Slider(1, 100, defaults.top_k, step=1, label="Top k", info="Choose among so many units")
                penalty = gr.Slider(1, 2, defaults.repetition_penalty, step=0.05, label="Repetition penalty")
                length = gr.Slider(25, 400, defaults.max_new_tokens, step=25, label="Longest continuation, in units")
                seed = gr.Number(0, label="Seed of the first continuation", precision=0, minimum=0, maximum=2**31)
            with gr.Row():
                go = gr.Button("Continue", variant="primary", elem_id="go")
                stop = gr.Button("Stop", elem_id="stop", min_width=80)
        with gr.Column(scale=3, min_width=290):
            player = gr.HTML(
                html_template=(FOLDER / "player.html").read_text("utf-8"),
                js_on_load=(FOLDER / "player.js").read_text("utf-8"),
                apply_default_css=False,
                elem_id="player",
            )

    def speak_on(
        recording: str | None,
        text: str,
        modality: str,
        prompt_duration: float,
        count: int,
        temperature: float,
        top_k: int,
        repetition_penalty: float,
        max_new_tokens: int,
        seed: int | None,
    ) -> Iterator[dict[str, Any]]:
        takes, run = [], secrets.token_hex(8)
        with _as_sentences():
            begin, first = time.perf_counter(), None
            prompt = [{"text": text}] if text else []
            sampling = Sampling(prompt_duration, max_new_tokens, temperature, top_k, repetition_penalty)
            try:
                if recording or not text:
                    prompt.append(read_recording(recording))
                prompt = prompt[0] if len(prompt) == 1 else [prompt]
                for takes in continue_prompt(speak, prompt, sampling, seed or 0, count, modality):
                    first = time.perf_counter() - begin if first is None else first
                    made = sum(take.done for take in takes if take.name != "Prompt")
                    status = f"Making continuation {min(made + 1, count)} of {count} …"
                    if made == count:
                        some = f"{count} continuations" if count > 1 else "1 continuation"
                        what = "text" if modality == "text" else "sound"
                        seconds = time.perf_counter() - begin
                        status = f"{some} in {seconds:.1f}\u00a0s, the first {what} after {first:.1f}\u00a0s."
                    yield {"run": run, "status": status, "takes": [asdict(take) for take in takes]}
            except Exception:
                yield {"run": run, "status": "", "takes": [asdict(take) | {"done": True} for take in takes]}
                raise

    inputs = [recording, text, modality, duration, count, temperature, top_k, penalty, length, seed]
    hidden = {"api_visibility": "private"}
    go.click(None, player, player, js=BEGIN, **hidden)
    making = go.click(speak_on, inputs, player, show_progress="minimal", concurrency_id="model", **hidden)
    making.then(None, player, player, js=END, **hidden)
    stop.click(None, player, player, js=STOP, cancels=making, **hidden)
    example.click(lambda: str(EXAMPLE), None, recording, queue=False, **hidden)


def _compare_tab(speak: AudioToAudioPipeline) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=290):
            first = _recording("First recording", "first")
            second = _recording("Second recording", "second")
            example = gr.Button("Use the example, forwards and backwards", size="sm")
            go = gr.Button("Which is more natural?", variant="primary", elem_id="compare")
        with gr.Column(scale=3, min_width=290):
            verdict = gr.HTML(
                '<p class="empty">Two recordings, and the model says which one it finds more natural.</p>',
                elem_id="verdict",
                apply_default_css=False,
            )

    def compare(*paths: str | None) -> str:
        with _as_sentences():
            names = ("first", "second")
            for which, path in zip(names, paths, strict=True):
                if not path:
                    raise ValueError(f"The {which} recording is missing: record something, or choose a file.")
            return _verdict(names, [score(speak, read_recording(path)) for path in paths])

    def example_pair() -> tuple[str, tuple[int, np.ndarray]]:
        read = read_recording(str(EXAMPLE))
        return str(EXAMPLE), (read["sampling_rate"], (read["array"][::-1] * 32767).astype(np.int16))

    hidden = {"api_visibility": "private"}
    go.click(None, None, verdict, js="() => ''", **hidden)
    go.click(compare, [first, second], verdict, concurrency_id="model", **hidden)
    example.click(example_pair, None, [first, second], queue=False, **hidden)


def _verdict(names: tuple[str, str], scores: list[tuple[float, np.ndarray]]) -> str:
    means = [mean for mean, _ in scores]
    best = int(np.argmax(means))
    sentence = f"The model finds the {names[best]} recording more natural."
    if means[0] == means[1]:
        sentence = "The model finds both recordings equally natural."
    rows = []
    for name, (mean, units) in zip(names, scores, strict=True):
        surprise = np.clip(-units / 8, 0, 1)
        blocks = "".join(f'<i style="--surprise: {100 * value:.0f}%"></i>' for value in surprise)
        number = f"{mean:.2f}".replace("-", "−")
        rows.append(
            f'<div class="scored"><p><span>The {name} recording, {len(units)} units</span><b>{number} nats a unit'
            f'</b></p><div class="strip" role="img" aria-label="How likely each unit of the {name} recording is">'
            f"{blocks}</div></div>"
        )
    note = (
        "The score is the mean log-likelihood of the units, each given those before it. Higher is more natural. In "
        "the strips, green units were expected and amber ones are a surprise."
    )
    return f'<p class="verdict" role="status">{sentence}</p>{"".join(rows)}<p class="note">{note}</p>'


@contextmanager
def _as_sentences() -> Iterator[None]:
    """Show an error as a sentence, without a traceback."""
    try:
        yield
    except gr.Error:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise gr.Error(html.escape(str(error), quote=False), title=FAILED, print_exception=False) from None
    except Exception as error:
        text = "Something went wrong on the server. Try once more, or another recording."
        raise gr.Error(text, title=FAILED) from error
