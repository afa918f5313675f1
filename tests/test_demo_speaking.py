import base64

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from slam_hf.demo.speaking import MAX_SECONDS, Sampling, continue_prompt, read_recording, score


@pytest.fixture
def speak(checkpoint):
    return pipeline("audio-to-audio", model=str(checkpoint / "model"), codec=str(checkpoint / "codec"))


def samples(take) -> np.ndarray:
    return np.frombuffer(b"".join(map(base64.b64decode, take.chunks)), dtype="<i2") / 32767


def test_takes_are_the_prompt_and_what_the_pipeline_says(speak, recordings):
    sampling = Sampling(prompt_duration=1.0, max_new_tokens=60)
    recording = read_recording(recordings[0])
    seen = [[len(take.chunks) for take in takes] for takes in continue_prompt(speak, recording, sampling, 3, 2)]
    *_, takes = continue_prompt(speak, recording, sampling, 3, 2)
    assert len(seen) > 6 and seen[0] == [1, 1]  # the prompt is heard before anything else is made
    assert [take.name for take in takes] == ["Prompt", "Continuation 1", "Continuation 2"]
    assert [take.speaks for take in takes] == [False, True, False] and all(take.done for take in takes)
    for seed, take in zip((3, 4), takes[1:], strict=True):
        expected = speak(str(recordings[0]), **sampling.options(), seed=seed)
        np.testing.assert_allclose(samples(take), np.clip(expected["audio"], -1, 1), atol=1e-3)
        assert [unit for unit, _ in take.units] == [*expected["prompt_units"], *expected["units"]]
        assert take.seconds == pytest.approx(len(expected["audio"]) / 16_000)
        assert f"seed {seed} · {len(expected['units'])} units in" in take.facts
        assert take.prompt_seconds == pytest.approx(takes[0].seconds, abs=0.2)  # what follows changes its last unit
    np.testing.assert_array_equal(samples(takes[0]), samples(takes[1])[: len(samples(takes[0]))])


def test_a_temperature_of_zero_is_greedy(speak, recordings):
    sampling = Sampling(prompt_duration=1.0, max_new_tokens=30, temperature=0)
    *_, [_, take] = continue_prompt(speak, read_recording(recordings[0]), sampling)
    expected = speak(str(recordings[0]), prompt_duration=1.0, max_new_tokens=30, do_sample=False)
    assert [unit for unit, _ in take.units][-30:] == list(expected["units"])


def test_the_score_is_the_published_one(speak, recordings):
    mean, units = score(speak, read_recording(recordings[0]))
    speak.tokenizer.add_eos_token = True
    prompt_units = speak(str(recordings[0]), max_new_tokens=1)["prompt_units"]
    ids = speak.tokenizer.encode_units(prompt_units, return_tensors="pt")
    assert mean == pytest.approx(speak.model.log_likelihood(**ids).item(), abs=1e-5)
    tokens = speak.model.log_likelihood(**ids, reduction="none")[0, 1:]
    np.testing.assert_allclose(units, tokens[:-1], atol=1e-5)
    assert len(units) == len(prompt_units) and torch.isclose(tokens.mean(), torch.tensor(mean), atol=1e-5)


def test_a_recording_that_cannot_be_taken_is_named_without_its_folder(tmp_path):
    (tmp_path / "notes.wav").write_text("a text")
    soundfile.write(tmp_path / "long.flac", np.zeros((MAX_SECONDS + 1) * 8_000), 8_000)
    soundfile.write(tmp_path / "longest.flac", np.zeros(MAX_SECONDS * 8_000), 8_000)
    for path, message in {
        None: "There is no recording yet",
        tmp_path / "notes.wav": "^'notes.wav': cannot be read as audio",
        tmp_path / "long.flac": "^'long.flac' is longer than 60 seconds",
        tmp_path / "gone.wav": "choose it again",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_recording(path)
    assert read_recording(tmp_path / "longest.flac")["array"].shape == (MAX_SECONDS * 8_000,)
