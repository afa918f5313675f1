import numpy as np
import pytest
from quickstart import speech_bank
from quickstart.codec import measures


def test_units_of_two_voices_are_compared_with_their_phones_and_with_each_other(tmp_path):
    phones = [("a", 0.08), ("b", 0.16)]
    for voice in measures.UNSEEN:
        utterances = [speech_bank.Utterance(np.ones(4 * 640), 16_000, "ab", True, voice, phones)]
        utterances.append(speech_bank.Utterance(np.ones(4 * 640), 16_000, "", False, voice))
        speech_bank.write_bank(tmp_path, voice, utterances)
    banks = [speech_bank.SpeechBank(tmp_path, voice) for voice in measures.UNSEEN]
    first, second = [np.array([7, 7, 1, 1])], [np.array([7, 7, 1, 3])]
    assert measures.measure_units(banks, [first, first]) == {"pnmi": pytest.approx(1.0), "edit_rate": 0.0}
    # One unit more for two, and a unit of its own takes nothing away from what is known about phones.
    assert measures.measure_units(banks, [first, second]) == {"pnmi": pytest.approx(1.0), "edit_rate": 0.5}
    independent = [np.array([7, 1, 7, 1])]
    assert measures.measure_units(banks, [independent] * 2)["pnmi"] == pytest.approx(0.0)
