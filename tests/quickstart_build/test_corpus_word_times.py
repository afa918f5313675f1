import numpy as np
import pytest
from quickstart.corpus.word_times import (
    align_rows,
    error_figures,
    flite_bounds,
    hibari_bounds,
    sound_lead,
    spoken_words,
    word_errors,
)

from slam_hf.corpora.alignment.word_times import UnalignableError
from slam_hf.encoding.recordings import SkipReason


PHONES = [("^", 0.3), ("h", 0.4), ("i", 0.5), (" ", 0.55), ("m", 0.6), ("ˈ", 0.65), ("æ", 0.7), (".", 0.9), ("$", 1.0)]


def test_words_of_a_voice_are_between_spaces_and_pauses():
    assert spoken_words(PHONES) == [(0.3, 0.5, False), (0.55, 0.7, True)]


def test_hibari_sounds_earlier_than_its_phones_and_counts_pauses_to_words():
    # The second sentence begins after 1.0 s and a pause of 0.2 s.
    assert hibari_bounds(["Hi ma.", "Hi ma."], lambda text: PHONES, lead=0.03) == [
        (pytest.approx(0.27), pytest.approx(0.47)),
        (pytest.approx(0.52), None),
        (pytest.approx(1.47), pytest.approx(1.67)),
        (pytest.approx(1.72), None),
    ]


def test_flites_phones_belong_to_the_words_that_have_them_alone():
    alone = {"the": ["dh", "ax"], "old": ["ow", "l", "d"], "ash.": ["ae", "sh"]}
    phones = [("pau", 0.2), ("dh", 0.3), ("iy", 0.4), ("ow", 0.5), ("l", 0.6), ("d", 0.7), ("ae", 0.8), ("sh", 0.9)]
    bounds = flite_bounds("the old ash.", [*phones, ("pau", 1.1)], alone.__getitem__)
    assert bounds == [(0.2, None), (0.4, 0.7), (0.7, 0.9)]


def test_errors_are_of_the_bounds_that_are_known():
    words = [("Hi", 0.27, 0.5), (" ma.", 0.5, 0.6)]
    row = {"aligned_text": [{"word": word, "start_time": start, "end_time": end} for word, start, end in words]}
    bounds = [(0.25, 0.47), (0.65, None)]
    errors = word_errors([row, row, {"aligned_text": None}], [bounds, bounds[:1], bounds])
    assert errors["starts"] == pytest.approx(
        {
            "words": 2,
            "mean_ms": (20 + 150) / 2,
            "median_ms": 85.0,
            "bias_ms": (20 - 150) / 2,
            "within_50_ms": 0.5,
            "within_100_ms": 0.5,
        },
        abs=1e-6,
    )
    assert errors["ends"] == pytest.approx(error_figures([0.03]))


def test_the_lead_is_from_the_first_sound_to_the_first_phone():
    samples = np.zeros(16_000)
    samples[4_000:8_000] = 0.5
    assert sound_lead([(samples, 16_000, PHONES)]) == pytest.approx(0.05, abs=0.006)


def test_rows_without_times_are_counted():
    class Aligner:
        def align(self, units, durations, text):
            if text == "no":
                raise UnalignableError(SkipReason.NO_TEXT, "nothing")
            return [{"word": text, "start_time": 0.0, "end_time": 1.0}]

    rows = [{"id": text, "units": [1], "durations": [2], "text": text} for text in ("yes", "no")]
    aligned, failures = align_rows(Aligner(), rows)
    assert [row["aligned_text"] and row["aligned_text"][0]["word"] for row in aligned] == ["yes", None]
    assert failures == {"no text": 1}
