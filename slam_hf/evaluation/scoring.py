"""Log-likelihoods of pairs of utterances."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from ..encoding.length_groups import group_by_length
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..processes import get_process_state
from ..tokenization_hubert_unit import HubertUnitTokenizer
from .journal import Journal


CLOSE, CLOSE_IN_BFLOAT16 = 1e-4, 1e-2
"""Two scores with a smaller relative difference may swap places if they are computed in other batches."""


def score_pairs(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    model: SpeechLMForCausalLM,
    tokenizer: HubertUnitTokenizer,
    journal_dir: str | os.PathLike,
    reduction: Literal["mean", "sum"] = "mean",
    batch_tokens: int = 8192,
    name: str = "scoring",
) -> np.ndarray:
    r"""
    Compute the log-likelihoods of pairs of utterances: of `units <S>` after `<S>`.

    Called in each process of `accelerate launch`, it divides the work among them. Which score of a pair is higher does
    not depend on the number of processes, nor on the size and order of the batches: equal units have equal scores, and
    scores that are close to each other are computed again, one at a time.

    Args:
        pairs (sequence of pairs of `np.ndarray` of shape `(units,)`):
            Deduplicated units.
        model ([`SpeechLMForCausalLM`]), tokenizer ([`HubertUnitTokenizer`]):
            The model in evaluation mode, and its tokenizer with `add_eos_token=True`; `ValueError` otherwise.
        journal_dir (`str` or `os.PathLike`):
            Where scores are kept as they are computed. The folder must be for this model, its type of weights and
            this reduction only.
        reduction, batch_tokens:
            As in [`EvaluationArguments`].
        name (`str`, *optional*, defaults to `"scoring"`):
            What the progress bar says.

    Returns:
        `np.ndarray` of shape `(pairs, 2)`, float64, in nats.
    """
    if not tokenizer.add_eos_token:
        raise ValueError("Published scores include the final <S>: load the tokenizer with `add_eos_token=True`.")
    keys = [(_key(first), _key(second)) for first, second in pairs]
    sequences = {key: units for pair in zip(keys, pairs, strict=True) for key, units in zip(*pair, strict=True)}
    folder = Path(journal_dir)
    # With a delay, a bar does not show where there is nothing to do.
    disable = not get_process_state().is_main_process
    with tqdm(desc=name, unit=" utterances", total=0, delay=1e-3, disable=disable) as bar:
        scores = _score(sequences, model, tokenizer, folder / "batched", reduction, batch_tokens, bar)
        closest = CLOSE_IN_BFLOAT16 if model.dtype == torch.bfloat16 else CLOSE
        close = [pair for pair in keys if pair[0] != pair[1] and math.isclose(*map(scores.get, pair), rel_tol=closest)]
        alone = {key: sequences[key] for pair in close for key in pair}
        scores |= _score(alone, model, tokenizer, folder / "alone", reduction, 0, bar)
    return np.array([[scores[key] for key in pair] for pair in keys], dtype=np.float64).reshape(-1, 2)


def _score(
    sequences: Mapping[str, np.ndarray],
    model: SpeechLMForCausalLM,
    tokenizer: HubertUnitTokenizer,
    journal_dir: Path,
    reduction: Literal["mean", "sum"],
    batch_tokens: int,
    bar: tqdm,
) -> dict[str, float]:
    """Scores of sequences by key. A batch has at least one sequence, however long."""
    state = get_process_state()
    journal = Journal(journal_dir)
    # All processes must see the same work pending, before one of them finishes any.
    state.wait_for_everyone()
    pending = sorted(sequences.keys() - journal.results.keys())
    batches = list(group_by_length([len(sequences[key]) + 2 for key in pending], batch_tokens))
    share = batches[state.process_index :: state.num_processes]
    bar.total += sum(map(len, share))
    for batch in share:
        keys = [pending[position] for position in batch]
        inputs = tokenizer.encode_units([sequences[key] for key in keys], padding=True, return_tensors="pt")
        inputs = inputs.to(model.device)
        scores = model.log_likelihood(inputs["input_ids"], inputs["attention_mask"], reduction)
        journal.add(zip(keys, scores.tolist(), strict=True))
        bar.update(len(keys))
    return {key: score for results in gather_object([journal.results]) for key, score in results.items()}


def _key(units: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(units, dtype=np.uint16).tobytes()).hexdigest()
