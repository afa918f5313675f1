import pytest

from slam_hf.corpora.alignment.word_times import split_words, timed_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The old man.", ["The", " old", " man."]),
        ("  two \n spaces\t", ["two", " spaces"]),
        ("Hello world - again .", ["Hello", " world -", " again ."]),
        ("« Oui, dit-il.", ["« Oui,", " dit-il."]),
        ("In 1984", ["In", " 1984"]),
        ("... - !", []),
        ("", []),
    ],
)
def test_words_joined_are_the_text_and_all_but_the_first_begin_with_a_space(text, words):
    assert split_words(text) == words
    assert not words or "".join(words) == " ".join(text.split())


def test_words_get_their_times():
    assert timed_words(["A", " b"], [(0.0, 0.5), (0.5, 1.25)]) == [
        {"word": "A", "start_time": 0.0, "end_time": 0.5},
        {"word": " b", "start_time": 0.5, "end_time": 1.25},
    ]
