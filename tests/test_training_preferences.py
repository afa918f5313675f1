import sys

import pytest
from datasets import Dataset

from slam_hf.training.preferences import AlignArguments, load_pairs, prepare_pairs


PAIR = {"prompt": "<Un1>", "chosen": "<Un2><Un3>", "rejected": "<Un4>"}


def pairs(*texts: tuple[str | None, str | None]) -> Dataset:
    """Pairs with the given prompt and chosen texts; the units tell their number."""
    return Dataset.from_list(
        [
            {
                **PAIR,
                "prompt": f"<Un{index}>",
                "prompt_text": prompt,
                "chosen_text": chosen,
                "rejected_text": "no no no",
            }
            for index, (prompt, chosen) in enumerate(texts)
        ]
    )


def test_only_the_columns_of_the_trainer_remain():
    assert prepare_pairs(pairs(("a", "b")))[:] == {
        "prompt": ["<Un0>"],
        "chosen": ["<Un2><Un3>"],
        "rejected": ["<Un4>"],
    }


def test_pairs_without_a_test_split_are_held_out(tmp_path, capsys):
    pairs(*[("a", "b")] * 300).to_parquet(tmp_path / "train.parquet")
    train, test = load_pairs(AlignArguments(dataset_name=str(tmp_path)), 500)
    assert (test["prompt"][:], len(train)) == (["<Un0>", "<Un1>", "<Un2>"], 297)
    assert "3 of its rows are held out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has no split 'dev' to hold out, only train"):
        load_pairs(AlignArguments(dataset_name=str(tmp_path), dataset_test_split="dev"), 500)
    halves = AlignArguments(
        dataset_name=str(tmp_path), dataset_train_split="train[:50%]", dataset_test_split="train[99%:]"
    )
    assert [len(split) for split in load_pairs(halves, 500)] == [150, 3]


@pytest.mark.parametrize("name", ["dataset_streaming", "ignore_bias_buffers"])
def test_arguments_that_have_no_effect_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` has no effect"):
        AlignArguments(dataset_name="x", **{name: True})


def test_lists_of_units_become_strings():
    units = Dataset.from_list([{"prompt": [1], "chosen": [2, 3], "rejected": [4]}])
    assert prepare_pairs(units)[0] == PAIR


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("<Un1> <Un2>", "'<Un1> <Un2>' is not a unit string"),
        ("hi", "'hi' is not"),
        (None, "expected a unit string or a list of units, got 'None'"),
        ("<Un3><Un500>", "unit 500 is outside the vocabulary"),
    ],
)
def test_a_pair_without_units_is_named(chosen, message):
    with pytest.raises(ValueError, match=f"Preference pair 1: {message}"):
        prepare_pairs(Dataset.from_list([PAIR, {**PAIR, "chosen": chosen}]), num_units=500)


def test_pairs_that_repeat_themselves_are_left_out():
    texts = [
        ("the cat sat", "on the mat"),  # no bigram twice
        ("the cat and", "the cat"),  # "the cat" twice: 2 of 4 bigrams
        ("it was good , and it", "was so very , very good today"),  # "it was" twice: 2 of 12 bigrams
        ("no no", "no no"),  # within the prompt, within the chosen text, and across
    ]
    assert prepare_pairs(pairs(*texts), max_auto_bleu=0.3)["prompt"] == ["<Un0>", "<Un2>"]
    assert prepare_pairs(pairs(*texts), max_auto_bleu=0.5)["prompt"] == ["<Un0>", "<Un2>"]  # below, not at
    assert prepare_pairs(pairs(*texts), max_auto_bleu=0.51)["prompt"] == ["<Un0>", "<Un1>", "<Un2>"]


def test_repetition_between_prompt_and_continuation_counts():
    assert len(prepare_pairs(pairs(("we went home", "we went home")), max_auto_bleu=0.3)) == 0
    assert len(prepare_pairs(pairs(("we went home", "")), max_auto_bleu=0.3)) == 1


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="Preference pairs lack the columns rejected"):
        prepare_pairs(pairs(("a", "b")).remove_columns("rejected"))


def test_the_filter_needs_texts():
    with pytest.raises(ValueError, match="lack the columns prompt_text, chosen_text"):
        prepare_pairs(Dataset.from_list([PAIR]), max_auto_bleu=0.3)
    with pytest.raises(ValueError, match="A pair has no text"):
        prepare_pairs(pairs(("a", None)), max_auto_bleu=0.3)
    assert len(prepare_pairs(pairs(("a", None)))) == 1


def test_nltk_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "slam_hf.metrics.auto_bleu.auto_bleu", None)
    with pytest.raises(ImportError, match=r'pip install "slam-hf\[metrics\]"'):
        prepare_pairs(pairs(("a", "b")), max_auto_bleu=0.3)
    assert len(prepare_pairs(pairs(("a", "b")))) == 1
