"""Forced alignment: the frames in which each word of a known text is spoken, from the outputs of a CTC network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchaudio

from ...encoding.recordings import SkipReason
from .word_times import UnalignableError


MAX_CELLS = 2**31
"""Maximum size of an alignment, frames times tokens, in bytes. An hour of speech would take six times as much."""


def align_words(
    log_probabilities: torch.Tensor, words: Sequence[Sequence[int]], blank: int, delimiter: int | None = None
) -> list[tuple[int, int]]:
    r"""
    Find the frames of words.

    Args:
        log_probabilities (`torch.FloatTensor` of shape `(num_frames, vocabulary_size)`):
            Log-probabilities of the tokens in each frame.
        words (sequence of sequences of `int`):
            Ids of the tokens of each word, at least one.
        blank (`int`):
            Id of CTC's blank.
        delimiter (`int`, *optional*):
            Id of the token between two words, in vocabularies that have one.

    Returns:
        `list[tuple[int, int]]`: the first frame of each word and the frame after its last.

    Raises:
        UnalignableError: there are fewer frames than the text needs, too many for the memory, or values that are not
            finite.
    """
    tokens: list[int] = []
    owners: list[int | None] = []
    for number, word in enumerate(words):
        if number > 0 and delimiter is not None:
            tokens.append(delimiter)
            owners.append(None)
        tokens += word
        owners += [number] * len(word)
    num_frames = len(log_probabilities)
    needed = len(tokens) + sum(first == second for first, second in pairwise(tokens))
    if num_frames < needed:
        raise UnalignableError(SkipReason.SHORTER_THAN_TEXT, f"{num_frames} frames for {needed} tokens")
    if num_frames * len(tokens) > MAX_CELLS:
        raise UnalignableError(SkipReason.TOO_LONG, f"{num_frames} frames by {len(tokens)} tokens")
    if not torch.isfinite(log_probabilities).all():
        raise UnalignableError(SkipReason.NOT_FINITE, "the network gives NaN or infinite values")
    targets = torch.tensor([tokens], device=log_probabilities.device)
    path, scores = torchaudio.functional.forced_align(log_probabilities[None].contiguous(), targets, blank=blank)
    spans = torchaudio.functional.merge_tokens(path[0], scores[0], blank)
    bounds: dict[int, tuple[int, int]] = {}
    for owner, span in zip(owners, spans, strict=True):
        if owner is not None:
            bounds[owner] = (bounds.get(owner, (span.start,))[0], span.end)
    return list(bounds.values())
