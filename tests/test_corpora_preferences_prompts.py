import numpy as np
import pytest
import soundfile
from datasets import Dataset

from slam_hf.corpora.preferences.prompts import open_corpus, read_prompt, select_prompts
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.sources import file_source


RATE, FRAME_RATE = 16_000, 25.0
WORDS = [
    {"word": "It", "start_time": 0.1, "end_time": 0.5},
    {"word": " rained", "start_time": 0.6, "end_time": 1.2},
    {"word": " all", "start_time": None, "end_time": None},
    {"word": " day", "start_time": 1.4, "end_time": 2.0},
]
UNITS = {"id": "a", "units": [5, 6, 7, 8], "durations": [10, 20, 10, 20], "text": "It rained all day"}


@pytest.fixture
def path(tmp_path):
    waveform = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    return str(tmp_path / "a.wav")


def read(recording, seconds):
    return read_prompt([recording], seconds, RATE, FRAME_RATE)


@pytest.mark.parametrize(
    ("seconds", "length", "text"), [(1.5, 1.2, "It rained"), (1.7, 2.0, "It rained day"), (30.0, 2.0, "It rained day")]
)
def test_the_prompt_of_a_recording_ends_at_the_nearest_end_of_a_word(path, seconds, length, text):
    prompt = read(Recording("a", path, text="It rained all day", aligned_text=WORDS), seconds)
    assert (prompt.id, prompt.seconds, prompt.text) == ("a", pytest.approx(length), text)
    expected = soundfile.read(path, dtype="float32")[0][: round(length * RATE)]
    np.testing.assert_array_equal(prompt.waveform, expected)


def test_without_the_times_of_words_a_prompt_has_whole_frames_and_its_text_is_not_known(path):
    prompt = read(Recording("a", path, text="It rained all day"), 1.5)
    assert (len(prompt.waveform), prompt.text) == (37 * RATE // 25, None)


def test_a_recording_that_is_shorter_is_taken_as_a_whole_with_its_text(path):
    prompt = read(Recording("a", path, text="It rained all day"), 5.0)
    assert (prompt.seconds, prompt.text) == (3.0, "It rained all day")
    excerpt = read(Recording("a#t=1,2", path, offset=1.0, duration=1.0), 5.0)
    np.testing.assert_array_equal(excerpt.waveform, prompt.waveform[RATE : 2 * RATE])


def test_what_is_not_speech_is_skipped_with_a_reason(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "damaged.wav").write_text("no audio " * 100)
    skipped = [read(Recording(name, str(tmp_path / name)), 3.0) for name in ("silent.wav", "damaged.wav", "none.wav")]
    assert [(item.id, item.reason) for item in skipped] == [
        ("silent.wav", SkipReason.SILENT),
        ("damaged.wav", SkipReason.CORRUPT),
        ("none.wav", SkipReason.UNREADABLE),
    ]
    listed = Skipped("b", SkipReason.MALFORMED, "no path")
    assert read(listed, 3.0) is listed


@pytest.mark.parametrize(
    ("seconds", "words", "num_units", "length", "text"),
    [
        (1.2, None, 2, 1.2, None),
        (1.59, None, 2, 1.2, None),
        (1.6, None, 3, 1.6, None),
        (9.0, None, 4, 2.4, "It rained all day"),
        (1.3, WORDS, 2, 1.2, "It rained"),
        (0.6, WORDS, 1, 0.4, "It"),
        (9.0, WORDS, 3, 1.6, "It rained day"),
    ],
)
def test_the_prompt_of_a_row_of_units_has_the_units_that_end_in_it(seconds, words, num_units, length, text):
    prompt = read_prompt(UNITS | {"aligned_text": words}, seconds, RATE, FRAME_RATE)
    assert prompt.units == UNITS["units"][:num_units]
    assert (prompt.seconds, prompt.text) == (pytest.approx(length), text)


@pytest.mark.parametrize("row", [{"id": "a", "units": [], "durations": []}, {**UNITS, "durations": [100, 1, 1, 1]}])
def test_a_row_without_units_in_the_prompt_is_skipped(row):
    assert read_prompt(row, 3.0, RATE, FRAME_RATE) == Skipped("a", SkipReason.TOO_SHORT, "no unit ends within 3 s")


def test_a_corpus_is_read_in_parts_and_only_as_many_rows_as_are_asked_for(tmp_path):
    rows = [UNITS | {"id": str(number), "extra": 1} for number in range(300)]
    Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    source = open_corpus(SourceArguments(str(tmp_path)))
    assert [part.num_rows for part in source.parts] == [256, 44]
    assert [row["id"] for row in source.parts[1].read(42)] == ["298", "299"]
    assert "extra" not in next(source.parts[0].read(0))
    first = select_prompts(source, 258)
    assert [part.num_rows for part in first.parts] == [256, 2]
    assert [row["id"] for row in first.parts[1].read(1)] == ["257"]
    assert [part.num_rows for part in select_prompts(source, None).parts] == [256, 44]
    assert [part.num_rows for part in select_prompts(source, 5).parts] == [5]
    assert first.identity != source.identity


def test_another_dataset_is_not_a_corpus_of_units(tmp_path):
    Dataset.from_list([{"id": "a", "units": [1]}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="is not a tokenised corpus: it has no column 'durations'"):
        open_corpus(SourceArguments(str(tmp_path)))


def test_rows_of_a_source_of_unknown_length_cannot_be_limited(path):
    source = file_source([Recording("a", path)])
    object.__setattr__(source, "parts", [type("Stream", (), {"num_rows": None})()])
    with pytest.raises(ValueError, match="`num_prompts` is not for a streamed dataset"):
        select_prompts(source, 5)
