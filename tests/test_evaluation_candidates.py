"""Token sequences of pairs: the text form of the reference toolkit, and where the ending begins."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from slam_hf import HubertUnitTokenizer
from slam_hf.evaluation.candidates import make_candidate
from slam_hf.evaluation.tasks import TASKS
from slam_hf.evaluation.units import Utterances, join_units


@pytest.fixture(scope="module")
def tokenizer(interleaved_checkpoint):
    text_tokenizer = interleaved_checkpoint / "text-tokenizer"
    return AutoTokenizer.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer)


@pytest.fixture
def utterances():
    units = {"1_mutual": np.array([3, 9, 4]), "1_correct": np.array([4, 7])}
    return Utterances(units=units, texts={"1_mutual": "She put the letters back.", "1_correct": "He sold it."})


def texts_of(candidate, tokenizer) -> tuple[str, str, str]:
    """The whole sequence up to the ending, from there on, and the ending alone up to its first scored token."""
    whole, ending = candidate.whole, candidate.ending
    assert ending.ids[ending.start :].tolist() == whole.ids[whole.start :].tolist()
    parts = (whole.ids[: whole.start], whole.ids[whole.start :], ending.ids[: ending.start])
    return tuple(tokenizer.decode(part) for part in parts)


@pytest.mark.parametrize(
    ("direction", "prompt", "ending", "alone"),
    [
        ("_s2t", "<|begin|><speech><Un3><Un9><Un4><text>", "He sold it.", "<|begin|><text>"),
        ("_t2s", "<|begin|><text>She put the letters back.<speech>", "<Un4><Un7>", "<|begin|><speech>"),
        ("_t2t", "<|begin|><text>She put the letters back.", "He sold it.", "<|begin|><text>"),
    ],
)
def test_a_modality_token_stands_where_the_modality_changes(tokenizer, utterances, direction, prompt, ending, alone):
    candidate = make_candidate("1_correct", "1_mutual", TASKS[f"tstorycloze{direction}"], utterances, tokenizer)
    assert texts_of(candidate, tokenizer) == (prompt, ending, alone)
    assert candidate.whole.ids.tolist() == tokenizer(prompt.removeprefix("<|begin|>") + ending)["input_ids"]


def test_speech_alone_has_no_modality_token_but_where_the_ending_stands_alone(tokenizer, utterances):
    units = utterances.units
    units["1_correct"], utterances.starts["1_correct"] = join_units(units["1_mutual"], units["1_correct"])
    candidate = make_candidate("1_correct", "1_mutual", TASKS["tstorycloze"], utterances, tokenizer)
    assert texts_of(candidate, tokenizer) == ("<|begin|><Un3><Un9><Un4>", "<Un7>", "<|begin|><speech>")
    whole = make_candidate("1_correct", None, TASKS["tstorycloze"], utterances, tokenizer)
    assert whole.whole.ids.tolist() == tokenizer.encode_units([3, 9, 4, 7])["input_ids"]
    assert (whole.whole.start, whole.ending) == (1, None)


def test_a_model_of_units_alone_scores_the_end_of_the_sequence_too(utterances):
    tokenizer = HubertUnitTokenizer(num_units=40, add_eos_token=True)
    units = utterances.units
    units["1_correct"], utterances.starts["1_correct"] = join_units(units["1_mutual"], units["1_correct"])
    candidate = make_candidate("1_correct", "1_mutual", TASKS["tstorycloze"], utterances, tokenizer)
    assert texts_of(candidate, tokenizer) == ("<S><Un3><Un9><Un4>", "<Un7><S>", "<S>")


def test_a_token_with_characters_of_both_texts_is_one_of_the_ending(tokenizer, utterances):
    utterances.texts |= {"1_mutual": "The old ligh", "1_correct": "thouse"}
    candidate = make_candidate("1_correct", "1_mutual", TASKS["tstorycloze_t2t"], utterances, tokenizer)
    ids = candidate.whole.ids
    assert ids.tolist() == tokenizer("<text>The old lighthouse")["input_ids"]
    assert tokenizer.decode(ids[candidate.whole.start :]).endswith("thouse")
    assert not tokenizer.decode(ids[: candidate.whole.start]).endswith("ligh")
