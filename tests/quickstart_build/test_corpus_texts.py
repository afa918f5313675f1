import dataclasses

import pytest
from quickstart.corpus import texts
from quickstart.sentences import NUM_HELD_OUT, normalize, split_held_out


def natural(word: str) -> list[str]:
    """Seven thousand different sentences of the length of those that the codec is evaluated on."""
    numbers = ["".join(chr(97 + int(digit)) for digit in str(number)) for number in range(7_000)]
    return [f"The {word} of {number} went over the hill today." for number in numbers]


@pytest.fixture(scope="module")
def chosen():
    return texts.choose_texts(natural("farmer"), natural("prophet"))


def test_the_amounts_are_as_asked(chosen):
    assert {split: len(part) for split, part in chosen.sentences.items()} == {"train": 7_000, "validation": 200}
    assert {split: len(part) for split, part in chosen.stories.items()} == {"train": 3_600, "validation": 100}
    assert (len(chosen.preferences), len(chosen.clozes), len(chosen.pairs)) == (1_000, 600, 280)


def test_no_sentence_is_in_two_of_training_validation_and_benchmarks(chosen):
    counts = chosen.check_no_overlap()
    assert counts["training_sentences"] > 15_000
    assert counts["benchmark_sentences"] > 1_500


def test_sentences_that_the_codec_is_evaluated_on_are_left_out(chosen):
    held_out, _ = split_held_out(natural("farmer"), NUM_HELD_OUT)
    assert set(held_out).isdisjoint(chosen.sentences["train"] + chosen.sentences["validation"])


def test_a_shared_context_sentence_is_an_error(chosen):
    context = chosen.clozes[0].story.context[1]
    sentences = {**chosen.sentences, "train": [*chosen.sentences["train"], context.upper()]}
    with pytest.raises(ValueError, match="1 training sentences are benchmark sentences too"):
        dataclasses.replace(chosen, sentences=sentences).check_no_overlap()


def test_a_validation_story_among_the_benchmarks_is_an_error(chosen):
    stories = {**chosen.stories, "validation": [chosen.clozes[0].story]}
    with pytest.raises(ValueError, match="validation sentences are benchmark sentences too"):
        dataclasses.replace(chosen, stories=stories).check_no_overlap()


def test_preference_pairs_are_of_stories_that_are_not_trained_on(chosen):
    trained = {story.sentences for story in chosen.stories["train"]}
    assert trained.isdisjoint(cloze.story.sentences for cloze in chosen.preferences)


def test_the_foreign_ending_is_of_another_scenario_of_the_same_set(chosen):
    for clozes in (chosen.clozes, chosen.preferences):
        scenarios = {}
        for story, _ in clozes:
            scenarios.setdefault(story.ending, set()).add(story.scenario)
        assert all(story.scenario not in scenarios[foreign_ending] for story, foreign_ending in clozes)


def test_normalization_keeps_words_and_apostrophes():
    assert normalize("Don't -- stop, Now!") == "don't stop now"


def test_held_out_sentences_are_not_trained_on():
    sentences = [f"word {'and so on ' * i}ends {i}." for i in range(6)]
    held_out, training = split_held_out(sentences, 2)
    assert len(held_out) == 2 and not set(held_out) & set(training)
    assert all(8 <= len(sentence.split()) <= 16 for sentence in held_out)
