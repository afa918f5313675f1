import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from slam_hf.evaluation.prompts import RecordedPrompts, TokenizedPrompts, find_prompts
from slam_hf.evaluation.tasks import TASKS


CODEC = SimpleNamespace(frame_rate=25.0, sampling_rate=16_000)
SPEAK = SimpleNamespace(processor=SimpleNamespace(audio_tokenizer=CODEC))

ROW = {"units": [3, 4, 5, 6], "durations": [10, 5, 10, 50]}  # ends at 0.4, 0.6, 1.0 and 3.0 s


def write_corpus(folder, rows):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


def read(rows, seconds):
    prompts, skipped = TokenizedPrompts(rows, seconds).read(list(rows), SPEAK)
    return {name: (prompt.units.tolist(), prompt.seconds) for name, prompt in prompts.items()}, skipped


def test_a_prompt_of_a_document_has_the_units_that_end_by_then():
    assert read({"a": ROW}, 1.0) == ({"a": ([3, 4, 5], 1.0)}, {})
    assert read({"a": ROW}, 0.99) == ({"a": ([3, 4], 0.6)}, {})
    assert read({"a": ROW}, 9.0) == ({"a": ([3, 4, 5, 6], 3.0)}, {})
    assert read({"a": ROW}, 0.3) == ({}, {"a": "a: too short: no unit ends within 0.3 s"})


def test_a_prompt_of_a_document_ends_with_the_nearest_word():
    words = [{"word": "he", "start_time": 0.1, "end_time": 0.6}, {"word": " is", "start_time": 0.7, "end_time": 2.9}]
    assert read({"a": ROW | {"aligned_text": words}}, 1.0) == ({"a": ([3, 4], 0.6)}, {})
    assert read({"a": ROW | {"aligned_text": []}}, 1.0) == ({"a": ([3, 4, 5], 1.0)}, {})


def test_a_corpus_may_be_a_folder_or_a_file(tmp_path):
    rows = [{"id": name, **ROW} for name in "abc"]
    folder = write_corpus(tmp_path / "corpus", rows)
    for data in (folder, folder / "train.parquet"):
        prompts = find_prompts(data, TASKS["genppl"], "genppl", num_prompts=2, seconds=1.0)
        assert prompts == TokenizedPrompts({name: ROW for name in "ab"}, 1.0)
    changed = write_corpus(tmp_path / "changed", [*rows[:1], rows[1] | {"units": [3, 4, 5, 7]}])
    assert find_prompts(changed, TASKS["genppl"], "genppl", 2, 1.0).hash() != prompts.hash()


def test_units_without_durations_are_refused(tmp_path):
    folder = write_corpus(tmp_path / "corpus", [{"id": "a", "units": [1, 2]}])
    with pytest.raises(ValueError, match="train.parquet' has no durations, which tell where 3 seconds end"):
        find_prompts(folder, TASKS["genppl"], "genppl", 10, 3.0)
    (folder / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="train.parquet' is not a tokenised corpus, or damaged"):
        find_prompts(folder, TASKS["genppl"], "genppl", 10, 3.0)


def test_a_prompt_without_word_times_may_end_at_a_pause(tmp_path):
    rate = 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * rate).astype(np.float32)
    noise[round(2.2 * rate) : round(2.3 * rate)] = 0  # too far away
    noise[round(2.7 * rate) : round(2.8 * rate)] = 0
    path = tmp_path / "1_correct.wav"
    soundfile.write(path, noise, rate, subtype="FLOAT")

    def seconds(wanted, **options):
        return len(RecordedPrompts({"1_correct": path}, wanted, **options).waveform("1_correct", rate)) / rate

    assert seconds(3.0) == 3.0
    assert seconds(3.0, end_at_pauses=True) == pytest.approx(2.75, abs=1e-4)
    assert seconds(2.5, end_at_pauses=True) == pytest.approx(2.25, abs=1e-4) or seconds(
        2.5, end_at_pauses=True
    ) == pytest.approx(2.75, abs=1e-4)
    assert seconds(4.5, end_at_pauses=True) == 4.0
    path.with_suffix(".json").write_text(json.dumps({"aligned_text": [{"word": "a", "end_time": 3.1}]}))
    assert seconds(3.0, end_at_pauses=True) == 3.1
