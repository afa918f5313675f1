"""The members of pairs as token sequences: speech, or a prompt and an ending that are each speech or text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tokenization_hubert_unit import HubertUnitTokenizer
from ..tokenization_speech_text import SpeechTextTokenizer
from .tasks import Task
from .units import Utterances


@dataclass(frozen=True)
class TokenSequence:
    """Ids of shape `(length,)`, and the index at which the ending of a story begins, or an utterance without a prompt.
    The first id is never scored."""

    ids: np.ndarray
    start: int


@dataclass(frozen=True)
class Candidate:
    """A member of a pair: the sequence of the published score and, if there is a prompt, the ending alone."""

    whole: TokenSequence
    ending: TokenSequence | None = None


def make_candidate(
    name: str,
    prompt: str | None,
    task: Task,
    utterances: Utterances,
    tokenizer: HubertUnitTokenizer | SpeechTextTokenizer,
) -> Candidate:
    r"""
    Make the token sequences of a member of a pair.

    The text form is that of training: a modality token at the beginning and where the modality changes, and none in
    speech alone. A prompt and a text are joined as they are, as for the published scores: the reference toolkit strips
    texts, and puts nothing between them. Speech to speech is plain sStoryCloze or tStoryCloze, and so without the
    modality token that the toolkit's cross-modal metric has there. The ending alone comes after its modality token, or
    after `<S>` in a model of units alone, so that all of its tokens are scored.

    Args:
        name, prompt (`str`):
            The utterance and its prompt, which may be `None`.
        task ([`Task`]), utterances ([`Utterances`]):
            The modalities, and the units and texts.
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            The model's tokenizer, which puts its special tokens around sequences.
    """
    has_text = isinstance(tokenizer, SpeechTextTokenizer)
    marks = {"speech": [tokenizer.speech_token_id], "text": [tokenizer.text_token_id]} if has_text else {"speech": []}
    if prompt is None:
        return Candidate(_join([], _encode_units(utterances.units[name], tokenizer), tokenizer))
    if task.is_speech:
        units, start = utterances.units[name], utterances.starts[name]
        context, ending = _encode_units(units[:start], tokenizer), _encode_units(units[start:], tokenizer)
        return Candidate(_join(context, ending, tokenizer), _join(marks["speech"], ending, tokenizer))
    if task.prompt == task.ending:
        context, ending = _encode_texts(utterances.texts[prompt], utterances.texts[name], tokenizer)
        alone = _encode_texts("", utterances.texts[name], tokenizer)
        return Candidate(_join(context, ending, tokenizer), _join(*alone, tokenizer))
    spans = {
        modality: _encode_units(utterances.units[part], tokenizer)
        if modality == "speech"
        else _encode_texts("", utterances.texts[part], tokenizer)[1]
        for part, modality in ((prompt, task.prompt), (name, task.ending))
    }
    mark, ending = marks[task.ending], spans[task.ending]
    context = [*marks[task.prompt], *spans[task.prompt], *mark]
    return Candidate(_join(context, ending, tokenizer), _join(mark, ending, tokenizer))


def _encode_units(units: np.ndarray, tokenizer: HubertUnitTokenizer | SpeechTextTokenizer) -> list[int]:
    return tokenizer.encode_units(units, add_special_tokens=False)["input_ids"]


def _encode_texts(prompt: str, ending: str, tokenizer: SpeechTextTokenizer) -> tuple[list[int], list[int]]:
    """Ids of two texts in one piece, the first with the modality token in front. A token with characters of both is
    one of the second."""
    context = tokenizer.text_token + prompt
    encoding = tokenizer(context + ending, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoding["input_ids"], [end for _, end in encoding["offset_mapping"]]
    first = next((index for index, end in enumerate(ends) if end > len(context)), len(ids))
    return ids[:first], ids[first:]


def _join(
    context: Sequence[int], ending: Sequence[int], tokenizer: HubertUnitTokenizer | SpeechTextTokenizer
) -> TokenSequence:
    """Ids of both, with the special tokens of the tokenizer around them."""
    [unit], around = _encode_units(np.zeros(1, int), tokenizer), tokenizer.encode_units(np.zeros(1, int))["input_ids"]
    place = around.index(unit)
    ids = np.array([*around[:place], *context, *ending, *around[place + 1 :]])
    return TokenSequence(ids, max(1, place + len(context)) if len(ending) > 0 else len(ids))
