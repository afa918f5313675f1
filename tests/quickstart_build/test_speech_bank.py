import numpy as np
import soundfile
from quickstart import speech_bank

from slam_hf.encoding.manifest import read_manifest


def test_bank_returns_utterances_in_whole_frames(tmp_path):
    first = speech_bank.Utterance(np.linspace(-0.7, 0.7, 1500, dtype=np.float32), 16_000, "one", True, "anna")
    second = speech_bank.Utterance(np.full(700, 0.7, np.float32), 16_000, "two", False, "ben")
    speech_bank.write_bank(tmp_path, "voice", [first, second])
    bank = speech_bank.SpeechBank(tmp_path, "voice")
    assert [bank.num_frames(index) for index in range(2)] == [2, 1]
    assert bank.indices(held_out=True) == [0]
    np.testing.assert_allclose(bank.waveform(0), first.samples[:1280], atol=1e-4)
    np.testing.assert_allclose(bank.waveform(1), second.samples[:640], atol=1e-4)
    assert bank.frames(1) == slice(2, 3)
    assert bank.speakers().tolist() == ["anna", "anna", "ben"]
    assert bank.training_frames().tolist() == [False, False, True]


def test_bank_leaves_out_what_ends_too_late(tmp_path):
    utterances = [speech_bank.Utterance(np.ones(16_000, np.float32), 16_000, str(i), False, "anna") for i in range(3)]
    speech_bank.write_bank(tmp_path, "voice", utterances)
    assert [row["text"] for row in speech_bank.SpeechBank(tmp_path, "voice", max_hours=2 / 3600).rows] == ["0", "1"]


def test_a_bank_is_a_manifest_of_its_utterances_with_their_phones_as_words(tmp_path):
    phones = [("h", 0.05), ("i", 0.1)]
    samples = np.full(1600, 0.7, np.float32)
    utterances = [speech_bank.Utterance(samples, 16_000, "hi", False, "anna", phones)] * 2
    speech_bank.write_bank(tmp_path, "voice", utterances)
    recordings = read_manifest(tmp_path / "voice.jsonl")
    words = [
        {"word": "h", "start_time": 0.0, "end_time": 0.05},
        {"word": "i", "start_time": 0.05, "end_time": 0.1},
    ]
    assert [recording.aligned_text for recording in recordings] == [words, words]
    assert [(r.id, r.offset, r.duration) for r in recordings] == [
        ("voice/000000", 0.64, 0.1),
        ("voice/000001", 0.64 + 0.1 + 0.64, 0.1),
    ]
    rows = map(speech_bank.with_pauses, speech_bank.SpeechBank(tmp_path, "voice").rows)
    _, second = read_manifest(speech_bank.write_rows(tmp_path / "paused.jsonl", rows))
    start, length = round(second.offset * 16_000), round(second.duration * 16_000)
    heard, _ = soundfile.read(second.audio, start=start, frames=length)
    silence = np.zeros(round(0.64 * 16_000))
    np.testing.assert_allclose(heard, np.concatenate([silence, samples, silence]), atol=1e-4)
