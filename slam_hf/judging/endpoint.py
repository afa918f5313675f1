"""A judge behind an OpenAI-compatible endpoint, such as a vLLM server."""

import json
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

# Not the client of huggingface_hub: it refuses a server on this machine in offline mode (`HF_HUB_OFFLINE`).
import httpx2

from ..public_names import public_name
from .judge import NO_RATING, Exchange, Judge, Judgement, RatingPrompt, parse_rating


WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before each further try. A server may ask for more (`Retry-After`)."""

MAX_WAIT = 60.0

BUSY = (408, 409, 425, 429)
"""Answers after which the same question may get a reply; so may those from 500 on."""

UNFIT = (400, 413, 422)
"""Answers that say that something is wrong with this question, such as its length."""

REFUSED, NO_COMPLETION = "refused by the endpoint", "not a chat completion"
"""Problems of judgements. Then their `reply` is what the endpoint says."""


LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are not asked through a proxy: what is said to them stays on this machine."""


class EndpointError(ConnectionError):
    """The endpoint could not be reached, or gave no reply, in several tries."""


class EndpointJudge(Judge):
    r"""
    An instruct LM behind an OpenAI-compatible endpoint, which is asked for a rating from 1 to 5. Transcripts are sent
    to this endpoint, and to no other: redirects are not followed.

    Args:
        url (`str`):
            The endpoint, such as `http://localhost:8000/v1`.
        model (`str`):
            The name that the endpoint gives the model.
        prompt ([`RatingPrompt`], *optional*):
            What it is asked.
        key (`str`, *optional*):
            Sent as the bearer token.
        timeout (`float`, *optional*, defaults to 60.0):
            Seconds to wait for a reply, before the question is asked again.
        parallel (`int`, *optional*, defaults to 8):
            Maximum number of questions at once.
        reply_tokens (`int`, *optional*, defaults to 64):
            Maximum length of a reply, in tokens.

    Raises:
        ValueError: `url` is not the URL of an endpoint, or has a password; or `key` cannot be sent.
    """

    def __init__(
        self,
        url: str,
        model: str,
        prompt: RatingPrompt | None = None,
        key: str | None = None,
        timeout: float = 60.0,
        parallel: int = 8,
        reply_tokens: int = 64,
    ):
        if "@" in url:
            raise ValueError("The URL of the judge has a user or a password: put the key in the environment.")
        shown = re.split("[?#]", url)[0]  # keys may come after it
        try:
            parts = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"'{shown}' is not the URL of an endpoint: {error}.") from None
        if parts.scheme not in ("http", "https") or not parts.host or shown != url:
            raise ValueError(f"'{shown}' is not the URL of an endpoint, such as http://localhost:8000/v1.")
        if not re.fullmatch(r"[!-~]*", key or ""):
            raise ValueError("The key of the judge has spaces, line breaks or letters that a header cannot have.")
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self.model, self.prompt, self.parallel = model, prompt or RatingPrompt(), parallel
        self.reply_tokens, self._key = reply_tokens, key
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            limits=httpx2.Limits(max_connections=parallel),
            follow_redirects=False,
            trust_env=parts.host not in LOOPBACK,
        )
        # Not the URL, nor the folder that a server may name its model by: both tell of private machines.
        self.description = {
            "judge": "rating",
            "model": {"name": public_name(model) if os.path.isabs(model) else model, "endpoint": True},
            "prompt": self.prompt.sha256,
            "reply_tokens": reply_tokens,
        }

    def check(self) -> None:
        """Ask one question, so that an endpoint which does not work is found before the work.

        Raises:
            ConnectionError, ValueError: it does not reply, or not to this question.
        """
        answer = self._ask(Exchange("The sun went down behind the hills.", "It was soon dark."))
        if answer.problem in (REFUSED, NO_COMPLETION):
            raise ValueError(
                f"The judge at '{self.url}' does not reply to a short question: {answer.problem} ({answer.reply})."
            )

    def _judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        pool = ThreadPoolExecutor(self.parallel)
        try:
            return list(pool.map(self._ask, exchanges))
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, exchange: Exchange) -> Judgement:
        question = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt.fill(exchange)}],
            "max_tokens": self.reply_tokens,
            "temperature": 0,
        }
        for wait in (*WAITS, None):
            asked = 0.0
            try:
                response = self._client.post(f"{self.url}/chat/completions", json=question)
            except httpx2.RequestError as error:
                trouble = f"{type(error).__name__}: {error}".removesuffix(": ")
            else:
                status = response.status_code
                if status == 200:
                    return self._read_reply(response)
                trouble = f"it answers {status}: {self._detail(response)}"
                if status in UNFIT:
                    return Judgement(None, REFUSED, trouble)
                if status < 500 and status not in BUSY:
                    raise ValueError(
                        f"The judge at '{self.url}' cannot be asked: {trouble}. Check its URL, the name of the model "
                        "and the key."
                    )
                asked = _seconds(response.headers.get("Retry-After", ""))
            if wait is not None:
                time.sleep(min(max(wait, asked), MAX_WAIT))
        raise EndpointError(
            f"The judge at '{self.url}' gave no reply in {1 + len(WAITS)} tries ({trouble}). Start the same command "
            "again to continue."
        )

    def _read_reply(self, response: httpx2.Response) -> Judgement:
        try:
            reply = response.json()["choices"][0]["message"]["content"]
        except (IndexError, KeyError, RecursionError, TypeError, ValueError):
            return Judgement(None, NO_COMPLETION, self._detail(response))
        # The reply of a model that has only thought, or called a tool, may be null.
        return parse_rating(self._without_key(reply)) if isinstance(reply, str) else Judgement(None, NO_RATING, "")

    def _detail(self, response: httpx2.Response) -> str:
        """What a server says about an error, in one short line."""
        try:
            detail = json.dumps(response.json(), ensure_ascii=False)
        except (RecursionError, ValueError):
            detail = response.text
        return " ".join(self._without_key(detail).split())[:200]

    def _without_key(self, text: str) -> str:
        """Some servers repeat the key. Replies are published, and errors are logged."""
        return text.replace(self._key, "<key>") if self._key else text


def _seconds(retry_after: str) -> float:
    """The seconds of a `Retry-After`; 0 for a date."""
    return float(retry_after) if retry_after.isdecimal() else 0.0
