import hashlib

import pytest

from slam_hf.judging.judge import DEFAULT_PROMPT, NO_RATING, Exchange, Judge, Judgement, RatingPrompt, parse_rating


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("4", 4),
        (" 1\n", 1),
        ("**5**", 5),
        ("Rating: 3.", 3),
        ("Rating:3", 3),
        ("4/5", 4),
        ("**4**/5", 4),
        ("I would give it 2 out of 5.", 2),
        ("On a scale from 1 to 5, it is a 3", 3),
        ("On a scale of 1-5: 2", 2),
        ('{"rating": 2}', 2),
        ("<score>2</score>", 2),
        ("\\boxed{5}", 5),
        ("4 because it follows. So 4!", 4),
        ("<think>3 or 4? Of the 2 sentences...</think>\n4", 4),
        ("3 or 4? Of the 2 sentences...</think>\n4", 4),  # a chat template may begin the thoughts
    ],
)
def test_the_only_number_of_a_reply_is_its_rating(reply, rating):
    assert parse_rating(reply) == Judgement(rating, None, reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "four",
        "0",
        "6",
        "10",
        "45",
        "-4",
        "3.5",
        "3,5",
        "4.0",
        "3 or 4",
        "3-4",
        "3/4",
        "1 to 5",
        "1-5",
        "4/10",
        "24/5",
        "4/50",
        "4/5.5",
        "GPT4",
        "4th",
        "80%",
        "Sentence 2 is good: 4",
        "④",
        "٤",
        "<think>It is a 4",
        "<think>4</think>",
        "Perhaps a 2.</think>",
    ],
)
def test_a_reply_without_one_rating_is_not_guessed(reply):
    assert parse_rating(reply) == Judgement(None, NO_RATING, reply)


def test_transcripts_stand_in_the_prompt_as_they_are(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("{x} {prompt} then {continuation}, {prompt}?", "utf-8")
    prompt = RatingPrompt(path)
    exchange = Exchange(" say {continuation} \\1", "so {prompt} ")
    assert prompt.fill(exchange) == "{x} say {continuation} \\1 then so {prompt}, say {continuation} \\1?"
    assert prompt.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_default_prompt_is_complete():
    text = RatingPrompt().fill(Exchange("a b c", "d e f"))
    assert '"a b c"' in text and '"d e f"' in text and "{" not in text
    assert RatingPrompt().sha256 == hashlib.sha256(DEFAULT_PROMPT.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{prompt}", "prompt.txt' has no {continuation}: the judge would not see it"),
        (b"{continuation}", "has no {prompt}"),
        (b"\xff{prompt}{continuation}", "prompt.txt' is not UTF-8"),
    ],
)
def test_a_prompt_that_hides_a_transcript_is_refused(tmp_path, content, message):
    (tmp_path / "prompt.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        RatingPrompt(tmp_path / "prompt.txt")


def test_a_continuation_without_words_is_not_judged():
    class Length(Judge):
        def _judge(self, exchanges):
            return [Judgement(float(len(exchange.continuation))) for exchange in exchanges]

    judgements = Length().judge([Exchange("a", ""), Exchange("a", "bcd"), Exchange("", " \n"), Exchange("", "b")])
    assert judgements == [Judgement(None, "no words"), Judgement(3.0), Judgement(None, "no words"), Judgement(1.0)]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_cannot_be_compared_is_none(score):
    class Broken(Judge):
        def _judge(self, exchanges):
            return [Judgement(score), Judgement(1.0)]

    judgements = Broken().judge([Exchange("a", "b")] * 2)
    assert judgements == [Judgement(None, "not a finite score"), Judgement(1.0)]
