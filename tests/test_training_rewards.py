import numpy as np
import pytest
from datasets import Dataset

from slam_hf.judging.judge import Exchange, Judge, Judgement
from slam_hf.training.rewards import OnlineAlignArguments, SpokenReward, make_prompts


class LengthJudge(Judge):
    """Prefers long continuations."""

    description = {"judge": "length"}

    def __init__(self):
        self.asked = []

    def _judge(self, exchanges):
        self.asked += exchanges
        return [Judgement(float(len(exchange.continuation))) for exchange in exchanges]


UNIT_SAMPLES = 1_600


class Processor:
    """Each unit of a string is a tenth of a second of speech, whose samples are the unit."""

    class audio_tokenizer:
        sampling_rate, frame_rate = 16_000, 25.0

    class tokenizer:
        num_units = 50

        def __new__(cls, units):
            return {"input_ids": [1, *(int(unit) for unit in units.replace("<Un", " ").replace(">", "").split())]}

    def batch_decode(self, sequences):
        return [np.repeat(sequence[1:], UNIT_SAMPLES) for sequence in sequences]


WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog"]


def hear(inputs, batch_size):
    heard = [item["raw"][::UNIT_SAMPLES].tolist() for item in inputs]
    hear.batches.append(heard)
    return [{"text": " ".join(WORDS[unit] for unit in units)} for units in heard]


@pytest.fixture
def reward():
    hear.batches = []
    return SpokenReward(Processor(), hear, LengthJudge(), max_auto_bleu=0.2, batch_size=3)


def test_a_completion_gets_the_score_of_what_is_heard(reward):
    logged = {}
    rewards = reward(
        prompts=["<Un0><Un1>"] * 2 + ["<Un4><Un6>"],
        completions=["<Un2><Un3>", "<Un2><Un3><Un4><Un5>", "<Un2>"],
        log_metric=logged.__setitem__,
        prompt_text=["other columns"] * 3,
    )
    assert rewards == [len("sat on"), len("sat on a mat"), len("sat")]
    said = [("the cat", "sat on"), ("the cat", "sat on a mat"), ("a dog", "sat")]
    assert reward.judge.asked == [Exchange(*texts) for texts in said]
    assert hear.batches == [[[0, 1], [4, 6]], [[2, 3], [2, 3, 4, 5], [2]]]  # each prompt is heard once
    assert logged == {"completions/repeating": 0.0, "completions/unscored": 0.0}
    assert reward.__name__ == "length"
    reward(prompts=["<Un0><Un1>"], completions=["<Un2>"])
    assert hear.batches[2:] == [[[2]]]


def test_repetition_and_silence_get_less_than_the_lowest_score_of_their_prompt(reward):
    logged = {}
    rewards = reward(
        prompts=["<Un0>"] * 4 + ["<Un1>"] * 2 + ["<Un2>"],
        completions=["<Un2><Un3>", "<Un2>", "<Un2><Un3><Un2><Un3>", "", "<Un2><Un3><Un4><Un5>", "", ""],
        log_metric=logged.__setitem__,
    )
    # The longest of the first prompt repeats itself. Of the last prompt, nothing has a score.
    assert rewards == [6, 3, 2, 2, 12, 11, -1]
    assert logged == {"completions/repeating": pytest.approx(1 / 7), "completions/unscored": pytest.approx(3 / 7)}


def arguments(**options):
    return OnlineAlignArguments(dataset_name="somewhere", judge_model="a-model", **options)


def test_prompts_come_from_pairs_or_from_a_corpus():
    pairs = Dataset.from_dict({"prompt": ["<Un3>", "<Un4><Un5>", "<Un3>"]})
    assert make_prompts(pairs, arguments(), Processor())["prompt"] == ["<Un3>", "<Un4><Un5>"]
    words = [{"word": "a", "start_time": 0.0, "end_time": 0.9}, {"word": "b", "start_time": 1.0, "end_time": 5.0}]
    rows = {"units": [[1, 2, 3], [9]], "durations": [[10, 10, 80], [99]], "aligned_text": [words, []]}
    corpus = Dataset.from_dict(rows)
    assert make_prompts(corpus, arguments(prompt_seconds=1.0), Processor())["prompt"] == ["<Un1><Un2>"]
    with pytest.raises(ValueError, match="'somewhere' has neither preference pairs, with `prompt`, nor a tokenised"):
        make_prompts(Dataset.from_dict({"text": ["a"]}), arguments(), Processor())
    with pytest.raises(ValueError, match="unit 50 is outside the vocabulary"):
        make_prompts(Dataset.from_dict({"prompt": ["<Un50>"]}), arguments(), Processor())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_name": None}, "Name the data: `dataset_name`"),
        ({"dataset_name": "a", "prompt_seconds": 0}, "`prompt_seconds` must be positive, got 0"),
        ({"dataset_name": "a", "dataset_streaming": True}, "`dataset_streaming` has no effect"),
        ({"dataset_name": "a", "judge": "rating"}, "`judge rating` needs `judge_model`"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OnlineAlignArguments(**options)
