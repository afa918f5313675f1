import numpy as np
import pytest
import torch
from quickstart import timed_training
from quickstart.corpus import aligner as module
from quickstart.corpus.aligner import Aligner, to_letters, train_aligner

from slam_hf.corpora.alignment.word_times import UnalignableError


@pytest.fixture
def make_aligner():
    def make() -> Aligner:
        torch.manual_seed(0)
        return Aligner(torch.randn(30, 8), frame_rate=25.0)

    return make


def spell(text: str, rng: np.random.Generator) -> tuple[list[int], list[int], list[tuple[float, float]]]:
    """Units that spell a text in a voice with one unit for each letter, their frames, and the times of the words."""
    units, durations, times = [], [], []
    for word in text.split():
        start = sum(durations)
        letters = [module.LETTERS.index(letter) for letter in word.lower()]
        units += [*letters, 29]
        durations += [*rng.integers(2, 4, len(letters)).tolist(), 3]
        times.append((start / 25, (sum(durations) - 3) / 25))
    return units, durations, times


def test_letters_of_words_have_delimiters_between():
    assert to_letters("Bad, - cab's!") == [3, 2, 5, 1, 4, 2, 3, 28, 20]
    assert to_letters("1984") == []


def test_what_it_learns_from_texts_alone_gives_the_times_of_words(make_aligner, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FRAMES", 250)
    monkeypatch.setattr(module, "WIDTH", 64)
    monkeypatch.setattr(module, "WARMUP_SHARE", 0.3)  # 120 steps
    rng = np.random.default_rng(0)
    words = ["bad", "cab", "face", "dig", "high", "jam"]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(40)]
    rows = []
    for text in texts:
        units, durations, times = spell(text, rng)
        rows.append({"units": units, "durations": durations, "text": text, "times": times})
    aligner = make_aligner()
    steps = []
    aligner.register_forward_hook(lambda *_: steps.append(1))
    monkeypatch.setattr(timed_training.time, "process_time", lambda: len(steps))  # a step takes a second
    figures = train_aligner(aligner, rows[:36], minutes=400 / 60, folder=tmp_path)
    assert figures["loss"] < 1.0
    aligner.eval()
    errors = []
    for row in rows[36:]:
        aligned = aligner.align(row["units"], row["durations"], row["text"])
        assert "".join(word["word"] for word in aligned) == row["text"]
        for word, (start, end) in zip(aligned, row["times"], strict=True):
            errors += [abs(word["start_time"] - start), abs(word["end_time"] - end)]
    assert np.median(errors) <= 0.06


def test_a_frame_has_two_outputs_which_depend_on_what_is_near(make_aligner):
    aligner = make_aligner().eval()
    frames = torch.randint(30, (1, 40))
    changed = frames.clone()
    changed[0, 30:] = 0
    outputs = aligner(frames)
    assert outputs.shape == (1, 80, 29)
    assert torch.equal(outputs[:, :48], aligner(changed)[:, :48])


@pytest.mark.parametrize(
    ("text", "message"),
    [("- !", "no text"), ("In 1984", "characters unknown"), ("a long text", "too short for its text")],
)
def test_a_text_that_does_not_fit_is_an_error(make_aligner, text, message):
    with pytest.raises(UnalignableError, match=message):
        make_aligner().align([3, 4], [2, 2], text)
