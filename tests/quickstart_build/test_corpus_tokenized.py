from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import load_dataset
from quickstart.corpus import benchmarks, minimal_pairs, stories, texts, tokenized

from slam_hf.corpora.schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES
from slam_hf.evaluation.benchmarks import read_sblimp, read_storycloze
from slam_hf.evaluation.units import join_units, read_tokenized
from slam_hf.training.preferences import prepare_pairs


def fake_voice(sentence: str, rate: float) -> SimpleNamespace:
    """Noise at 24 kHz that the sentence decides, a hundredth of a second a letter."""
    samples = np.random.default_rng(list(sentence.encode())).standard_normal(240 * len(sentence))
    return SimpleNamespace(samples=0.1 * samples, sampling_rate=24_000)


@pytest.fixture
def reader(tiny_codec):
    return tokenized.Reader(fake_voice, tiny_codec)


@pytest.fixture
def clozes():
    drawn = stories.generate_stories(20, "benchmark", seed=0)
    return [texts.Cloze(story, drawn[number - 1].ending) for number, story in enumerate(drawn)]


def test_a_row_has_the_units_of_the_sentences_with_pauses_between(reader, tiny_codec):
    row = reader.row("a", ["The first one.", "The second one."])
    assert (row["id"], row["text"], row["aligned_text"]) == ("a", "The first one. The second one.", None)
    first, second = (torch.from_numpy(reader.read(text)) for text in ("The first one.", "The second one."))
    assert first.abs().max() == pytest.approx(0.7)
    waveform = torch.cat([first, torch.zeros(3_200), second])
    codes = tiny_codec.encode(waveform[None]).audio_codes[0, 0]
    assert np.repeat(row["units"], row["durations"]).tolist() == codes.tolist()
    assert row["num_frames"] == len(codes)


def test_a_split_is_written_in_shards_that_are_not_read_again(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenized, "DOCUMENTS_PER_SHARD", 2)
    documents = [["One here."], ["Two there."], ["Three now."]]
    figures = tokenized.write_split(
        tmp_path / "out" / "part" / "train.parquet", documents, reader, tmp_path / "shards"
    )
    shards = sorted((tmp_path / "shards/part/train").glob("*/*"))
    assert [path.name for path in shards] == ["000000.parquet", "000002.parquet"]
    corpus = load_dataset("parquet", data_files=str(tmp_path / "out/part/train.parquet"), split="train")
    assert corpus["id"][:] == ["part/train/000000", "part/train/000001", "part/train/000002"]
    assert corpus["text"][:] == ["One here.", "Two there.", "Three now."]
    assert {name: str(feature) for name, feature in corpus.features.items()} == {
        name: str(feature) for name, feature in UNIT_CORPUS_FEATURES.items()
    }
    assert figures["rows"] == 3 and figures["units"] == sum(map(len, corpus["units"]))

    before = (tmp_path / "out/part/train.parquet").read_bytes()
    shards[1].unlink()
    read, read_aloud = [], reader.read
    monkeypatch.setattr(reader, "read", lambda sentence: read.append(sentence) or read_aloud(sentence))
    tokenized.write_split(tmp_path / "out" / "part" / "train.parquet", documents, reader, tmp_path / "shards")
    assert read == ["Three now."]
    assert (tmp_path / "out/part/train.parquet").read_bytes() == before


def test_minimal_pairs_are_laid_out_as_sblimp(reader, tmp_path):
    pairs = minimal_pairs.generate_pairs(1, excluded=set())
    assert benchmarks.write_sblimp(tmp_path, pairs, {"anna": reader, "ben": reader}) == 14
    utterances = read_tokenized(tmp_path)
    read = read_sblimp(tmp_path, utterances.hashes.keys())
    assert len(read) == 14 and not utterances.skipped
    assert {pair.labels["type"] for pair in read} == {pair.type for pair in pairs}
    for pair in read:
        number = int(pair.labels["id"])
        expected = reader.row("", [pairs[number].good])["units"], reader.row("", [pairs[number].bad])["units"]
        assert (utterances.units[pair.correct].tolist(), utterances.units[pair.incorrect].tolist()) == expected


def test_stories_are_laid_out_as_storycloze(reader, tmp_path, clozes):
    assert benchmarks.write_storycloze(tmp_path, clozes[:3], reader) == 3
    for task, wrong in (("sstorycloze", lambda c: c.story.wrong_ending), ("tstorycloze", lambda c: c.foreign_ending)):
        utterances = read_tokenized(tmp_path / task)
        pairs = read_storycloze(tmp_path / task, utterances.hashes.keys())
        assert len(pairs) == 3
        for cloze, pair in zip(clozes, pairs, strict=False):
            context = reader.row("", cloze.story.context, pause_after=True)["units"]
            assert utterances.texts[pair.prompt] == " ".join(cloze.story.context)
            for utterance, ending in ((pair.correct, cloze.story.ending), (pair.incorrect, wrong(cloze))):
                units = context + reader.row("", [ending])["units"]
                joined, start = join_units(utterances.units[pair.prompt], utterances.units[utterance])
                assert joined.tolist() == [unit for unit, _ in groupby(units)] and start == len(context)
                assert utterances.texts[utterance] == ending


def test_a_row_that_pause_after_ends_with_a_pause(reader):
    sentences = ["The first one."]
    frames = [reader.row("a", sentences, pause_after=pause)["num_frames"] for pause in (False, True)]
    assert frames[1] - frames[0] == 5


def test_preference_pairs_are_what_dpo_takes(reader, tmp_path, clozes):
    assert benchmarks.write_preferences(tmp_path, clozes, reader) == {"train": 18, "validation": 2}
    pairs = load_dataset(str(tmp_path))
    assert pairs["train"].features == PREFERENCE_FEATURES
    rows = [*pairs["validation"], *pairs["train"]]
    assert [row["chosen_text"] for row in rows] == [cloze.story.ending for cloze in clozes]
    assert rows[0]["rejected_text"] == clozes[0].foreign_ending
    assert rows[1]["rejected_text"] == clozes[1].story.wrong_ending
    assert rows[0]["prompt_text"] == " ".join(clozes[0].story.context)
    assert prepare_pairs(pairs["validation"])[0]["prompt"].startswith("<Un")
