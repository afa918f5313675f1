"""Makes the token sequences of pairs: of speech, or of a prompt and an ending that are each speech or text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tokenization_hubert_unit import UnitTokenizer
from .tasks import Task
from .units import Utterances


@dataclass(frozen=True)
class TokenSequence:
    """Ids of shape `(length,)`, and the index of the first one of the ending, or of an utterance without a prompt. The
    first id of the sequence is never scored."""

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
    tokenizer: UnitTokenizer,
) -> Candidate:
    r"""
    Make the token sequences of a member of a pair.

    They have the form of the training data: a modality token at the beginning and where the modality changes, and none
    in speech alone. Prompts and endings are joined without a space, as for the published scores: the reference toolkit
    strips texts and puts nothing between them. Speech to speech is plain sStoryCloze or tStoryCloze: it has no
    modality token, while the toolkit's cross-modal metric puts one there. The ending alone follows its modality token,
    or `<S>` in a model of units alone, so that all of its tokens are scored.

    Args:
        name, prompt (`str`):
            The utterance and its prompt, which may be `None`.
        task ([`Task`]), utterances ([`Utterances`]):
            The modalities of the task, and the units and texts of its utterances.
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            The model's tokenizer, which puts its special tokens around sequences.
    """
    if prompt is None:
        return Candidate(_join([], _encode_units(utterances.units[name], tokenizer), tokenizer))
    marks = {"speech": [], "text": []}
    if tokenizer.has_text:
        marks = {"speech": [tokenizer.speech_token_id], "text": [tokenizer.text_token_id]}
    mark = marks[task.ending]
    if task.is_speech:
        units, start = utterances.units[name], utterances.starts[name]
        context, ending = _encode_units(units[:start], tokenizer), _encode_units(units[start:], tokenizer)
        alone = ending
    elif task.prompt == task.ending:
        context, ending = _encode_texts(utterances.texts[prompt], utterances.texts[name], tokenizer)
        alone = _encode_texts("", utterances.texts[name], tokenizer)[1]
    else:
        spans = {
            modality: _encode_units(utterances.units[part], tokenizer)
            if modality == "speech"
            else _encode_texts("", utterances.texts[part], tokenizer)[1]
            for part, modality in ((prompt, task.prompt), (name, task.ending))
        }
        context = [*marks[task.prompt], *spans[task.prompt], *mark]
        ending = alone = spans[task.ending]
    return Candidate(_join(context, ending, tokenizer), _join(mark, alone, tokenizer))


def _encode_units(units: np.ndarray, tokenizer: UnitTokenizer) -> list[int]:
    return tokenizer.encode_units(units, add_special_tokens=False)["input_ids"]


def _encode_texts(prompt: str, ending: str, tokenizer: UnitTokenizer) -> tuple[list[int], list[int]]:
    """The ids of the text modality token and a prompt, and those of its ending, which are tokenised together. A token
    that spans the seam belongs to the ending."""
    context = tokenizer.text_token + prompt
    encoding = tokenizer(context + ending, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoding["input_ids"], [end for _, end in encoding["offset_mapping"]]
    first = next((index for index, end in enumerate(ends) if end > len(context)), len(ids))
    return ids[:first], ids[first:]


def _join(context: Sequence[int], ending: Sequence[int], tokenizer: UnitTokenizer) -> TokenSequence:
    """Joins a context and an ending, and adds the special tokens of the tokenizer around them."""
    before, after = tokenizer.ids_around()
    ids = np.array([*before, *context, *ending, *after])
    return TokenSequence(ids, max(1, len(before) + len(context)) if len(ending) > 0 else len(ids))
