import numpy as np
import torch
from tiny_judges import save_recogniser

from slam_hf.judging.transcription import load_recogniser, transcribe_waveforms


def test_what_is_empty_or_shorter_than_a_frame_of_the_recogniser_has_a_text_too(tmp_path, recordings):
    save_recogniser(tmp_path / "recogniser")
    transcribe = load_recogniser(str(tmp_path / "recogniser"), torch.device("cpu"))
    empty, short = np.zeros(0, dtype=np.float32), np.full(320, 0.1, dtype=np.float32)
    assert transcribe_waveforms([], 16_000, transcribe, 2) == []
    assert transcribe_waveforms([empty, empty], 16_000, transcribe, 2) == ["", ""]
    padded = np.pad(short, (0, 1_280))
    alone = transcribe_waveforms([padded], 16_000, transcribe, 1)
    assert transcribe_waveforms([empty, short], 16_000, transcribe, 1) == ["", *alone]
