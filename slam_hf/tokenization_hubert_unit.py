"""Text form of discrete speech units, `<Un3><Un49>...`, and the ids that a speech language model reads."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers.tokenization_utils_base import BatchEncoding
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import to_numpy

from .loading_utils import naming_damaged_files, read_json
from .unit_vocabulary import (
    BOUNDARY_TOKEN,
    NUM_SPECIAL_TOKENS,
    PAD_TOKEN,
    SPECIAL_TOKENS,
    UNIT_PATTERN,
    check_ids,
    check_num_units,
    check_units,
    count_units,
    unit_string,
)


class UnitTokenizer(TokenizersBackend):
    """
    What the tokenizers of units alone and of text and units share. Their attributes `unit_ids`, `text_ids`, ... are
    described there.
    """

    # In a repository without tokenizer files, the vocabulary follows from the configuration of the model.
    vocab_files_names = {"tokenizer_file": "tokenizer.json", "config_file": "config.json"}
    model_input_names = ["input_ids", "attention_mask"]
    _auto_class = "AutoTokenizer"

    num_units: int
    unit_ids: range
    speech_ids: range
    text_ids: range
    speech_token_id: int | None
    text_token_id: int | None

    @property
    def has_text(self) -> bool:
        """`bool`: Whether the vocabulary holds text."""
        return len(self.text_ids) > 0

    @property
    def model_vocabulary(self) -> dict[str, Any]:
        """`dict`: The arguments of [`SpeechLMConfig`] for a new model with this vocabulary."""
        return {
            "vocab_size": len(self),
            "num_units": self.num_units,
            "tokenizer_class": type(self).__name__,
            "pad_token_id": self.pad_token_id,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
        }

    def ids_around(self) -> tuple[list[int], list[int]]:
        """`tuple[list[int], list[int]]`: The special tokens that the tokenizer adds before and after a sequence."""
        ids = self(self.convert_ids_to_tokens(self.unit_ids[0]))["input_ids"]
        position = ids.index(self.unit_ids[0])
        return ids[:position], ids[position + 1 :]

    def encode_units(
        self,
        units: Sequence[int] | Sequence[Sequence[int]],
        add_special_tokens: bool = True,
        padding: bool | str = False,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        r"""
        Ids of unit arrays, as calling the tokenizer on their text form gives them: without modality tokens.

        Args:
            units (sequence of `int`, or sequence of them):
                The units of one utterance, or of a batch of them, as lists, arrays or tensors.
            add_special_tokens (`bool`, *optional*, defaults to `True`):
                Whether to add the special tokens that the tokenizer puts around a sequence.
            padding (`bool` or `str`, *optional*, defaults to `False`):
                As for any tokenizer: `True` pads a batch to its longest sequence.
            return_tensors (`str`, *optional*):
                `"pt"` or `"np"`.

        Returns:
            [`~transformers.BatchEncoding`] with `input_ids` and `attention_mask`.

        Raises:
            ValueError: a value is not a unit of this vocabulary.
        """
        utterances, batched = _split_sequences(units)
        for index, utterance in enumerate(utterances):
            check_units(utterance, self.num_units, f"sequence {index}" if batched else "the sequence")
        before, after = self.ids_around() if add_special_tokens else ([], [])
        first = self.unit_ids.start
        input_ids = [[*before, *(utterance.astype(np.int64) + first).tolist(), *after] for utterance in utterances]
        encoding = {"input_ids": input_ids if batched or return_tensors else input_ids[0]}
        return self.pad(encoding, padding=padding, return_tensors=return_tensors)

    def decode_units(self, input_ids: Any) -> np.ndarray | list[np.ndarray]:
        r"""
        The units among ids. Special tokens, text, and all other tokens of speech are left out.

        Args:
            input_ids (`list`, `np.ndarray` or `torch.Tensor`):
                Ids of one sequence, or of a batch of them, possibly of different lengths.

        Returns:
            `np.ndarray` of shape `(units,)`, int64; for a batch, a list of them.

        Raises:
            ValueError: a value is not an id of this vocabulary.
        """
        sequences, batched = _split_sequences(input_ids)
        first, stop = self.unit_ids.start, self.unit_ids.stop
        num_ids = len(self) if self.has_text else stop
        for index, ids in enumerate(sequences):
            check_ids(ids, num_ids, f"sequence {index}" if batched else "the sequence")
        units = [ids[(ids >= first) & (ids < stop)].astype(np.int64) - first for ids in sequences]
        return units if batched else units[0]


class HubertUnitTokenizer(UnitTokenizer):
    r"""
    Tokenizer of speech units, with the vocabulary of the published Slam checkpoints: id 0 `<PAD>`, id 1 `<S>` (begin
    and end of sequence), unit *i*, written `<Un{i}>`, at id *i* + 2.

    It loads from a model repository without tokenizer files too: the number of units follows from `vocab_size` in the
    model's `config.json`, or from `num_units` there. The files it saves load without this package as well.

    Args:
        num_units (`int`, *optional*, defaults to 500):
            Number of units.
        add_bos_token (`bool`, *optional*, defaults to `True`):
            Whether to begin sequences with `<S>`.
        add_eos_token (`bool`, *optional*, defaults to `False`):
            Whether to end sequences with `<S>`. Pretraining and scoring want it; a prompt does not, and TRL's
            `DPOTrainer` appends it itself.
        pad_token, bos_token, eos_token (`str`, *optional*):
            Fixed by the vocabulary: `<PAD>`, `<S>`, `<S>`.
        kwargs:
            Arguments of every tokenizer of transformers, such as `padding_side` or `model_max_length`.

    Attributes:
        unit_ids, speech_ids (`range`): Ids of the units, in order.
        text_ids (`range`), speech_token_id, text_token_id (`int`, *optional*): Empty and `None`: there is no text.
            [`SpeechTextTokenizer`] has them.
    """

    model = WordLevel

    def __init__(
        self,
        num_units: int = 500,
        add_bos_token: bool = True,
        add_eos_token: bool = False,
        pad_token: str = PAD_TOKEN,
        bos_token: str = BOUNDARY_TOKEN,
        eos_token: str = BOUNDARY_TOKEN,
        **kwargs: Any,
    ):
        check_num_units(num_units)
        if (str(pad_token), str(bos_token), str(eos_token)) != (PAD_TOKEN, BOUNDARY_TOKEN, BOUNDARY_TOKEN):
            raise ValueError(
                f"`pad_token`, `bos_token` and `eos_token` must be {PAD_TOKEN}, {BOUNDARY_TOKEN} and "
                f"{BOUNDARY_TOKEN}, got {pad_token}, {bos_token} and {eos_token}."
            )
        tokens = [*SPECIAL_TOKENS, *(unit_string([unit]) for unit in range(num_units))]
        self._tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}))
        # Text between units stays a piece of its own, which is not in the vocabulary and so an error.
        self._tokenizer.pre_tokenizer = Split(Regex("<[^<>]*>"), behavior="isolated")
        self._tokenizer.decoder = Fuse()
        super().__init__(
            num_units=num_units,
            add_bos_token=add_bos_token,
            add_eos_token=add_eos_token,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            **kwargs,
        )
        self.num_units = num_units
        self.unit_ids = self.speech_ids = range(NUM_SPECIAL_TOKENS, NUM_SPECIAL_TOKENS + num_units)
        self.text_ids = range(0)
        self.speech_token_id = self.text_token_id = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> "HubertUnitTokenizer":
        """As for every tokenizer."""
        if kwargs.get("text_tokenizer") is not None:
            raise ValueError(
                f"'{pretrained_model_name_or_path}' has a vocabulary of units alone, which extends no text tokenizer. "
                "If it holds text too, load it with `SpeechTextTokenizer.from_pretrained`."
            )
        with naming_damaged_files(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def convert_to_native_format(
        cls, tokenizer_file: str | None = None, config_file: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Turn the files of a repository, found by `from_pretrained`, into the arguments of the tokenizer."""
        if kwargs.get("num_units") is None:
            config = read_json(config_file)
            if config.get("vocab_size") is None:
                raise ValueError(
                    f"{kwargs.get('name_or_path')}: neither tokenizer_config.json gives `num_units` nor config.json "
                    "`vocab_size`. Pass `num_units=...`, the number of clusters of the unit codec."
                )
            kwargs["num_units"] = count_units(config)
        if tokenizer_file is not None:
            template = read_json(tokenizer_file)["post_processor"]["single"]
            kwargs.setdefault("add_bos_token", "SpecialToken" in template[0])
            kwargs.setdefault("add_eos_token", "SpecialToken" in template[-1])
        return kwargs

    def _encode_plus(self, text, text_pair=None, **kwargs) -> BatchEncoding:
        try:
            return super()._encode_plus(text, text_pair, **kwargs)
        except Exception as error:
            # The error of the backend does not name the unknown token.
            sequences = _strings(text) + _strings(text_pair)
            for index, sequence in enumerate(sequences):
                self._check_text(sequence, f"text {index}: " if len(sequences) > 1 else "", error)
            raise

    def _check_text(self, text: str, name: str, error: Exception) -> None:
        position, known = 0, [*self.all_special_tokens, *self.get_added_vocab()]
        while position < len(text):
            token = next((t for t in known if text.startswith(t, position)), None)
            if token is None:
                match = UNIT_PATTERN.match(text, position)
                if match is None:
                    raise ValueError(
                        f"{name}{text[position : position + 20]!r} at character {position} is not a unit: expected "
                        "units as text, such as '<Un3><Un49>', without anything between them."
                    ) from error
                if int(match[1]) >= self.num_units:
                    raise ValueError(
                        f"{name}{match[0]} at character {position} is outside this vocabulary of <Un0> to "
                        f"<Un{self.num_units - 1}>."
                    ) from error
                token = match[0]
            position += len(token)

    def _convert_token_to_id_with_added_voc(self, token: str) -> int:
        index = super()._convert_token_to_id_with_added_voc(token)
        if index is None:
            raise ValueError(
                f"{token!r} is not in this vocabulary of <PAD>, <S> and <Un0> to <Un{self.num_units - 1}>."
            )
        return index

    def _decode(self, token_ids: int | list[int], **kwargs) -> str:
        check_ids(np.atleast_1d(np.asarray(token_ids)), len(self), "the sequence")
        return super()._decode(token_ids, **kwargs)


def _split_sequences(values: Any) -> tuple[list[np.ndarray], bool]:
    """The arrays in a batch of sequences, or that of a single one; and whether it is a batch."""
    try:
        batched = len(values) > 0 and np.ndim(values[0]) == 1
        return [np.asarray(to_numpy(sequence)) for sequence in (values if batched else [values])], batched
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected one or several sequences of integers, as lists, arrays or tensors: {error}."
        ) from error


def _strings(text: Any) -> list[str]:
    if text is None:
        return []
    if isinstance(text, str):
        return [text]
    return [string for part in text for string in _strings(part)]
