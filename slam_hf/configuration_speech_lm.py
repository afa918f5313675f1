"""Configuration of a speech language model: a text LM's architecture with a vocabulary of speech units."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from .loading_utils import without_loading_options


@strict
class SpeechLMConfig(PreTrainedConfig):
    r"""
    Configuration of [`SpeechLMForCausalLM`], in the format of the published Slam checkpoints
    (`slprl/slam`, `slprl/slam_scaled`; arXiv 2502.15814).

    The unit vocabulary is: id 0 `<PAD>`, id 1 `<S>` (begin and end of sequence), unit *i* at id *i* + 2.

    Args:
        base_config (`dict` or `PreTrainedConfig`, *optional*):
            The whole configuration of the causal LM that models the units, of any architecture that
            `AutoModelForCausalLM` knows. Its vocabulary and special tokens are set to those of the units. Defaults to
            the architecture of Qwen2.5-0.5B, the one of the Slam models.
        base_model_name (`str`, *optional*):
            The text LM that the weights came from, for the record: it is never downloaded.
        twist_init (`bool`, *optional*, defaults to `False`):
            Whether the weights started from that text LM (TWIST initialisation, arXiv 2305.13009), for the record.
        vocab_size (`int`, *optional*, defaults to 502):
            Number of units + 2.
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

    base_config: dict[str, Any] | PreTrainedConfig | None = None
    base_model_name: str | None = None
    twist_init: bool = False
    vocab_size: int = 502
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 1

    def __post_init__(self, **kwargs):
        if __name__.startswith("slam_hf."):
            # Installed, the package has the pipeline that a repository brings along as code, and takes its own.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if self.vocab_size < 3:
            raise ValueError(f"`vocab_size` counts <PAD>, <S> and the units: at least 3, got {self.vocab_size}.")
        self.base_config.vocab_size = self.vocab_size
        self.base_config.pad_token_id = self.pad_token_id
        self.base_config.bos_token_id = self.bos_token_id
        self.base_config.eos_token_id = self.eos_token_id
        self.tie_word_embeddings = self.base_config.tie_word_embeddings

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SpeechLMConfig":
        return super().from_dict(without_loading_options(config_dict), **kwargs)

    @property
    def num_units(self) -> int:
        """Number of speech units, the vocabulary without `<PAD>` and `<S>`."""
        return self.vocab_size - 2

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        # transformers 4, which the toolkit of the published checkpoints runs on, reads `rope_theta` on its own.
        rope_parameters = output["base_config"].get("rope_parameters") or {}
        if "rope_theta" in rope_parameters:
            output["base_config"]["rope_theta"] = rope_parameters["rope_theta"]
        return output

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        return self.base_config.get_text_config(decoder=decoder, encoder=encoder)
