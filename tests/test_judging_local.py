import pytest
import torch
from tiny_judges import save_instruct_lm, save_text_lm

from slam_hf.fingerprints import hash_model
from slam_hf.judging.arguments import JudgeArguments, load_judge
from slam_hf.judging.judge import NO_RATING, Exchange, Judgement, RatingPrompt


EXCHANGES = [Exchange("ab", "cde"), Exchange(" ab cd ", " efg hij "), Exchange("", "abc"), Exchange("a", " ")]


@pytest.fixture
def perplexity(tmp_path):
    save_text_lm(tmp_path / "text_lm")
    return load_judge(JudgeArguments(judge_model=str(tmp_path / "text_lm")))


def test_the_perplexity_is_that_of_the_continuation_after_the_prompt(perplexity):
    judgements = perplexity.judge(EXCHANGES)
    model, tokenizer = perplexity.text_lm.model, perplexity.text_lm.tokenizer
    for (prompt, continuation), judgement in zip(
        [("ab", " cde"), ("ab cd", " efg hij"), ("", "abc")], judgements[:3], strict=True
    ):
        ids = torch.tensor([0, *tokenizer(prompt + continuation)["input_ids"]])
        with torch.no_grad():
            log_probabilities = model(ids[None]).logits[0].log_softmax(-1)
        values = log_probabilities[:-1].gather(1, ids[1:, None])[:, 0][len(prompt) :]
        assert len(values) == len(continuation)
        assert judgement.score == pytest.approx(values.mean().item(), rel=1e-4)
    assert judgements[3] == Judgement(None, "no words")
    assert perplexity.description["model"]["weights"] == hash_model(model)
    assert perplexity.description["model"]["start_token"] == "<begin>"


def test_a_text_that_is_longer_than_the_positions_of_the_judge_is_not_scored(perplexity):
    short, long = Exchange("a" * 255, "b" * 255), Exchange("a" * 255, "b" * 256)
    alone = perplexity.judge([short])
    assert perplexity.judge([long, short]) == [Judgement(None, "too long"), *alone]


def test_an_instruct_lm_rates(tmp_path):
    (tmp_path / "prompt.txt").write_text("{prompt}|{continuation}")
    save_instruct_lm(tmp_path / "lm", "4")
    arguments = JudgeArguments(
        judge="rating",
        judge_model=str(tmp_path / "lm"),
        judge_prompt=str(tmp_path / "prompt.txt"),
        judge_reply_tokens=1,
    )
    judge = load_judge(arguments)
    rating = Judgement(4.0, None, "4")
    too_long = Exchange("a" * 200, "b" * 60)
    assert judge.judge([*EXCHANGES, too_long]) == [rating] * 3 + [
        Judgement(None, "no words"),
        Judgement(None, "too long"),
    ]
    assert judge.description["prompt"] == RatingPrompt(tmp_path / "prompt.txt").sha256
    assert judge.description["model"]["weights"] == hash_model(judge.model)


def test_replies_do_not_depend_on_the_batch_and_what_they_say_is_not_guessed(tmp_path):
    save_instruct_lm(tmp_path / "lm")
    (tmp_path / "prompt.txt").write_text("{prompt}|{continuation}")
    judge = load_judge(
        JudgeArguments(
            judge="rating",
            judge_model=str(tmp_path / "lm"),
            judge_prompt=str(tmp_path / "prompt.txt"),
            judge_reply_tokens=5,
        )
    )
    judgements = judge.judge(EXCHANGES[:3])
    assert judgements == [judge.judge([exchange])[0] for exchange in EXCHANGES[:3]]
    assert [judgement.problem for judgement in judgements] == [NO_RATING] * 3


def test_an_instruct_lm_needs_a_chat_template(tmp_path):
    save_text_lm(tmp_path / "lm")
    with pytest.raises(ValueError, match="lm' has no chat template: choose an instruct model as the judge"):
        load_judge(JudgeArguments(judge="rating", judge_model=str(tmp_path / "lm")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"judge": "rating"}, "`judge rating` needs `judge_model`"),
        ({"judge_url": "http://localhost:8000/v1"}, "`judge rating` needs `judge_model`"),
        ({"judge": "perplexity", "judge_url": "http://localhost:8000/v1"}, "`judge_url` needs `judge rating`"),
        ({"judge_prompt": "prompt.txt"}, "`judge_prompt` needs `judge rating`"),
        ({"judge_parallel": 0}, "`judge_parallel` must be positive, got 0"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        JudgeArguments(**arguments)


def test_a_judge_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        load_judge(JudgeArguments(judge_model=str(tmp_path / "nowhere")))
