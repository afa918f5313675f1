"""Judges that run here: the perplexity of a text LM, and the rating of an instruct LM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..fingerprints import describe_model
from ..loading_utils import naming_damaged_files
from ..metrics.genppl.genppl import negative_log_likelihoods
from .judge import Exchange, Judge, Judgement, RatingPrompt, parse_rating


@dataclass(frozen=True)
class TextLM:
    r"""
    A language model of text that gives likelihoods.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            Any causal LM.
        start_token (`str`, *optional*):
            The token that the model's training texts begin with. Defaults to the tokenizer's `bos_token`.

    Raises:
        ValueError: the tokenizer has no such token.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    start_token: str | None = None

    def __post_init__(self):
        self.losses([])  # checks the start token

    @classmethod
    def from_pretrained(cls, name: str, start_token: str | None = None) -> "TextLM":
        """Load a model from a folder or the Hub, in float32."""
        return cls(*_load(name, torch.float32), start_token)

    @property
    def description(self) -> dict[str, Any]:
        """`dict`: What the likelihoods depend on."""
        return describe_model(self.model) | {"start_token": self.start_token or self.tokenizer.bos_token}

    def losses(
        self, texts: Sequence[str], batch_size: int = 16, contexts: Sequence[str] | None = None
    ) -> list[float | None]:
        """Mean negative log-likelihood per token of each text, in nats, after its context where there is one; `None`
        for an empty text."""
        return negative_log_likelihoods(texts, self.model, self.tokenizer, self.start_token, batch_size, contexts)


class PerplexityJudge(Judge):
    r"""
    Scores a continuation by how likely a text LM finds it after the prompt: the mean log-likelihood per token, in
    nats, which is minus the logarithm of its perplexity.

    Args:
        text_lm ([`TextLM`]):
            The language model.
        batch_size (`int`, *optional*, defaults to 16):
            Texts to score together.
    """

    def __init__(self, text_lm: TextLM, batch_size: int = 16):
        self.text_lm = text_lm
        self.batch_size = batch_size
        self.description = {"judge": "perplexity", "model": text_lm.description}

    def _judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        contexts = [exchange.prompt.strip() for exchange in exchanges]
        texts = [exchange.continuation.strip() for exchange in exchanges]
        texts = [f" {text}" if context else text for context, text in zip(contexts, texts, strict=True)]
        whole = [context + text for context, text in zip(contexts, texts, strict=True)]
        lengths = [len(self.text_lm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in whole]
        fits = [_fits(self.text_lm.model, 1 + length) for length in lengths]
        texts = [text if short else "" for text, short in zip(texts, fits, strict=True)]
        losses = self.text_lm.losses(texts, self.batch_size, contexts)
        return [
            Judgement(None, "no words" if short else "too long") if loss is None else Judgement(-loss)
            for loss, short in zip(losses, fits, strict=True)
        ]


class RatingJudge(Judge):
    r"""
    An instruct LM, which is asked for a rating from 1 to 5.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            Any causal LM whose tokenizer has a chat template.
        prompt ([`RatingPrompt`], *optional*):
            What it is asked.
        reply_tokens (`int`, *optional*, defaults to 64):
            Maximum length of a reply, in tokens. It is decoded greedily.
        batch_size (`int`, *optional*, defaults to 16):
            Questions to ask together.

    Raises:
        ValueError: the tokenizer has no chat template.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: RatingPrompt | None = None,
        reply_tokens: int = 64,
        batch_size: int = 16,
    ):
        _check_chat_template(tokenizer)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt or RatingPrompt()
        self.reply_tokens, self.batch_size = reply_tokens, batch_size
        self.description = {
            "judge": "rating",
            "model": describe_model(model),
            "prompt": self.prompt.sha256,
            "reply_tokens": reply_tokens,
        }

    @classmethod
    def from_pretrained(
        cls, name: str, device: str | torch.device = "cpu", prompt: RatingPrompt | None = None, reply_tokens: int = 64
    ) -> "RatingJudge":
        """Load a model from a folder or the Hub, in bfloat16 on a GPU."""
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        model, tokenizer = _load(name, dtype)
        return cls(model.to(device), tokenizer, prompt, reply_tokens)

    def _judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        questions = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": self.prompt.fill(exchange)}], add_generation_prompt=True, tokenize=False
            )
            for exchange in exchanges
        ]
        ids = [self.tokenizer(question, add_special_tokens=False)["input_ids"] for question in questions]
        judgements = [Judgement(None, "too long")] * len(ids)
        rows = [row for row in range(len(ids)) if _fits(self.model, len(ids[row]) + self.reply_tokens)]
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            for row, reply in zip(batch, self._reply([ids[row] for row in batch]), strict=True):
                judgements[row] = parse_rating(reply)
        return judgements

    @torch.inference_mode()
    def _reply(self, ids: list[list[int]]) -> list[str]:
        inputs = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(self.model.device)
        output = self.model.generate(
            **inputs,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self.reply_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def check_text_lm(name: str, start_token: str | None = None) -> None:
    """Raise what [`TextLM.from_pretrained`] would, as far as the tokenizer tells."""
    negative_log_likelihoods([], None, _load_tokenizer(name), start_token)


def check_instruct_lm(name: str) -> None:
    """Raise what [`RatingJudge.from_pretrained`] would, as far as the tokenizer tells."""
    _check_chat_template(_load_tokenizer(name))


def _check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise ValueError(f"'{tokenizer.name_or_path}' has no chat template: choose an instruct model as the judge.")


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    with naming_damaged_files(name):
        return AutoTokenizer.from_pretrained(name)


def _load(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = _load_tokenizer(name)
    with naming_damaged_files(name):
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype).eval(), tokenizer


def _fits(model: PreTrainedModel, num_tokens: int) -> bool:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit is None or num_tokens <= limit
