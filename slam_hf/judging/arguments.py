"""Arguments that name a judge by plain values, and the judge that they name."""

import os
from dataclasses import dataclass
from typing import Literal

import torch

from ..option_parser import with_help
from .endpoint import EndpointJudge
from .judge import Judge, RatingPrompt
from .local import PerplexityJudge, RatingJudge, TextLM, check_instruct_lm, check_text_lm


KEY = "JUDGE_API_KEY"
"""Environment variable with the key of the endpoint."""


@with_help
@dataclass
class JudgeArguments:
    r"""
    Who judges continuations, and how.

    Args:
        judge (`"perplexity"` or `"rating"`, *optional*):
            `"perplexity"`: the mean log-likelihood per token that a text LM gives the continuation after the prompt,
            in nats. `"rating"`: an instruct LM is asked for a rating from 1 to 5. Defaults to the rating if there is a
            `judge_url`, and otherwise to the perplexity.
        judge_model (`str`, *optional*):
            The text LM or the instruct LM, a Hub id or a folder, or the name that the endpoint gives it. The default
            for the perplexity is `meta-llama/Llama-3.2-1B`.
        judge_url (`str`, *optional*):
            An OpenAI-compatible endpoint that serves the instruct LM, such as `http://localhost:8000/v1`. Without it,
            no text leaves this machine. Its key, if it needs one, is read from the environment variable
            `JUDGE_API_KEY`.
        judge_prompt (`str`, *optional*):
            File with what the instruct LM is asked, with `{prompt}` and `{continuation}`. Defaults to the package's
            question.
        judge_start_token (`str`, *optional*):
            The token that the text LM's training texts begin with. Defaults to its tokenizer's `bos_token`.
        judge_reply_tokens (`int`, *optional*, defaults to 64):
            Maximum length of a reply, in tokens.
        judge_timeout (`float`, *optional*, defaults to 60.0):
            Seconds to wait for the endpoint, before it is asked again.
        judge_parallel (`int`, *optional*, defaults to 8):
            Maximum number of questions to the endpoint at once.

    Raises:
        ValueError: arguments do not fit together, or one that is needed is missing.
    """

    _argument_group_name = "who judges"

    judge: Literal["perplexity", "rating"] | None = None
    judge_model: str | None = None
    judge_url: str | None = None
    judge_prompt: str | None = None
    judge_start_token: str | None = None
    judge_reply_tokens: int = 64
    judge_timeout: float = 60.0
    judge_parallel: int = 8

    def __post_init__(self):
        if self.judge is None:
            self.judge = "perplexity" if self.judge_url is None else "rating"
        if self.judge == "perplexity":
            for name in ("judge_url", "judge_prompt"):
                if getattr(self, name) is not None:
                    raise ValueError(f"`{name}` needs `judge rating`: the perplexity is computed here.")
            self.judge_model = self.judge_model or "meta-llama/Llama-3.2-1B"
        if self.judge_model is None:
            raise ValueError("`judge rating` needs `judge_model`, an instruct LM.")
        for name in ("judge_reply_tokens", "judge_timeout", "judge_parallel"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")


def check_judge(args: JudgeArguments) -> None:
    """Raise what [`load_judge`] would, as far as it is known without loading a model or asking an endpoint."""
    if args.judge == "perplexity":
        check_text_lm(args.judge_model, args.judge_start_token)
    elif args.judge_url is not None:
        _make_endpoint(args)
    else:
        RatingPrompt(args.judge_prompt)
        check_instruct_lm(args.judge_model)


def load_judge(args: JudgeArguments, device: str | torch.device = "cpu") -> Judge:
    """Load the judge that these arguments name. An endpoint is asked a question first, to see whether it works.

    Raises:
        OSError, ValueError: a model or the prompt cannot be loaded, or the endpoint does not work.
    """
    if args.judge == "perplexity":
        text_lm = TextLM.from_pretrained(args.judge_model, args.judge_start_token)
        text_lm.model.to(device)
        return PerplexityJudge(text_lm)
    if args.judge_url is None:
        prompt = RatingPrompt(args.judge_prompt)
        return RatingJudge.from_pretrained(args.judge_model, device, prompt, args.judge_reply_tokens)
    judge = _make_endpoint(args)
    judge.check()
    return judge


def _make_endpoint(args: JudgeArguments) -> EndpointJudge:
    return EndpointJudge(
        args.judge_url,
        args.judge_model,
        RatingPrompt(args.judge_prompt),
        os.environ.get(KEY),
        args.judge_timeout,
        args.judge_parallel,
        args.judge_reply_tokens,
    )
