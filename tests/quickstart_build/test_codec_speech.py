import numpy as np
import pytest
from quickstart.codec import speech
from quickstart.speech_bank import SpeechBank
from quickstart.voices import Speech


def test_a_voice_reads_the_held_out_sentences_and_then_others_once(tmp_path, monkeypatch):
    sentences = [f"this sentence is number {number} of a few that are read" for number in range(100)]
    monkeypatch.setattr(speech.sentences, "wordnet_sentences", lambda: sentences)
    read = []

    def speak(sentence: str, rate: float) -> Speech:
        read.append(sentence)
        return Speech(np.ones(16_000, np.float32), 16_000)

    monkeypatch.setitem(speech.VOICES, "hibari", (lambda: speak, 90 / 3600))
    for _ in range(2):
        speech.fill_bank(tmp_path, "hibari", tmp_path)
    assert len(read) == 90
    bank = SpeechBank(tmp_path, "hibari")
    assert bank.hours == pytest.approx(90 / 3600)
    assert [bank.rows[index]["text"] for index in bank.indices(held_out=True)] == sentences[:80]
    assert {bank.rows[index]["text"] for index in bank.indices(held_out=False)} <= set(sentences[80:])
