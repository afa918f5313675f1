import numpy as np
import pytest
from quickstart.corpus.word_times import align_rows, error_figures, sound_lead, spoken_words, word_errors

from slam_hf.corpora.word_times import UnalignableError
from slam_hf.encoding.recordings import SkipReason


PHONES = [("^", 0.3), ("h", 0.4), ("i", 0.5), (" ", 0.55), ("m", 0.6), ("ˈ", 0.65), ("æ", 0.7), (".", 0.9), ("$", 1.0)]


def test_words_of_a_voice_are_between_spaces_and_pauses():
    assert spoken_words(PHONES) == [(0.3, 0.5, False), (0.55, 0.7, True)]


def test_errors_are_those_against_the_voice_which_sounds_earlier_than_its_phones():
    words = [("Hi", 0.27, 0.5), (" ma.", 0.5, 0.6), (" Hi", 1.47, 1.8), (" ma.", 1.85, 2.0)]
    row = {"aligned_text": [{"word": w, "start_time": s, "end_time": e} for w, s, e in words]}
    skipped = {"aligned_text": row["aligned_text"][:3]}
    documents = [["Hi ma.", "Hi ma."]] * 3
    errors = word_errors([row, skipped, {"aligned_text": None}], documents, lambda text: PHONES, lead=0.03)
    # The second sentence begins after 1.0 s and a pause of 0.2 s.
    assert errors["starts"] == pytest.approx(
        {
            "words": 4,
            "mean_ms": (0 + 20 + 0 + 130) / 4,
            "median_ms": 10.0,
            "bias_ms": 0.0,
            "within_50_ms": 0.75,
            "within_100_ms": 0.75,
        },
        abs=1e-6,
    )
    assert errors["ends"] == pytest.approx(error_figures([0.03, 0.13]))


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
