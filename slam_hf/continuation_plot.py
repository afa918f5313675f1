"""A picture of a continuation: its spectrogram, and its units as coloured blocks under it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PROMPT_COLOR, NEW_COLOR = "#0072B2", "#E69F00"
"""Blue and orange of the palette of Okabe and Ito, which everyone can tell apart."""

WINDOW = 400
"""Samples of a window of the spectrogram, a quarter of which is the step: 25 ms at 16 kHz."""

MAX_FRAMES = 10_000
"""Maximum number of windows, more than a picture shows. Long audio has longer steps."""

DYNAMIC_RANGE = 60
"""Decibels between the brightest and the darkest colour of a spectrogram."""

PRE_EMPHASIS = 0.97
"""Of the filter that raises high frequencies, in which speech has less energy."""


def plot_continuation(
    results: dict[str, Any] | Sequence[dict[str, Any]], dark: bool = False, width: float = 6.0
) -> "Figure":
    r"""
    Plot what [`AudioToAudioPipeline`] returns: the spectrogram, and under it a block for each unit, as long as the
    unit is heard. Equal units have equal colours, in every picture. The spectrogram of the prompt is grey.

    ```python
    >>> result = speak("recording.flac", prompt_duration=3.0, seed=0)
    >>> plot_continuation(result).savefig("continuation.png")
    ```

    Args:
        results (`dict`, or a list of them):
            A result, several, or a chunk of a stream: with `audio`, `sampling_rate`, `units` and `durations`.
        dark (`bool`, *optional*, defaults to `False`):
            Whether the page around the picture is dark.
        width (`float`, *optional*, defaults to 6.0):
            Width of the figure in inches. Text stays as large: 3.5 inches at 100 dots an inch fit a phone.

    Returns:
        `matplotlib.figure.Figure`, which no window shows and nothing has to close.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there is no result, or one is a text.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError('The picture needs matplotlib: pip install "slam-hf[plots]".') from error
    results = [results] if isinstance(results, dict) else list(results)
    if not results or any("audio" not in result for result in results):
        raise ValueError("A picture needs one or more results with `audio`: a text has none.")
    ink, paper = ("#E6E6E6", "#111111") if dark else ("#222222", "white")
    figure = Figure(figsize=(width, 0.7 + 2.0 * len(results)), layout="constrained", facecolor=paper)
    heights = [4, 1] * len(results)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for index, (result, above, below) in enumerate(zip(results, panels[::2], panels[1::2], strict=True)):
        _plot_result(result, above, below)
        if len(results) > 1:
            above.set_title(f"Continuation {index + 1}", loc="left", fontsize="medium", color=ink)
        for axes in (above, below):
            axes.set_facecolor(paper)
            axes.tick_params(colors=ink)
            axes.yaxis.label.set_color(ink)
            for spine in axes.spines.values():
                spine.set_visible(False)
    for axes in panels[:-1]:
        axes.tick_params(bottom=False)
    panels[-1].set_xlabel("seconds", color=ink)
    panels[-1].set_xlim(0, max(len(result["audio"]) / result["sampling_rate"] for result in results) or 1)
    patches = [Patch(color=PROMPT_COLOR, label="prompt"), Patch(color=NEW_COLOR, label="continuation")]
    figure.legend(handles=patches, loc="outside upper center", ncols=2, frameon=False, labelcolor=ink)
    return figure


def _plot_result(result: dict[str, Any], above: "Axes", below: "Axes") -> None:
    from matplotlib import colormaps

    audio, rate, durations = result["audio"], result["sampling_rate"], np.asarray(result["durations"])
    num_prompt = len(durations) - len(result["units"])  # of the units in the audio
    units = np.concatenate([result["prompt_units"][len(result["prompt_units"]) - num_prompt :], result["units"]])
    duration = len(audio) / rate
    ends = durations.cumsum() * (duration / max(1, durations.sum()))
    starts = np.concatenate([[0.0], ends])[: len(units)]
    boundary = ends[num_prompt - 1] if num_prompt else 0.0

    decibels = _spectrogram(audio)
    loudest = np.quantile(decibels, 0.995) if decibels.size else 0.0
    split = round(decibels.shape[1] * boundary / duration) if duration else 0
    for part, first, last, colors in (
        (decibels[:, :split], 0.0, boundary, "gray"),
        (decibels[:, split:], boundary, duration, "magma"),
    ):
        if part.size:
            above.imshow(
                part,
                origin="lower",
                aspect="auto",
                extent=(first, last, 0, rate / 2000),
                cmap=colors,
                vmin=loudest - DYNAMIC_RANGE,
                vmax=loudest,
            )
    above.set(ylim=(0, rate / 2000), ylabel="kHz")

    # The golden ratio puts units of neighbouring numbers far from each other on the scale.
    colors = colormaps["viridis"](units * (5**0.5 - 1) / 2 % 1)
    below.broken_barh(list(zip(starts, ends - starts, strict=True)), (0.4, 0.6), facecolors=colors)
    below.broken_barh(
        [(0.0, boundary), (boundary, duration - boundary)], (0.0, 0.25), facecolors=[PROMPT_COLOR, NEW_COLOR]
    )
    below.set(ylim=(0, 1), yticks=[], ylabel="units")
    below.yaxis.label.set(rotation=0, horizontalalignment="right", verticalalignment="center")


def _spectrogram(audio: np.ndarray) -> np.ndarray:
    """Decibels of shape `(frequencies, frames)`."""
    step = max(WINDOW // 4, -(-len(audio) // MAX_FRAMES))
    emphasised = np.append(audio[:1], audio[1:] - PRE_EMPHASIS * audio[:-1])
    padded = np.pad(emphasised, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(audio) : step]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    return 10 * np.log10(power.T + 1e-10)
