"""Log-likelihoods of pairs of utterances."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ..encoding.length_groups import group_by_length
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..processes import get_process_state
from .candidates import Candidate, TokenSequence
from .journal import Journal


CLOSE, CLOSE_IN_BFLOAT16 = 1e-4, 5e-3
"""Two scores with a smaller relative difference may swap places if they are computed in other batches."""


def score_pairs(
    pairs: Sequence[tuple[Candidate, Candidate]],
    model: SpeechLMForCausalLM,
    journal_dir: str | os.PathLike,
    reduction: Literal["mean", "sum"] = "mean",
    batch_tokens: int = 8192,
    suppress_tokens: Sequence[int] | None = None,
    name: str = "scoring",
) -> np.ndarray:
    r"""
    Compute three log-likelihoods of each utterance of pairs: that of all tokens after the first, as published; that of
    the ending of a story given its prompt; and the latter minus that of the ending alone.

    Called in each process of `accelerate launch`, it divides the work among them. Which score of a pair is higher does
    not depend on the number of processes, nor on the size and order of the batches: equal sequences have equal scores,
    and scores that are close to each other are computed again, one at a time.

    Args:
        pairs (sequence of pairs of [`Candidate`]):
            The utterances as token sequences.
        model ([`SpeechLMForCausalLM`]):
            The model in evaluation mode.
        journal_dir (`str` or `os.PathLike`):
            Where scores are kept as they are computed. The folder must be for this model, its type of weights, these
            suppressed tokens and this reduction only.
        reduction, batch_tokens:
            As in [`EvaluationArguments`].
        suppress_tokens (sequence of `int`, *optional*):
            Ids that get no probability.
        name (`str`, *optional*, defaults to `"scoring"`):
            What the progress bar says.

    Returns:
        `np.ndarray` of shape `(pairs, 2, 3)`, float64, in nats; NaN where a candidate has no prompt.
    """
    keys = [[_keys(candidate) for candidate in pair] for pair in pairs]
    sequences = {
        key: sequence
        for pair, of_pair in zip(pairs, keys, strict=True)
        for candidate, of_candidate in zip(pair, of_pair, strict=True)
        for key, sequence in zip(of_candidate, (candidate.whole, candidate.ending), strict=True)
        if sequence is not None
    }
    folder = Path(journal_dir)
    # With a delay, a bar does not show where there is nothing to do.
    disable = not get_process_state().is_main_process
    with tqdm(desc=name, unit=" utterances", total=0, delay=1e-3, disable=disable) as bar:
        options = (model, reduction, suppress_tokens, bar)
        scores = _score(sequences, folder / "batched", batch_tokens, *options)
        closest = CLOSE_IN_BFLOAT16 if model.dtype == torch.bfloat16 else CLOSE
        close = [pair for pair in keys if _are_close(*pair, scores, closest)]
        alone = {key: sequences[key] for pair in close for of_candidate in pair for key in of_candidate if key}
        scores |= _score(alone, folder / "alone", 0, *options)
    rows = [[_combine(of_candidate, scores)[0] for of_candidate in pair] for pair in keys]
    return np.array(rows, dtype=np.float64).reshape(-1, 2, 3)


def _score(
    sequences: Mapping[str, TokenSequence],
    journal_dir: Path,
    batch_tokens: int,
    model: SpeechLMForCausalLM,
    reduction: Literal["mean", "sum"],
    suppress_tokens: Sequence[int] | None,
    bar: tqdm,
) -> dict[str, list[float]]:
    """Scores of sequences by key: of all tokens after the first, and of those of the ending. A batch has at least one
    sequence, however long."""
    state = get_process_state()
    journal = Journal(journal_dir)
    # All processes must see the same work pending, before one of them finishes any.
    state.wait_for_everyone()
    pending = sorted(sequences.keys() - journal.results.keys())
    batches = list(group_by_length([len(sequences[key].ids) for key in pending], batch_tokens))
    share = batches[state.process_index :: state.num_processes]
    bar.total += sum(map(len, share))
    log_likelihood = model.log_likelihood
    if suppress_tokens is not None:
        log_likelihood = partial(log_likelihood, suppress_tokens=suppress_tokens)
    for batch in share:
        keys = [pending[position] for position in batch]
        rows = [torch.from_numpy(sequences[key].ids) for key in keys]
        input_ids = pad_sequence(rows, batch_first=True)
        lengths, starts = torch.tensor([[[len(sequences[key].ids)], [sequences[key].start]] for key in keys]).unbind(1)
        positions = torch.arange(input_ids.shape[1])
        is_token = positions < lengths
        inputs = (input_ids.to(model.device), is_token.long().to(model.device))
        tokens = log_likelihood(*inputs, "none")[:, 1:]
        # The padding id is never scored, though it is a token of text in some vocabularies.
        is_scored = (is_token & (input_ids != model.config.pad_token_id))[:, 1:]
        is_ending = is_scored & (positions[1:] >= starts)
        parts = torch.stack(
            [tokens.sum(dim=1), tokens.where(is_ending.to(tokens.device), 0.0).sum(dim=1)], dim=1
        ).cpu()
        if reduction == "mean":
            parts = parts / torch.stack([is_scored.sum(dim=1), is_ending.sum(dim=1)], dim=1)
        journal.add(zip(keys, parts.tolist(), strict=True))
        bar.update(len(keys))
    return {key: score for results in gather_object([journal.results]) for key, score in results.items()}


def _combine(keys: tuple[str, str | None], scores: Mapping[str, list[float]]) -> tuple[tuple[float, ...], float]:
    """The three scores of a candidate, and the size of the terms that the last of them is the difference of."""
    whole, ending = keys
    if ending is None:
        return (scores[whole][0], math.nan, math.nan), 0.0
    (published, conditional), (_, alone) = scores[whole], scores[ending]
    return (published, conditional, conditional - alone), max(abs(conditional), abs(alone))


def _are_close(
    first: tuple[str, str | None], second: tuple[str, str | None], scores: dict[str, list[float]], closest: float
) -> bool:
    if first == second:
        return False
    (ones, one_size), (others, other_size) = _combine(first, scores), _combine(second, scores)
    sizes = (max(map(abs, pair)) for pair in zip(ones[:2], others[:2], strict=True))
    limits = [closest * size for size in (*sizes, max(one_size, other_size))]
    return any(abs(one - other) <= limit for one, other, limit in zip(ones, others, limits, strict=True))


def _keys(candidate: Candidate) -> tuple[str, str | None]:
    return _key(candidate.whole), candidate.ending and _key(candidate.ending)


def _key(sequence: TokenSequence) -> str:
    ids = np.asarray(sequence.ids, dtype=np.int64)
    return hashlib.sha256(np.append(ids, sequence.start).tobytes()).hexdigest()
