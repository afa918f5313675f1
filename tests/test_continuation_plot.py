import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from slam_hf import plot_continuation
from slam_hf.continuation_plot import NEW_COLOR, PROMPT_COLOR, _spectrogram


@pytest.fixture
def result() -> dict:
    """One second: a prompt of 0.4 s in three units, and a continuation of 0.6 s in four, two of them equal."""
    audio = np.sin(2 * np.pi * 2_000 * np.arange(16_000) / 16_000).astype(np.float32)
    return {
        "audio": audio,
        "sampling_rate": 16_000,
        "prompt_units": np.array([3, 499, 3]),
        "units": np.array([7, 3, 0, 7]),
        "durations": np.array([2, 5, 3, 1, 4, 8, 2]),
    }


def blocks(collection) -> list[tuple[float, float]]:
    """The beginning and the end of each block of a row."""
    boxes = [path.get_extents() for path in collection.get_paths()]
    return [(round(float(box.x0), 6), round(float(box.x1), 6)) for box in boxes if box.width > 0]


def test_blocks_are_as_long_as_units_are_heard(result):
    spectrogram, units = plot_continuation(result).axes
    of_units, of_parts = units.collections
    ends = (np.cumsum(result["durations"]) / 25).tolist()
    assert blocks(of_units) == [(round(a, 6), round(b, 6)) for a, b in zip([0.0, *ends], ends, strict=False)]
    colors = [to_hex(color) for color in of_units.get_facecolors()]
    given = [3, 499, 3, 7, 3, 0, 7]
    assert [[a == b for a in colors] for b in colors] == [[a == b for a in given] for b in given]
    assert blocks(of_parts) == [(0.0, 0.4), (0.4, 1.0)]
    assert [to_hex(color).upper() for color in of_parts.get_facecolors()] == [PROMPT_COLOR, NEW_COLOR]
    assert [image.get_extent()[:2] for image in spectrogram.images] == [[0.0, 0.4], [0.4, 1.0]]
    assert [image.get_cmap().name for image in spectrogram.images] == ["gray", "magma"]
    loudest = spectrogram.images[1].get_array().mean(axis=1).argmax()
    assert loudest * 16_000 / 400 == 2_000


def test_the_continuation_alone_has_no_prompt(result):
    alone = {**result, "audio": result["audio"][6_400:], "durations": result["durations"][3:]}
    spectrogram, units = plot_continuation(alone).axes
    assert blocks(units.collections[1]) == [(0.0, 0.6)]
    assert [image.get_cmap().name for image in spectrogram.images] == ["magma"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dark", [False, True])
def test_several_results_share_their_seconds(result, count, dark):
    longer = {**result, "audio": np.tile(result["audio"], 2), "durations": 2 * result["durations"]}
    figure = plot_continuation([result] * (count - 1) + [longer], dark=dark, width=3.5)
    assert len(figure.axes) == 2 * count
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 2.0)}
    assert (sum(figure.get_facecolor()[:3]) < 1) == dark
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Nothing is cut off at the width of a phone.
    renderer = canvas.get_renderer()
    [legend] = figure.legends
    texts = [*legend.get_texts(), *(axes.yaxis.label for axes in figure.axes), figure.axes[-1].xaxis.label]
    for box in (text.get_window_extent(renderer) for text in texts):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_a_result_without_sound_has_a_picture(result):
    silent = {
        "audio": np.zeros(0, dtype=np.float32),
        "sampling_rate": 16_000,
        "units": np.zeros(0, dtype=np.int64),
        "prompt_units": np.array([3]),
        "durations": np.zeros(0, dtype=np.int64),
    }
    figure = plot_continuation([silent, {**result, "audio": np.zeros(16_000, dtype=np.float32)}])
    FigureCanvasAgg(figure).draw()
    assert blocks(figure.axes[1].collections[0]) == []
    FigureCanvasAgg(plot_continuation(silent)).draw()


def test_the_spectrogram_of_hours_is_as_large_as_a_picture_needs():
    audio = np.zeros(3_600 * 16_000, dtype=np.float32)
    audio[len(audio) // 2 :] = 0.1 * np.sin(np.arange(len(audio) // 2))
    decibels = _spectrogram(audio)
    assert decibels.shape == (201, 10_000)
    assert decibels[:, :4_990].max() < -90 < -40 < decibels[:, 5_010:].max(axis=0).min()


@pytest.mark.parametrize("results", [[], {"generated_text": "He said"}, [{"generated_text": "He said"}]])
def test_a_text_has_no_picture(results):
    with pytest.raises(ValueError, match="A picture needs one or more results with `audio`"):
        plot_continuation(results)


def test_without_matplotlib_the_error_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'The picture needs matplotlib: pip install "slam-hf\[plots\]"'):
        plot_continuation(result)
