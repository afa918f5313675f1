"""The members of pairs as token sequences: speech, or a prompt and an ending that are each speech or text."""

from dataclasses import dataclass

import numpy as np

from ..tokenization_hubert_unit import HubertUnitTokenizer
from ..tokenization_speech_text import SpeechTextTokenizer
from ..unit_vocabulary import unit_string
from .tasks import Modality, Task
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
    texts, and puts nothing between them. The ending alone comes after its modality token, or after `<S>` in a model of
    units alone, so that all of its tokens are scored.

    Args:
        name, prompt (`str`):
            The utterance and its prompt, which may be `None`.
        task ([`Task`]), utterances ([`Utterances`]):
            The modalities, and the units and texts.
        tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`]):
            The model's tokenizer, which puts its special tokens around sequences.
    """
    is_mixed = isinstance(tokenizer, SpeechTextTokenizer)
    write_units = tokenizer.unit_string if is_mixed else unit_string
    tokens = {"speech": tokenizer.speech_token, "text": tokenizer.text_token} if is_mixed else {"speech": ""}

    def write(name: str, modality: Modality) -> str:
        return utterances.texts[name] if modality == "text" else write_units(utterances.units[name])

    if prompt is None:
        return Candidate(_tokenize("", write(name, "speech"), tokenizer))
    if task.is_speech:
        units, start = utterances.units[name], utterances.starts[name]
        context, ending = write_units(units[:start]), write_units(units[start:])
    else:
        context = tokens[task.prompt] + write(prompt, task.prompt)
        context += tokens[task.ending] if task.ending != task.prompt else ""
        ending = write(name, task.ending)
    return Candidate(_tokenize(context, ending, tokenizer), _tokenize(tokens[task.ending], ending, tokenizer))


def _tokenize(context: str, ending: str, tokenizer: HubertUnitTokenizer | SpeechTextTokenizer) -> TokenSequence:
    """Ids of both in one piece. A token with characters of both is one of the ending."""
    encoding = tokenizer(context + ending, return_offsets_mapping=True)
    of_ending = (index for index, (_, end) in enumerate(encoding["offset_mapping"]) if end > len(context))
    length = len(encoding["input_ids"])
    return TokenSequence(np.array(encoding["input_ids"]), max(1, next(of_ending, length)))
