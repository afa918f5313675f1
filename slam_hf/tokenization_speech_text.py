"""Text and discrete speech units in one vocabulary, for models that were trained on both (SIMS, SpiritLM)."""

import copy
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import to_numpy
from transformers.utils.hub import cached_file

from .configuration_speech_lm import SpeechLMConfig
from .loading_utils import ACCESS, naming_damaged_files, read_json, resolve_quickstart
from .public_names import is_hub_id
from .tokenization_hubert_unit import UnitTokenizer
from .unit_vocabulary import check_num_units, check_units


@dataclass(frozen=True)
class Layout:
    """
    How a vocabulary names its units and modality tokens, and the order in which they follow the text tokens.

    With `only_at_changes`, modality tokens stand at the beginning and where the modality changes, and nowhere else.
    Without it, speech alone has none, and a prompt always ends with the modality token of its output.
    """

    unit: str
    speech: str
    text: str
    modality_tokens_first: bool = False
    only_at_changes: bool = False
    other_speech: tuple[tuple[str, int], ...] = ()

    def tokens(self, num_units: int) -> list[str]:
        """All tokens that follow those of the text, in order."""
        modalities = [self.text, self.speech] if self.modality_tokens_first else []
        units = [self.unit.format(unit) for unit in range(num_units)]
        others = [name.format(index) for name, number in self.other_speech for index in range(number)]
        return [*modalities, *units, *others] if modalities else [*units, *others, self.speech, self.text]


LAYOUTS = {
    "sims": Layout("<Un{}>", "<speech>", "<text>"),
    "spiritlm": Layout("[Hu{}]", "[Speech]", "[Text]", True, True, (("[Pi{}]", 64), ("[St{}]", 100))),
}
"""SIMS (arXiv 2504.02398), and SpiritLM (arXiv 2402.05755), which has pitch and style tokens beside the units."""


