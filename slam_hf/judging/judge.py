"""What a judge is: it scores the continuations of prompts, both given as transcripts."""

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


DEFAULT_PROMPT = Path(__file__).with_name("prompt.txt")
"""What a judge that rates is asked: a text with `{prompt}` and `{continuation}`."""


NO_RATING = "no rating in the reply"


class Exchange(NamedTuple):
    """The transcripts of a prompt and of what a model said after it."""

    prompt: str
    continuation: str


class Judgement(NamedTuple):
    """A score, or why there is none: one of a few `problem`s, which can be counted. `reply` is what a judge that rates
    has answered."""

    score: float | None
    problem: str | None = None
    reply: str | None = None


class Judge(ABC):
    """
    Scores continuations. Attributes:

    - **description** (`dict`) -- What the scores depend on, as plain values that can be published.
    """

    description: dict[str, Any]

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """Score continuations; higher is better. One without words has no score.

        Raises:
            ConnectionError, ValueError: the judge is an endpoint, and gave no reply in several tries, or refuses to be
                asked.
        """
        spoken = [row for row, exchange in enumerate(exchanges) if exchange.continuation.strip()]
        judgements = [Judgement(None, "no words")] * len(exchanges)
        for row, judgement in zip(spoken, self._judge([exchanges[row] for row in spoken]), strict=True):
            is_number = judgement.score is None or math.isfinite(judgement.score)
            judgements[row] = judgement if is_number else Judgement(None, "not a finite score")
        return judgements

    @abstractmethod
    def _judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        """Score continuations that have words."""


class RatingPrompt:
    r"""
    What a judge that rates is asked.

    Args:
        path (`str` or `os.PathLike`, *optional*):
            A text file with `{prompt}` and `{continuation}`, which asks for a rating from 1 to 5. Defaults to the one
            that comes with the package.

    Raises:
        ValueError: the file is not UTF-8, or lacks one of the two.
    """

    def __init__(self, path: str | Path | None = None):
        path = path or DEFAULT_PROMPT
        try:
            self.text = Path(path).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"'{path}' is not UTF-8 ({error.reason}).") from error
        if missing := [name for name in ("{prompt}", "{continuation}") if name not in self.text]:
            raise ValueError(f"'{path}' has no {missing[0]}: the judge would not see it.")
        self.sha256 = hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, exchange: Exchange) -> str:
        """The text of the file with the transcripts in their places."""
        return re.sub(r"\{(prompt|continuation)\}", lambda name: getattr(exchange, name[1]).strip(), self.text)


def parse_rating(reply: str) -> Judgement:
    """
    The rating in a reply, where it is the only number: `4`, `Rating: 4`, `4/5` or `4 out of 5`. A reply with another
    number, such as `3 or 4`, `3.5` or `7`, has no rating, and neither has one without a number. What a model thinks
    before it replies (`<think>...</think>`) does not count, also where it was cut off or begun by the prompt.
    """
    text = re.sub(r"\A.*</think>|<think>.*", " ", reply, flags=re.DOTALL)
    text = re.sub(r"(?<![\w.,/-])([1-5])\**\s*(?:/|out\s+of)\s*5(?![\w/-]|[.,]\d)", r" \1 ", text)
    text = re.sub(r"(?<![\w.,/-])1\s*(?:-|–|to)\s*5(?![\w/-]|[.,]\d)", " ", text)  # "from 1 to 5"
    words = [word.strip("*_\"'`.,;!?") for word in re.split(r"[\s:={}<>()\[\]|]+", text)]
    numbers = {word for word in words if any(character.isdigit() for character in word)}
    if len(numbers) != 1 or (number := numbers.pop()) not in ("1", "2", "3", "4", "5"):
        return Judgement(None, NO_RATING, reply)
    return Judgement(float(number), reply=reply)
