import numpy as np
from quickstart import speech_bank


def test_bank_returns_utterances_in_whole_frames(tmp_path):
    first = speech_bank.Utterance(np.linspace(-0.7, 0.7, 1500, dtype=np.float32), 16_000, "one", True, "anna")
    second = speech_bank.Utterance(np.full(700, 0.7, np.float32), 16_000, "two", False, "ben")
    speech_bank.write_bank(tmp_path, "voice", [first, second])
    bank = speech_bank.SpeechBank(tmp_path, "voice")
    assert [row.num_frames for row in bank.rows] == [2, 1]
    assert bank.indices(held_out=True) == [0]
    np.testing.assert_allclose(bank.waveform(0), first.samples[:1280], atol=1e-4)
    assert bank.frames(1) == slice(2, 3)
    assert bank.speakers().tolist() == ["anna", "anna", "ben"]
    assert bank.training_frames().tolist() == [False, False, True]


def test_bank_leaves_out_what_ends_too_late(tmp_path):
    utterances = [speech_bank.Utterance(np.ones(16_000, np.float32), 16_000, str(i), False, "anna") for i in range(3)]
    speech_bank.write_bank(tmp_path, "voice", utterances)
    assert [row.text for row in speech_bank.SpeechBank(tmp_path, "voice", max_hours=2 / 3600).rows] == ["0", "1"]
