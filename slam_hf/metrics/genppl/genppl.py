"""GenPPL: perplexity of transcripts of generated speech under a text language model."""

from itertools import takewhile

import datasets
import evaluate
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


_DESCRIPTION = """
GenPPL measures how natural generated speech is, on its transcripts: their perplexity under a text language model. The
published numbers of the Slam models are for prompts of 3 seconds from 1,000 sStoryCloze stories, prompt and
continuation transcribed together by Whisper-large-v3-turbo, under Llama-3.2-1B.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `str`):
        Transcripts, as the speech recogniser gives them.
    model_id (`str`, *optional*):
        The text language model, a Hub id or a folder: any causal LM of transformers.
    start_token (`str`, *optional*):
        The token that the model's training texts begin with, which the first token of a transcript is scored after.
        Defaults to the tokenizer's `bos_token`. Not every model was trained with that one: the `bos_token` of
        SmolLM2-Instruct is `<|im_start|>`, but it needs `"<|endoftext|>"`.
    batch_size (`int`, *optional*, defaults to 16):
        Transcripts to score together.
    device (`str`, *optional*, defaults to `"cpu"`):
        Device to score on.
    losses (`list` of `float`, *optional*):
        In place of `model_id`: the mean negative log-likelihood per token of each transcript under a text language
        model, in nats, with `None` for an empty one.

Returns:
    genppl (`float`):
        exp of the mean, over the transcripts that are not empty, of the mean negative log-likelihood per token (arXiv
        2502.15814). NaN where all are empty.
    genppl_interval (`list` of 2 `float`):
        95 % interval by the percentile bootstrap over transcripts.
    num_transcripts, num_empty (`int`):
        Number of transcripts, and of those without words, which have no perplexity.
    negative_log_likelihoods (`list` of `float`):
        Mean negative log-likelihood per token of each transcript, in nats; `None` for an empty one. Not with `losses`.

Example:

    >>> genppl = evaluate.load("slam_hf/metrics/genppl")
    >>> results = genppl.compute(predictions=[" The cat sat on the mat.", ""], model_id="meta-llama/Llama-3.2-1B")
    >>> results["num_empty"]
    1
"""

_CITATION = """
@article{maimon2025slamming,
  title={Slamming: Training a Speech Language Model on One GPU in a Day},
  author={Maimon, Gallil and Elmakies, Avishai and Adi, Yossi},
  journal={arXiv preprint arXiv:2502.15814},
  year={2025}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class GenPPL(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("string")}),
            reference_urls=["https://arxiv.org/abs/2502.15814"],
        )

    def _compute(
        self,
        predictions,
        model_id=None,
        start_token=None,
        batch_size=16,
        device="cpu",
        losses=None,
    ):
        if (model_id is None) == (losses is None):
            raise ValueError("Pass either `model_id`, the text language model, or its `losses`.")
        if losses is not None:
            return summarize(losses)
        tokenizer = AutoTokenizer.from_pretrained(model_id)
        model = AutoModelForCausalLM.from_pretrained(model_id, dtype=torch.float32).to(device).eval()
        losses = negative_log_likelihoods(predictions, model, tokenizer, start_token, batch_size)
        return summarize(losses) | {"negative_log_likelihoods": losses}


def summarize(losses: list[float | None]) -> dict:
    """The scores of the metric for the transcripts' negative log-likelihoods."""
    groups = [np.sort([loss for loss in losses if loss is not None])]
    is_empty = len(groups[0]) == 0
    return {
        "genppl": np.nan if is_empty else _perplexity(groups),
        "genppl_interval": [np.nan, np.nan] if is_empty else confidence_interval(_perplexity, groups),
        "num_transcripts": len(losses),
        "num_empty": losses.count(None),
    }


@torch.no_grad()
def negative_log_likelihoods(
    texts: list[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    start_token: str | None = None,
    batch_size: int = 16,
    contexts: list[str] | None = None,
) -> list[float | None]:
    """Mean negative log-likelihood per token of each text after the start token and its context, whose own tokens are
    not scored, in nats; `None` for an empty text."""
    start_token = start_token or tokenizer.bos_token
    if start_token is None:
        raise ValueError(
            "The text LM's tokenizer has no `bos_token`: pass `start_token=`, the token that its training texts began "
            "with, such as '<|endoftext|>'."
        )
    start_id = tokenizer.convert_tokens_to_ids(start_token)
    if start_id is None or tokenizer.convert_ids_to_tokens(start_id) != start_token:
        raise ValueError(f"{start_token!r} is no token of the text LM's tokenizer.")
    contexts = [""] * len(texts) if contexts is None else contexts
    ids, firsts = [], []
    for context, text in zip(contexts, texts, strict=True):
        before, whole = tokenizer([context, context + text], add_special_tokens=False)["input_ids"]
        ids.append(whole if text.strip() else [])
        # A token may begin in the context and end in the text.
        firsts.append(sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(before, whole, strict=False))))
    losses: list[float | None] = [None] * len(texts)
    longest_first = sorted((row for row in range(len(ids)) if ids[row][firsts[row] :]), key=lambda row: -len(ids[row]))
    for start in range(0, len(longest_first), batch_size):
        rows = longest_first[start : start + batch_size]
        sequences = [torch.tensor([start_id, *ids[row]], device=model.device) for row in rows]
        input_ids = pad_sequence(sequences, batch_first=True)
        labels = pad_sequence([sequence[1:] for sequence in sequences], batch_first=True, padding_value=-100)
        for label, row in zip(labels, rows, strict=True):
            label[: firsts[row]] = -100
        attention_mask = pad_sequence([torch.ones_like(sequence) for sequence in sequences], batch_first=True)
        logits = model(input_ids, attention_mask=attention_mask).logits[:, :-1].float()
        sums = cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1).tolist()
        for row, total in zip(rows, sums, strict=True):
            losses[row] = total / (len(ids[row]) - firsts[row])
    return losses


def _perplexity(groups):
    return float(np.exp(np.mean(groups[0])))


def confidence_interval(statistic, groups):
    """95 % percentile bootstrap of a statistic of groups of items, each group resampled on its own.

    The metrics share this by copy: each is a Space of its own.
    """
    generator = np.random.default_rng(0)
    estimates = [statistic([generator.choice(group, len(group)) for group in groups]) for _ in range(1000)]
    return np.quantile(estimates, (0.025, 0.975), axis=0).T.tolist()
