"""Configuration of a speech language model: a text LM's architecture with a vocabulary of speech units."""

import copy
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from .loading_utils import naming_damaged_files, without_loading_options
from .unit_vocabulary import (
    BOUNDARY_TOKEN_ID,
    NUM_SPECIAL_TOKENS,
    PAD_TOKEN_ID,
    SPEECH_TEXT_TOKENIZER,
    UNIT_TOKENIZER,
    check_num_units,
    holds_text,
)


@strict
class SpeechLMConfig(PreTrainedConfig):
    r"""
    Configuration of [`SpeechLMForCausalLM`], in the format of the published Slam checkpoints
    (`slprl/slam`, `slprl/slam_scaled`; arXiv 2502.15814).

    The unit vocabulary is: id 0 `<PAD>`, id 1 `<S>` (begin and end of sequence), unit *i* at id *i* + 2. A vocabulary
    of text and units (`slprl/SIMS-7B`; arXiv 2504.02398) is that of [`SpeechTextTokenizer`], which `tokenizer_class`
    then names.

    Args:
        base_config (`dict` or `PreTrainedConfig`, *optional*):
            The whole configuration of the causal LM that models the units, of any architecture that
            `AutoModelForCausalLM` knows. It is copied, and the copy always has the vocabulary size, the special
            tokens and the tying of the embeddings that are set here. Defaults to the architecture of Qwen2.5-0.5B,
            the one of the Slam models.
        base_model_name (`str`, *optional*):
            Name of the text LM that the weights came from, for information only: it is never downloaded.
        twist_init (`bool`, *optional*, defaults to `False`):
            Whether training started from that text LM (TWIST, arXiv 2305.13009), for information only.
        vocab_size (`int`, *optional*, defaults to 502):
            Number of rows of the embedding.
        num_units (`int`, *optional*):
            Number of speech units. Defaults to `vocab_size - 2`. If it is less, the last rows of the embedding are
            padding: they are never generated, and have no probability in `log_likelihood`. In a vocabulary of text and
            units, it may be `None`: published checkpoints do not give it, and it follows from their tokenizer.
        tokenizer_class (`str`, *optional*):
            `"HubertUnitTokenizer"` for a vocabulary of units, the default, or `"SpeechTextTokenizer"` for one of text
            and units. Published checkpoints do not give it: it follows from the size of their vocabulary and that of
            the text LM that they name.
        tie_word_embeddings (`bool`, *optional*):
            Whether the head shares the weights of the embedding. Defaults to what `base_config` says.

    Raises:
        ValueError: `num_units` is below 1 or above 65,536, or does not fit in `vocab_size`, or a special token has an
            id outside the vocabulary.
    """

    model_type = "speech_language_model"
    _auto_class = "AutoConfig"
    sub_configs_defaults = {
        "base_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="qwen2",
            init_kwargs={
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "tie_word_embeddings": True,
            },
        )
    }

    _shared_with_base: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "tie_word_embeddings",
    )

    base_config: dict[str, Any] | PreTrainedConfig | None = None
    base_model_name: str | None = None
    twist_init: bool = False
    vocab_size: int = 502
    num_units: int | None = None
    tokenizer_class: str | None = None
    pad_token_id: int | None = PAD_TOKEN_ID
    bos_token_id: int | None = BOUNDARY_TOKEN_ID
    eos_token_id: int | list[int] | None = BOUNDARY_TOKEN_ID
    tie_word_embeddings: bool | None = None

    def __post_init__(self, **kwargs):
        if __name__.startswith("slam_hf."):
            # The installed package has its own pipeline, and does not load the one in the repository.
            kwargs.pop("custom_pipelines", None)
        kwargs.pop("text_config", None)
        super().__post_init__(**kwargs)
        if self.tokenizer_class is None:
            self.tokenizer_class = UNIT_TOKENIZER
        if self.tokenizer_class not in (UNIT_TOKENIZER, SPEECH_TEXT_TOKENIZER):
            raise ValueError(
                f"`tokenizer_class` must be {UNIT_TOKENIZER!r} or {SPEECH_TEXT_TOKENIZER!r}, "
                f"got {self.tokenizer_class!r}."
            )
        if self.num_units is None and not self.has_text:
            self.num_units = self.vocab_size - NUM_SPECIAL_TOKENS
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = getattr(self.base_config, "tie_word_embeddings", False)
        self.check_vocabulary()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SpeechLMConfig":
        config_dict = without_loading_options(config_dict)
        if config_dict.get("tokenizer_class") not in (UNIT_TOKENIZER, SPEECH_TEXT_TOKENIZER):
            config_dict.pop("tokenizer_class", None)  # that of the text LM, which cannot be the model's
        if holds_text(config_dict):
            base = config_dict.get("base_config") or {}
            saved = {"pad_token_id": PAD_TOKEN_ID, "bos_token_id": None, "eos_token_id": None}
            for source in (base, config_dict):  # published ones have the special tokens of text in `base_config`
                saved |= {name: source[name] for name in saved if source.get(name) is not None}
            config_dict |= saved | {"tokenizer_class": SPEECH_TEXT_TOKENIZER}
        with naming_damaged_files(kwargs.get("name_or_path")):  # which the Auto classes pass
            return super().from_dict(config_dict, **kwargs)

    @property
    def has_text(self) -> bool:
        """Whether the vocabulary holds text and units, and not units alone."""
        return self.tokenizer_class == SPEECH_TEXT_TOKENIZER

    def __setattr__(self, name: str, value: Any):
        if name == "base_config":
            value = copy.deepcopy(value)  # do not change the caller's
        if name == "vocab_size" and self.num_units == self.vocab_size - NUM_SPECIAL_TOKENS:
            super().__setattr__("num_units", value - NUM_SPECIAL_TOKENS)
        super().__setattr__(name, value)
        # `from_pretrained(..., vocab_size=...)` sets attributes after initialisation: the base model follows.
        base_config = self.__dict__.get("base_config")
        if name in ("base_config", *self._shared_with_base) and isinstance(base_config, PreTrainedConfig):
            for shared in self._shared_with_base:
                if shared != "tie_word_embeddings" or self.tie_word_embeddings is not None:
                    for config in (base_config, base_config.get_text_config()):
                        setattr(config, shared, getattr(self, shared))

    @property
    def num_ids(self) -> int:
        """Number of ids that are tokens: later rows of the embedding pad it."""
        return self.vocab_size if self.has_text else self.num_units + NUM_SPECIAL_TOKENS

    def check_vocabulary(self) -> None:
        """Raises a `ValueError` unless the vocabulary has room for the special tokens and the units."""
        if self.vocab_size <= NUM_SPECIAL_TOKENS:
            raise ValueError(
                f"`vocab_size` counts <PAD>, <S> and the units: at least {NUM_SPECIAL_TOKENS + 1}, "
                f"got {self.vocab_size}."
            )
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            ids = getattr(self, name)
            ids = ids if isinstance(ids, list) else [ids]
            wrong = [i for i in ids if i is not None and not 0 <= i < self.vocab_size]
            if wrong:
                raise ValueError(f"`{name}` is {wrong[0]}, and the vocabulary has the ids 0 to {self.vocab_size - 1}.")
        if self.num_units is None and self.has_text:
            return
        check_num_units(self.num_units)
        if self.vocab_size < self.num_units + NUM_SPECIAL_TOKENS:
            raise ValueError(
                f"{self.num_units} units, <PAD> and <S> need {self.num_units + NUM_SPECIAL_TOKENS} rows, but "
                f"`vocab_size` is {self.vocab_size}: set `vocab_size` too, or leave `num_units` out."
            )

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        if self.num_units == self.vocab_size - NUM_SPECIAL_TOKENS:
            del output["num_units"]  # as in the published format
        # transformers 4, which the toolkit of the published checkpoints runs on, reads `rope_theta` on its own.
        rope_parameters = output["base_config"].get("rope_parameters") or {}
        if "rope_theta" in rope_parameters:
            output["base_config"]["rope_theta"] = rope_parameters["rope_theta"]
        # For prompt and prefix tuning, PEFT reads the sizes of the model there.
        output["text_config"] = output["base_config"]
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        output = super().to_diff_dict()
        output.pop("text_config", None)
        return output

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        return self.base_config.get_text_config(decoder=decoder, encoder=encoder)
