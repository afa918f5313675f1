import numpy as np
import pytest
from quickstart import speech_bank
from quickstart.codec import measures


def test_units_that_are_phones_remove_all_uncertainty_about_them():
    phones = np.array(["a", "a", "b", "c", "b"])
    assert measures.phone_normalized_mutual_information(np.array([7, 7, 1, 4, 1]), phones) == pytest.approx(1.0)


def test_units_independent_of_phones_remove_none():
    units, phones = np.array([0, 0, 1, 1]), np.array(["a", "b", "a", "b"])
    assert measures.phone_normalized_mutual_information(units, phones) == pytest.approx(0.0)


def test_mutual_information_of_a_half_informative_unit():
    # H(phone) = log 4; the unit says which half, which is log 2.
    units, phones = np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "d"])
    assert measures.phone_normalized_mutual_information(units, phones) == pytest.approx(0.5)


def test_unit_edit_rate_compares_deduplicated_units():
    first, second = [np.array([1, 1, 2, 3, 3])], [np.array([1, 2, 2, 4])]
    assert measures.unit_edit_rate(first, second) == pytest.approx(1 / 3)


def test_phone_labels_are_those_at_the_middle_of_frames(tmp_path):
    phones = [("a", 0.03), ("b", 0.1), ("c", 0.12)]
    utterance = speech_bank.Utterance(np.ones(3 * 640), 16_000, "", True, "voice", phones)
    speech_bank.write_bank(tmp_path, "voice", [utterance])
    assert measures.phone_labels(speech_bank.SpeechBank(tmp_path, "voice"), 0).tolist() == ["a", "b", "b"]