class SpeechTextTokenizer(UnitTokenizer):
    r"""
    Tokenizer of text and speech units: the vocabulary of a text tokenizer, extended with units and with two modality
    tokens, which mark where text changes to speech or back.

    ```
    SIMS      text tokens │ <Un0> … <Un499> │ <speech> <text>
    SpiritLM  text tokens │ [Text] [Speech] │ [Hu0] … [Hu500] │ [Pi0] … [Pi63] │ [St0] … [St99]
    ```

    `from_pretrained` also loads from a model repository without tokenizer files, in the layout of SIMS: it extends the
    text tokenizer that the model's configuration names, and the number of units follows from `vocab_size`. The files
    that `save_pretrained` writes load without this package, as a `PreTrainedTokenizerFast` with the same ids.

    The padding id is 0, as in the published models, and is also a token of the text. The attention mask tells which.

    Args:
        tokenizer_file (`str`, *optional*):
            The `tokenizer.json` of the whole vocabulary.
        tokenizer_object (`tokenizers.Tokenizer`, *optional*):
            The same, as an object.
        kwargs:
            Arguments of every tokenizer of transformers, such as `bos_token` or `padding_side`.

    Attributes:
        num_units (`int`): Number of units.
        unit_ids (`range`): Ids of the units, in order.
        speech_ids (`range`): Ids of speech: of the units, and in SpiritLM's layout of pitch and style too.
        text_ids (`range`): Ids of the text tokenizer, with its special tokens.
        speech_token, text_token (`str`), speech_token_id, text_token_id (`int`): The modality tokens.

    Raises:
        ValueError: the vocabulary has neither layout.
    """

    def __init__(self, tokenizer_file: str | None = None, tokenizer_object: Tokenizer | None = None, **kwargs: Any):
        kwargs.pop("pad_token", None)
        self._tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_object is None else tokenizer_object
        # What the text tokenizer adds. Where only one of the two is asked for, transformers would drop the other.
        around = self._tokenizer.encode("").ids
        adds_bos = around[:1] == [self._tokenizer.token_to_id(str(kwargs.get("bos_token")))]
        adds_eos = around[adds_bos:][-1:] == [self._tokenizer.token_to_id(str(kwargs.get("eos_token")))]
        if {"add_bos_token", "add_eos_token"} & kwargs.keys():
            kwargs = {"add_bos_token": adds_bos, "add_eos_token": adds_eos, **kwargs}
        super().__init__(**kwargs)
        self._add_bos_token = kwargs.get("add_bos_token", adds_bos)
        self._add_eos_token = kwargs.get("add_eos_token", adds_eos)
        self._read_layout()

    @classmethod
    def from_text_tokenizer(
        cls,
        text_tokenizer: PreTrainedTokenizerBase,
        num_units: int = 500,
        layout: Literal["sims", "spiritlm"] = "sims",
    ) -> "SpeechTextTokenizer":
        r"""
        Extend a text tokenizer with units and modality tokens.

        Args:
            text_tokenizer ([`~transformers.PreTrainedTokenizerFast`]):
                The text tokenizer. It is not changed.
            num_units (`int`, *optional*, defaults to 500):
                Number of units.
            layout (`"sims"` or `"spiritlm"`, *optional*, defaults to `"sims"`):
                Names and order of the new tokens.

        Raises:
            ValueError: the text tokenizer has one of the new tokens, is not a fast one, or has gaps in its ids.
        """
        check_num_units(num_units)
        name = text_tokenizer.name_or_path or "the text tokenizer"
        if not isinstance(text_tokenizer, TokenizersBackend):
            raise ValueError(
                f"'{name}' loads as a {type(text_tokenizer).__name__}, and units can only be added to a fast "
                "tokenizer, one with a tokenizer.json."
            )
        vocabulary, tokens = text_tokenizer.get_vocab(), LAYOUTS[layout].tokens(num_units)
        known = [token for other in LAYOUTS.values() for token in other.tokens(1) if token in vocabulary]
        if known := known or [token for token in tokens if token in vocabulary]:
            raise ValueError(
                f"The text tokenizer '{name}' already holds {known[0]}, which would be added for speech: pass the "
                "tokenizer of the text model, without speech."
            )
        if max(vocabulary.values()) != len(vocabulary) - 1:
            raise ValueError(
                f"The text tokenizer '{name}' has {len(vocabulary):,} tokens and ids up to "
                f"{max(vocabulary.values()):,}: units cannot follow a vocabulary with gaps."
            )
        backend = copy.deepcopy(text_tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        modalities = (LAYOUTS[layout].speech, LAYOUTS[layout].text)
        backend.add_tokens([AddedToken(token, normalized=False, special=token in modalities) for token in tokens])
        return cls(
            tokenizer_object=backend,
            **text_tokenizer.special_tokens_map,
            extra_special_tokens=text_tokenizer.extra_special_tokens,
            model_max_length=text_tokenizer.model_max_length,
            clean_up_tokenization_spaces=text_tokenizer.clean_up_tokenization_spaces,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args: Any,
        text_tokenizer: str | os.PathLike | PreTrainedTokenizerBase | None = None,
        num_units: int | None = None,
        **kwargs: Any,
    ) -> "SpeechTextTokenizer":
        r"""
        As for every tokenizer.

        Args:
            text_tokenizer (`str`, `os.PathLike` or [`~transformers.PreTrainedTokenizerFast`], *optional*):
                For repositories without tokenizer files: the tokenizer of the text model. Defaults to the one that
                the configuration names.
            num_units (`int`, *optional*):
                The expected number of units; another number is an error. By default, any number is accepted.

        Raises:
            OSError: the text tokenizer cannot be loaded.
            ValueError: it does not fit the model's vocabulary.
        """
        name = pretrained_model_name_or_path
        with naming_damaged_files(name):
            places = {key: kwargs.get(key) for key in ("revision", "subfolder") if kwargs.get(key)}
            access = {key: kwargs[key] for key in ACCESS if key in kwargs}
            config_file = _find(name, "config.json", **places, **access)
            files = (_find(name, file, **places, **access) for file in ("tokenizer.json", "tokenizer.model"))
            if text_tokenizer is None and not any(files):
                text_tokenizer = _name_of_text_tokenizer(name, config_file)
            if text_tokenizer is not None:
                if not isinstance(text_tokenizer, PreTrainedTokenizerBase):
                    text_tokenizer = _load_text_tokenizer(name, text_tokenizer, access)
                # Passed on as an object: a name in `tokenizer_config.json` is not followed.
                kwargs["text_tokenizer"] = text_tokenizer
            tokenizer = super().from_pretrained(name, *args, **kwargs)
            vocab_size = read_json(config_file).get("vocab_size")
            if vocab_size is not None and len(tokenizer) > vocab_size:
                raise ValueError(f"the tokenizer has {len(tokenizer):,} tokens, and config.json {vocab_size:,}.")
        if num_units not in (None, tokenizer.num_units):
            raise ValueError(f"'{name}' has {tokenizer.num_units} units beside its text, and not {num_units}.")
        return tokenizer

    @classmethod
    def convert_to_native_format(
        cls,
        tokenizer_file: str | None = None,
        vocab_file: str | None = None,
        config_file: str | None = None,
        text_tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Turn the files of a repository, found by `from_pretrained`, into the arguments of the tokenizer."""
        config = read_json(config_file)
        if not isinstance(text_tokenizer, PreTrainedTokenizerBase):
            if tokenizer_file is not None:
                whole = {**kwargs, "tokenizer_object": Tokenizer.from_file(tokenizer_file)}
            else:  # a `tokenizer.model` of SentencePiece
                whole = TokenizersBackend.convert_to_native_format(vocab_file=vocab_file, **kwargs)
            backend = whole["tokenizer_object"]
            has_units = any(backend.token_to_id(layout.unit.format(0)) is not None for layout in LAYOUTS.values())
            if has_units or config.get("model_type") != SpeechLMConfig.model_type:
                return whole
            text_tokenizer = TokenizersBackend(**whole)
        if config.get("model_type") != SpeechLMConfig.model_type:
            raise ValueError(f"config.json is of a model of type {config.get('model_type')!r}, which has no units.")
        vocab_size = config.get("vocab_size")
        num_units = (vocab_size or 0) - len(text_tokenizer) - 2
        try:
            check_num_units(num_units)
        except ValueError:
            raise ValueError(
                f"config.json has a vocabulary of {vocab_size or 0:,} ids, and the text tokenizer "
                f"'{text_tokenizer.name_or_path}' {len(text_tokenizer):,}. That leaves {num_units:,} ids for units "
                "beside <speech> and <text>: pass the tokenizer that the model was trained with, `text_tokenizer=`, "
                "or load a model of units alone with `HubertUnitTokenizer.from_pretrained(..., num_units=...)`."
            ) from None
        if config.get("num_units") not in (None, num_units):
            raise ValueError(
                f"config.json has {config['num_units']} units, and the text tokenizer '{text_tokenizer.name_or_path}' "
                f"of {len(text_tokenizer):,} tokens leaves {num_units:,} ids for them: pass the tokenizer that the "
                "model was trained with, `text_tokenizer=`."
            )
        extended = cls.from_text_tokenizer(text_tokenizer, num_units)
        return {**extended.init_kwargs, **kwargs, "tokenizer_object": extended.backend_tokenizer}

    @property
    def pad_token_id(self) -> int:
        # Not a special token of the tokenizer: that would change how it splits texts that hold the token.
        return 0

    @property
    def pad_token(self) -> str:
        return self.convert_ids_to_tokens(0)

    def ids_outside(self, modality: Literal["speech", "text"]) -> list[int]:
        """
        Ids that do not occur within `modality`: those of the other one, and both modality tokens. The end-of-sequence
        token may end either. Pass the ids as `suppress_tokens` to generate in one modality.
        """
        if modality not in ("speech", "text"):
            raise ValueError(f"A modality is 'speech' or 'text', and not {modality!r}.")
        others, end = self.text_ids if modality == "speech" else self.speech_ids, self.eos_token_id
        return [*(i for i in others if i != end), self.speech_token_id, self.text_token_id]

    def unit_string(self, units: Iterable[int]) -> str:
        """Units as text: `<Un3><Un49>`."""
        return "".join(self._layout.unit.format(unit) for unit in units)

    def encode_prompt(
        self, parts: Sequence[str | Sequence[int]], output_modality: Literal["speech", "text"] | None = None
    ) -> list[int]:
        r"""
        Ids of a prompt: the special tokens before a text, and then the parts, with a modality token before the first
        part and at each change of modality. In the layout of SIMS, speech alone has none, as in training.

        Args:
            parts (sequence of `str` and of sequences of `int`):
                Texts, as they are, and units. Spaces at the seams belong to the texts.
            output_modality (`"speech"` or `"text"`, *optional*):
                What is to follow. Its modality token ends the prompt; in SpiritLM's layout, only if the last part has
                the other modality. By default no token is added, and the modality of the last part goes on.

        Raises:
            ValueError: there is no part, a text holds the tokens of speech, or a value is not a unit.
        """
        if len(parts) == 0:
            raise ValueError("A prompt needs a text or speech, and this one is empty.")
        tokens = {"speech": self.speech_token, "text": self.text_token, None: ""}
        modalities = ["text" if isinstance(part, str) else "speech" for part in parts]
        is_bare = output_modality is None and "text" not in modalities and not self._layout.only_at_changes
        prompt, last = "", "speech" if is_bare else None
        for index, (part, modality) in enumerate(zip(parts, modalities, strict=True)):
            if modality != last:
                prompt += tokens[modality]
            if modality == "text":
                wrong = [i for i in self(part, add_special_tokens=False)["input_ids"] if i >= len(self.text_ids)]
                if wrong:
                    token = self.convert_ids_to_tokens(wrong[0])
                    raise ValueError(f"The text of part {index} holds {token}, which stands for speech: take it out.")
                prompt += part
            else:
                units = to_numpy(part)
                check_units(units, self.num_units, f"part {index}")
                prompt += self.unit_string(units.tolist())
            last = modality
        if output_modality not in tokens:
            raise ValueError(f"A modality is 'speech' or 'text', and not {output_modality!r}.")
        if not (self._layout.only_at_changes and output_modality == last):
            prompt += tokens[output_modality]
        before, _ = self.ids_around()
        return [*before, *self(prompt, add_special_tokens=False)["input_ids"]]

    def _read_layout(self) -> None:
        """Find the layout of the vocabulary, and check it."""
        vocabulary = self.get_vocab()
        found = [layout for layout in LAYOUTS.values() if layout.unit.format(0) in vocabulary]
        if len(found) != 1:
            raise ValueError(
                f"a vocabulary of {len(vocabulary):,} tokens with {'both' if found else 'neither'} <Un0> "
                f"{'and' if found else 'nor'} [Hu0] is not one of text and units. To extend a text tokenizer, "
                "call `SpeechTextTokenizer.from_text_tokenizer`."
            )
        self._layout = layout = found[0]
        pattern = re.compile(re.escape(layout.unit).replace(re.escape("{}"), "(0|[1-9][0-9]*)"))
        self.num_units = sum(pattern.fullmatch(token) is not None for token in vocabulary)
        tokens = layout.tokens(self.num_units)
        first = min(vocabulary[layout.unit.format(0)], vocabulary.get(layout.text, len(vocabulary)))
        for index, token in enumerate(tokens, start=first):
            if vocabulary.get(token) != index:
                raise ValueError(
                    f"{token} has the id {vocabulary.get(token)} in this vocabulary, and {index} in its layout: "
                    f"{self.num_units} units, {tokens[0]} to {tokens[-1]}, from id {first} on."
                )
        self.speech_token, self.text_token = layout.speech, layout.text
        self.speech_token_id, self.text_token_id = vocabulary[layout.speech], vocabulary[layout.text]
        start = vocabulary[layout.unit.format(0)]
        self.unit_ids = range(start, start + self.num_units)
        self.speech_ids = range(start, self.unit_ids.stop + sum(number for _, number in layout.other_speech))
        self.text_ids = range(first)


def _find(name: str | os.PathLike, file: str, **access: Any) -> str | None:
    return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **access)


def _name_of_text_tokenizer(checkpoint: str | os.PathLike, config_file: str | None) -> str:
    """The text model that a `config.json` names. Only the file of a local checkpoint may name a folder."""
    config = read_json(config_file)
    name = (config.get("base_config") or {}).get("_name_or_path") or config.get("base_model_name")
    if not name:
        raise ValueError(
            f"'{checkpoint}' has no tokenizer files, and its config.json names no text model. {_hint(checkpoint)}"
        )
    if not os.path.isdir(checkpoint) and (not is_hub_id(name) or os.path.exists(name)):
        raise ValueError(
            f"'{checkpoint}' names the text model {name!r}, which may be a folder of this machine. A model on "
            f"the Hub may only name a model on the Hub. {_hint(checkpoint)}"
        )
    return name


def _load_text_tokenizer(
    checkpoint: str | os.PathLike, name: str | os.PathLike, access: dict[str, Any]
) -> PreTrainedTokenizerBase:
    try:
        name = resolve_quickstart(os.fspath(name))
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **access)
    except Exception as error:  # those of the tokenizers library have no class of their own
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"'{checkpoint}' extends the text tokenizer '{name}', which cannot be loaded, without code of its "
            f"repository: {reason} {_hint(checkpoint)}"
        ) from error


def _hint(checkpoint: str | os.PathLike) -> str:
    call = f'AutoTokenizer.from_pretrained("{checkpoint}", text_tokenizer="<Hub id or folder>")'
    return (
        f"Pass the text tokenizer: `{call}`. A model of units alone loads with `HubertUnitTokenizer` and `num_units=`."
    )
