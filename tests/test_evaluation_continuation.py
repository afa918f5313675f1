import json

import numpy as np
import pytest
import soundfile
from transformers import EncodecFeatureExtractor, pipeline

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.evaluation.arguments import ContinuationArguments
from slam_hf.evaluation.continuation import continue_recordings, read_prompts


@pytest.fixture
def speak(tiny_model, tiny_codec):
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    processor = SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50))
    return pipeline(
        "audio-to-audio", model=tiny_model, processor=processor, codec=tiny_codec, max_new_tokens=12, device="cpu"
    )


@pytest.fixture
def files(tmp_path, recordings):
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    files = {}
    for number in range(5):
        files[f"{number}_correct"] = tmp_path / f"{number}_correct.wav"
        soundfile.write(files[f"{number}_correct"], waveform[number * 16000 : number * 16000 + 32000], rate)
    return files


@pytest.fixture
def arguments():
    return ContinuationArguments(prompt_seconds=1.0, batch_size=2, seed=7)


class Recogniser:
    """Hears in a waveform how long it is."""

    def __init__(self):
        self.batches = []

    def __call__(self, inputs, batch_size):
        self.batches.append(len(inputs))
        assert all(item["sampling_rate"] == 16000 for item in inputs)
        return [{"text": f" {len(item['raw'])} samples"} for item in inputs]


def test_prompts_are_continued_written_and_transcribed(speak, files, arguments, tmp_path):
    records = continue_recordings(files, speak, Recogniser(), arguments, tmp_path / "journal", tmp_path / "audio")
    assert [record["prompt"] for record in records] == list(files)
    for record in records:
        assert record["prompt_seconds"] == 1.0
        assert 0 < len(record["prompt_units"]) <= 25
        assert 0 < len(record["units"]) <= 12
        for suffix, transcript in (("", "transcript"), ("_continuation", "continuation_transcript")):
            audio, rate = soundfile.read(tmp_path / "audio" / f"{record['prompt']}{suffix}.wav")
            assert (rate, record[transcript]) == (16000, f" {len(audio)} samples")
    whole, continuation = (records[0][name].split()[0] for name in ("transcript", "continuation_transcript"))
    assert int(whole) > int(continuation)


def test_an_interrupted_run_continues_with_the_same_samples(speak, files, arguments, tmp_path):
    whole = continue_recordings(files, speak, Recogniser(), arguments, tmp_path / "whole", tmp_path / "audio")

    dying = Recogniser()

    def die_at_the_second_batch(inputs, batch_size):
        if dying.batches:
            raise KeyboardInterrupt
        return dying(inputs, batch_size)

    with pytest.raises(KeyboardInterrupt):
        continue_recordings(files, speak, die_at_the_second_batch, arguments, tmp_path / "journal", tmp_path / "audio")
    recogniser = Recogniser()
    resumed = continue_recordings(files, speak, recogniser, arguments, tmp_path / "journal", tmp_path / "audio")
    assert recogniser.batches == [4, 2]  # of prompts 2 and 3, and of prompt 4, each whole and continuation
    assert resumed == whole


def test_seed_changes_the_continuations(speak, files, arguments, tmp_path):
    first = continue_recordings(files, speak, Recogniser(), arguments, tmp_path / "first", tmp_path / "audio")
    arguments.seed = 100
    second = continue_recordings(files, speak, Recogniser(), arguments, tmp_path / "second", tmp_path / "audio")
    assert [record["prompt_units"] for record in first] == [record["prompt_units"] for record in second]
    assert [record["units"] for record in first] != [record["units"] for record in second]


def test_continuation_without_a_unit_is_silent(speak, files, arguments, tmp_path):
    speak._generate_kwargs["max_new_tokens"] = 1
    speak._generate_kwargs["suppress_tokens"] = [0, *range(2, 52)]  # leaves <S>
    recogniser = Recogniser()
    records = continue_recordings(files, speak, recogniser, arguments, tmp_path / "journal", tmp_path / "audio")
    assert all(record["units"] == [] and record["continuation_transcript"] == "" for record in records)
    assert recogniser.batches == [2, 2, 1]
    assert len(soundfile.read(tmp_path / "audio" / "0_correct_continuation.wav")[0]) == 0


def test_what_cannot_be_a_prompt_is_skipped(speak, files, arguments, tmp_path):
    soundfile.write(files["1_correct"], np.zeros(639, dtype=np.float32), 16000)
    files["4_correct"].write_bytes(b"")
    records = continue_recordings(files, speak, Recogniser(), arguments, tmp_path / "journal", tmp_path / "audio")
    assert records[1] == {"prompt": "1_correct", "skipped": "1_correct: too short: 0.040 s"}
    assert records[4]["skipped"].startswith("4_correct: ")
    assert [record["skipped"] is None for record in records] == [True, False, True, True, False]


def test_prompt_ends_with_the_nearest_word_where_there_is_an_alignment(speak, files):
    words = [
        {"word": "was", "start_time": 0.1, "end_time": 0.8},
        {"word": "it", "start_time": 0.8, "end_time": 1.15},
        {"word": "so", "start_time": 1.2, "end_time": 1.9},
    ]
    files["0_correct"].with_suffix(".json").write_text(json.dumps({"aligned_text": words}))
    prompts, skipped = read_prompts(files, speak, seconds=1.0)
    assert skipped == {}
    assert {name: len(waveform) / 16000 for name, waveform in prompts.items()} == {
        "0_correct": 1.15,
        **dict.fromkeys(list(files)[1:], 1.0),
    }


def test_short_recording_is_a_prompt_as_a_whole(speak, files):
    prompts, _ = read_prompts(files, speak, seconds=5.0)
    assert {len(waveform) for waveform in prompts.values()} == {32000}
