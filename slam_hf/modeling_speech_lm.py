"""A speech language model: any causal LM of transformers over a vocabulary of discrete speech units."""

import os
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.masking_utils import BlockMask, create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.versions import require_version

from .configuration_speech_lm import SpeechLMConfig
from .loading_utils import SafeLoadingMixin
from .public_names import public_name


# Remote code comes without the package's requirements, and models of an older transformers would ignore a `cache`.
require_version("transformers>=5.24")


class SpeechLMForCausalLM(SafeLoadingMixin, PreTrainedModel, GenerationMixin):
    r"""
    A causal language model over speech units, in the format of the published Slam checkpoints
    (*Slamming: Training a Speech Language Model on One GPU in a Day*, arXiv 2502.15814).

    The model under the prefix `lm` is an ordinary causal LM of transformers (Qwen2, OPT, Llama, GPT-NeoX, ...), built
    from `config.base_config` with one row per unit in its embedding; nothing is downloaded for it.

    `from_pretrained` loads a checkpoint, [`~SpeechLMForCausalLM.from_text_lm`] starts from the weights of a text LM
    (TWIST), `SpeechLMForCausalLM(config)` starts from random weights.

    Args:
        config ([`SpeechLMConfig`]):
            The architecture and the size of the unit vocabulary.
    """

    config_class = SpeechLMConfig
    _auto_class = "AutoModelForCausalLM"
    base_model_prefix = "lm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # The base model dispatches attention and says for itself what it cannot do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SpeechLMConfig):
        super().__init__(config)
        self.lm = AutoModelForCausalLM.from_config(config.base_config, trust_remote_code=False)
        self._can_compile_fullgraph = self.lm._can_compile_fullgraph
        self.post_init()

    @classmethod
    def from_text_lm(
        cls,
        text_lm: str | os.PathLike,
        num_units: int = 500,
        *,
        rope_theta: float | None = None,
        dtype: str | torch.dtype = torch.float32,
        revision: str = "main",
        attn_implementation: str | None = None,
    ) -> Self:
        r"""
        TWIST initialisation (arXiv 2305.13009): the transformer weights of a text LM, and the first `num_units + 2`
        rows of its embedding and of its head as those of `<PAD>`, `<S>` and the units.

        Args:
            text_lm (`str` or `os.PathLike`):
                A causal LM: a Hub id or a folder.
            num_units (`int`, *optional*, defaults to 500):
                Number of speech units.
            rope_theta (`float`, *optional*):
                Base of the rotary embedding. Defaults to the text LM's own; the Slam recipe sets 10,000.
            dtype (`str` or `torch.dtype`, *optional*, defaults to `torch.float32`):
                Type of the weights. Training wants float32 weights, under bf16 autocast if need be.
            revision (`str`, *optional*, defaults to `"main"`):
                Revision of the text LM on the Hub.
            attn_implementation (`str`, *optional*):
                `"sdpa"`, `"flex_attention"`, `"flash_attention_2"`, `"eager"`, ...

        Raises:
            ValueError: `rope_theta` is given for a text LM without a rotary embedding.
        """
        base = AutoModelForCausalLM.from_pretrained(text_lm, dtype=dtype, revision=revision)
        base.resize_token_embeddings(num_units + 2)
        base_config = base.config.to_dict()
        if rope_theta is not None:
            if not base_config.get("rope_parameters"):
                raise ValueError(
                    f"`rope_theta` is given, but {text_lm} ({base.config.model_type}) has no rotary embedding."
                )
            base_config["rope_parameters"]["rope_theta"] = rope_theta
        name = base_config["_name_or_path"] = public_name(text_lm)  # which is published with the weights
        config = SpeechLMConfig(
            base_config=base_config, base_model_name=name, twist_init=True, vocab_size=num_units + 2
        )
        model = cls._from_config(config, dtype=base.dtype, attn_implementation=attn_implementation)
        model.lm.load_state_dict(base.state_dict())
        return model

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Ids of [`HubertUnitTokenizer`].
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Positions. Where they restart at 0 and there is no `attention_mask`, the row is a pack of documents
                that do not attend to each other.
            cache (`Cache`, *optional*):
                Keys and values of the tokens before `input_ids`, of any cache type.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                Embeddings in place of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Targets, not shifted; -100 is ignored.
            use_cache (`bool`, *optional*):
                Whether to return a `cache`.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Compute the logits of this many last positions (0: all), or of these positions.
            kwargs:
                What the base model takes beside these, such as `num_items_in_batch` or `output_hidden_states`.

        Returns:
            [`~transformers.modeling_outputs.CausalLMOutputWithPast`]: logits of shape `(batch, length, vocab_size)`.
        """
        if position_ids is not None and attention_mask is None and cache is None:
            # Some base models, OPT among them, make no such mask from the positions, and none does beside a cache.
            use_cache = bool(use_cache)
            attention_mask = self._mask_of_pack(position_ids, input_ids if inputs_embeds is None else inputs_embeds)
        elif labels is not None and use_cache is None:
            use_cache = False
        return self.lm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _mask_of_pack(self, position_ids: torch.LongTensor, inputs: torch.Tensor) -> torch.Tensor | BlockMask | None:
        """The block-diagonal causal mask of a pack; None where the base model's own is the same."""
        config = self.lm.config
        if any(layer_type != "full_attention" for layer_type in getattr(config, "layer_types", None) or []):
            return None  # a mask for each type of layer, which such base models make from the positions themselves
        shape_and_dtype = torch.empty((*inputs.shape[:2], 0), dtype=self.dtype, device=inputs.device)
        return create_causal_mask(config, shape_and_dtype, None, None, position_ids)

    @torch.no_grad()
    def log_likelihood(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> torch.FloatTensor:
        r"""
        Log-likelihood of each sequence given its first token: of `units <S>` for `<S> units <S>`, as the published
        scores are defined. Padding on either side does not change it.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                Sequences as the tokenizer gives them with `add_eos_token=True`.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding. Defaults to every token but `<PAD>`.
            reduction (`"mean"` or `"sum"`, *optional*, defaults to `"mean"`):
                Mean per scored token, or sum over them, in nats.

        Returns:
            `torch.FloatTensor` of shape `(batch,)`, float32.

        Raises:
            ValueError: another `reduction`, a wrong shape, or a sequence with fewer than two tokens.
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
            raise ValueError(
                "`input_ids` and `attention_mask` must both be (batch, length), "
                f"got {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}."
            )
        mask = attention_mask.long()
        # A target counts where it and the token before it are both there: the token after left padding does not.
        scored = (mask[:, 1:] * mask[:, :-1]).bool()
        lengths = scored.sum(dim=1)
        if (lengths == 0).any():
            rows = (lengths == 0).nonzero().flatten().tolist()
            raise ValueError(f"Sequences {rows} have fewer than two tokens: there is nothing to score.")

        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        predicting = torch.arange(input_ids.shape[1] - 1, device=input_ids.device)
        logits = self(
            input_ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=predicting
        ).logits
        losses = F.cross_entropy(logits.float().transpose(1, 2), input_ids[:, 1:], reduction="none")
        log_likelihoods = -losses.where(scored, 0.0).sum(dim=1)
        return log_likelihoods / lengths if reduction == "mean" else log_likelihoods

    def to_text_lm(self) -> PreTrainedModel:
        r"""
        The plain causal LM over the unit vocabulary (`Qwen2ForCausalLM`, ...), sharing this model's weights. What its
        `save_pretrained` writes is an ordinary checkpoint, which engines such as vLLM serve unchanged.
        """
        self.lm.generation_config = GenerationConfig.from_dict(self.generation_config.to_dict())
        return self.lm

    def adjust_generation_fn(self, *args, **kwargs):
        super().adjust_generation_fn(*args, **kwargs)
        # A checkpoint may have no generation_config.json, and then nothing would end its generations.
        self.generation_config.update(
            defaults_only=True,
            pad_token_id=self.config.pad_token_id,
            bos_token_id=self.config.bos_token_id,
            eos_token_id=self.config.eos_token_id,
        )

    @property
    def base_model(self) -> nn.Module:
        """The transformer without its head: TRL computes log-probabilities from its last hidden states."""
        return self.lm.base_model

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.lm.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.config.vocab_size = embeddings.num_embeddings
        return embeddings
