"""Loads a model, and serves its page."""

import signal
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import pipeline

from ..loading_utils import naming_damaged_files
from .page import EXAMPLE, make_page


FOLDER = Path(__file__).parent
MAX_FILE_SIZE = "25mb"
"""Maximum size of a file that a visitor sends: a minute of any usual format."""


def page_options() -> dict[str, Any]:
    """Options of `gradio.Blocks.launch` for the page: its looks, its limits, and that nothing leaves the machine."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        # Of the fonts that gradio serves itself. Its semi-bold weight lacks most letters.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_border_width="1px",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )
    return {
        "theme": theme,
        "css_paths": FOLDER / "style.css",
        "max_file_size": MAX_FILE_SIZE,
        "allowed_paths": [str(EXAMPLE)],
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "enable_monitoring": False,
    }


def launch_demo(
    model: str,
    codec: str | None = None,
    revision: str | None = None,
    name: str | None = None,
    **options: Any,
) -> None:
    r"""
    Open the page of a model, and serve it until it is interrupted.

    Args:
        model (`str`):
            Folder or Hub id of the model.
        codec (`str`, *optional*):
            As for [`AudioToAudioPipeline`].
        revision (`str`, *optional*):
            Commit, branch or tag of the model.
        name (`str`, *optional*):
            The model's name on the page.
        options:
            Options of `gradio.Blocks.launch`, such as `server_port`.
    """
    # Stopped in whatever way, gradio then deletes what visitors sent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with naming_damaged_files(model):
        speak = pipeline("audio-to-audio", model=model, revision=revision, codec=codec)
    make_page(speak, name).launch(**{**page_options(), **options})
