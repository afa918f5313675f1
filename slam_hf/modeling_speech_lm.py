"""A speech language model: any causal LM of transformers over a vocabulary of discrete speech units."""

import os
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import Cache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
)
from transformers.masking_utils import create_masks_for_generate, find_packed_sequence_indices
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.versions import require_version

from .configuration_speech_lm import SpeechLMConfig
from .loading_utils import SafeLoadingMixin, naming_damaged_files
from .padding_utils import as_integers, as_tensor
from .public_names import public_name
from .tokenization_speech_text import SpeechTextTokenizer
from .unit_vocabulary import MAX_UNUSED_ROWS, NUM_SPECIAL_TOKENS


# Remote code comes without the package's requirements, and models of an older transformers would ignore a `cache`.
require_version("transformers>=5.24")


class SpeechLMForCausalLM(SafeLoadingMixin, PreTrainedModel, GenerationMixin):
    r"""
    A causal language model over speech units, in the format of the published Slam checkpoints
    (*Slamming: Training a Speech Language Model on One GPU in a Day*, arXiv 2502.15814), or over text and units, in
    that of SIMS (*Scaling Analysis of Interleaved Speech-Text Language Models*, arXiv 2504.02398).

    The model under the prefix `lm` is an ordinary causal LM of transformers (Qwen2, OPT, Llama, GPT-NeoX, ...), built
    from `config.base_config` with one row per unit in its embedding; nothing is downloaded for it.

    `from_pretrained` loads a checkpoint, [`~SpeechLMForCausalLM.from_text_lm`] starts from the weights of a text LM
    (TWIST), `SpeechLMForCausalLM(config)` starts from random weights.

    Args:
        config ([`SpeechLMConfig`]):
            The architecture and the size of the unit vocabulary.

    Attributes:
        max_positions (`int`, *optional*):
            Maximum length of a sequence, for base models with a table of positions, such as OPT and GPT-2. `None`
            where there is no limit, as with rotary embeddings.

    With PEFT, prompt and prefix tuning need no further settings, and LoRA needs `target_modules="all-linear"`.
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
        config.check_vocabulary()
        self.lm = AutoModelForCausalLM.from_config(config.base_config, trust_remote_code=False)
        self._ways_to_pack: dict[tuple[str, int], str | None] = {}
        self.max_positions = _size_of_position_table(self.lm)
        if self.max_positions is not None:
            self.lm.register_forward_pre_hook(_PositionCheck(self.max_positions), with_kwargs=True)
        self._can_compile_fullgraph = self.lm._can_compile_fullgraph
        self.post_init()

    @classmethod
    def from_text_lm(
        cls,
        text_lm: str | os.PathLike,
        num_units: int = 500,
        *,
        keep_text: bool = False,
        text_tokenizer: str | os.PathLike | None = None,
        rope_theta: float | None = None,
        dtype: str | torch.dtype = torch.float32,
        revision: str = "main",
        attn_implementation: str | None = None,
    ) -> Self:
        r"""
        Start from the transformer weights of a text LM, with units in place of its text (TWIST, arXiv 2305.13009), or
        beside it (SIMS, arXiv 2504.02398).

        In place of text, the first `num_units + 2` rows of its embedding and of its head become those of `<PAD>`,
        `<S>` and the units. Beside text, the rows of text stay as they are, and the units and modality tokens get the
        next ones, with the ids of [`SpeechTextTokenizer`]: first the rows of the text LM that its tokenizer does not
        use, and then new ones, which `resize_token_embeddings` of transformers draws very close to the mean of all.

        Args:
            text_lm (`str` or `os.PathLike`):
                A causal LM: a Hub id or a folder.
            num_units (`int`, *optional*, defaults to 500):
                Number of speech units.
            keep_text (`bool`, *optional*, defaults to `False`):
                Whether to keep the vocabulary of text.
            text_tokenizer (`str` or `os.PathLike`, *optional*):
                With `keep_text`, the tokenizer of the text LM. Defaults to the one in its repository.
            rope_theta (`float`, *optional*):
                Base of the rotary embedding. Defaults to the text LM's own; the Slam recipe sets 10,000.
            dtype (`str` or `torch.dtype`, *optional*, defaults to `torch.float32`):
                Type of the weights. Training wants float32 weights, under bf16 autocast if need be.
            revision (`str`, *optional*, defaults to `"main"`):
                Revision of the text LM on the Hub.
            attn_implementation (`str`, *optional*):
                `"sdpa"`, `"flex_attention"`, `"flash_attention_2"`, `"eager"`, ...

        Raises:
            OSError: with `keep_text`, the tokenizer of the text LM is not found.
            ValueError: `rope_theta` is given for a text LM without a rotary embedding, or the tokenizer is not that of
                the text LM or cannot be extended.
        """
        with naming_damaged_files(text_lm):
            base = AutoModelForCausalLM.from_pretrained(text_lm, dtype=dtype, revision=revision)
        vocabulary: dict[str, Any] = {"vocab_size": num_units + NUM_SPECIAL_TOKENS}
        if keep_text:
            name = text_lm if text_tokenizer is None else text_tokenizer
            with naming_damaged_files(name):
                of_text = AutoTokenizer.from_pretrained(name, revision=revision if text_tokenizer is None else None)
            num_rows = base.get_input_embeddings().num_embeddings
            least = 0 if text_tokenizer is None else (1 - MAX_UNUSED_ROWS) * num_rows
            if not least <= len(of_text) <= num_rows:
                raise ValueError(
                    f"'{name}' is not the tokenizer of '{text_lm}': it has {len(of_text):,} tokens, and the model "
                    f"{num_rows:,}."
                )
            vocabulary = SpeechTextTokenizer.from_text_tokenizer(of_text, num_units).model_vocabulary
        base.resize_token_embeddings(vocabulary["vocab_size"])
        base_config = base.config.to_dict()
        if rope_theta is not None:
            if not base_config.get("rope_parameters"):
                raise ValueError(
                    f"`rope_theta` is given, but {text_lm} ({base.config.model_type}) has no rotary embedding."
                )
            base_config["rope_parameters"]["rope_theta"] = rope_theta
        name = base_config["_name_or_path"] = public_name(text_lm)  # which is published with the weights
        config = SpeechLMConfig(
            base_config=base_config,
            base_model_name=name,
            twist_init=True,
            **vocabulary,
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
                Ids of [`HubertUnitTokenizer`] or [`SpeechTextTokenizer`].
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Positions. Where they restart at 0 and there is no `attention_mask`, the row is a packed sequence of
                documents that do not attend to each other.
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
            use_cache = bool(use_cache)
            inputs = input_ids if inputs_embeds is None else inputs_embeds
            way = self._way_to_pack(num_rows=2 if len(inputs) > 1 else 1)
            if way != "positions" and find_packed_sequence_indices(position_ids) is not None:
                if way is None:
                    raise ValueError(
                        f"{type(self.lm).__name__} with {self.lm.config._attn_implementation!r} attention cannot keep "
                        "the documents of a packed sequence apart: train with `packing: false`, one document per row."
                    )
                attention_mask = self._create_masks(position_ids, inputs)
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

    def _create_masks(self, position_ids: torch.LongTensor, inputs: torch.Tensor) -> Any:
        """
        The attention mask of packed sequences, or a `dict` with one for each type of layer: what `generate` passes
        with a static cache.
        """
        create_masks = getattr(self.lm, "create_masks_for_generate", create_masks_for_generate)
        return create_masks(
            config=self.lm.config,
            inputs_embeds=torch.empty((*inputs.shape[:2], 0), dtype=self.dtype, device=inputs.device),
            attention_mask=None,
            cache=None,
            position_ids=position_ids,
        )

    @torch.compiler.assume_constant_result
    def _way_to_pack(self, num_rows: int) -> Literal["positions", "masks"] | None:
        """
        What keeps the documents of packed sequences apart in the base model: positions that restart, masks in
        addition, or nothing.

        Recurrent and convolutional layers carry a state from one document to the next, and some base models ignore
        positions or masks. No field of the configuration says so, and a list of names would be out of date with the
        next release of transformers. The model itself is tried, once, on eight tokens.
        """
        key = (self.lm.config._attn_implementation, num_rows)
        if key not in self._ways_to_pack:
            training = {module: module.training for module in self.lm.modules()}
            self.lm.eval()
            try:
                ways = (way for way in ("positions", "masks") if self._keeps_documents_apart(way, num_rows))
                self._ways_to_pack[key] = next(ways, None)
            finally:
                for module, mode in training.items():
                    module.training = mode
                torch.clear_autocast_cache()  # weights that were cast without gradients
        return self._ways_to_pack[key]

    @torch.no_grad()
    def _keeps_documents_apart(self, way: Literal["positions", "masks"], num_rows: int) -> bool:
        """Whether a document in a packed sequence gets the logits that it gets alone, whatever comes before it."""
        rows = torch.tensor([[1, 1, 1, 1, 2, 1, 1, 2], [2, 2, 2, 2, 2, 1, 1, 2]], device=self.device)
        positions = torch.arange(4, device=self.device).repeat(len(rows), 2)

        def logits(ids: torch.LongTensor, **kwargs: torch.Tensor) -> torch.Tensor:
            return self.lm(ids, use_cache=False, **kwargs).logits[:, -4:]

        def packed_logits(ids: torch.LongTensor, positions: torch.LongTensor) -> torch.Tensor:
            masks = self._create_masks(positions, ids) if way == "masks" else None
            return logits(ids, position_ids=positions, attention_mask=masks)

        alone, joined = logits(rows[:, 4:]), logits(rows)
        parts = zip(rows.split(num_rows), positions.split(num_rows), strict=True)
        try:
            packed = torch.cat([packed_logits(*part) for part in parts])
        except Exception:  # base models that do not take such masks fail in many ways
            return False
        # Inputs of the same shape give the same logits if nothing leaks. Another shape gives other rounding errors,
        # which are far smaller than the effect of wrong positions.
        leaks = (packed[0] - packed[1]).abs().max() > 1e-4 * (joined[0] - joined[1]).abs().max()
        differs = (packed - alone).abs().max() > 0.3 * (joined - alone).abs().max()
        return not (leaks or differs)

    @torch.no_grad()
    def log_likelihood(
        self,
        input_ids: torch.Tensor | np.ndarray | Sequence[Sequence[int]],
        attention_mask: torch.Tensor | np.ndarray | Sequence[Sequence[int]] | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
        suppress_tokens: Sequence[int] | None = None,
    ) -> torch.FloatTensor:
        r"""
        Log-likelihood of each sequence given its first token: of `units <S>` for `<S> units <S>`, as the published
        scores are defined. Padding does not change it, neither of the sequences nor of the vocabulary. The padding id
        is never scored, also where it is a token of text, as in the published models of text and speech.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                Sequences as the tokenizer gives them with `add_eos_token=True`: a tensor, an array, or lists of the
                same length.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding. Defaults to every token but `<PAD>`, and to every token in a vocabulary of
                text and units, which must then be padded on the right.
            reduction (`"mean"`, `"sum"` or `"none"`, *optional*, defaults to `"mean"`):
                Mean per scored token, or sum over them, or each of them by itself, in nats.
            suppress_tokens (`Sequence[int]`, *optional*):
                Ids that get no probability, such as those of text. A sequence that holds one has `-inf`.

        Returns:
            `torch.FloatTensor` of shape `(batch,)`, float32. With `"none"`, its shape is `(batch, length)`, and it is
            0 for tokens that are not scored: the first of a sequence, and padding.

        Raises:
            ValueError: another `reduction`, a wrong shape, a sequence with fewer than two tokens, an id that is not
                in the vocabulary, or more tokens than the model has positions.
        """
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"`reduction` must be 'none', 'mean' or 'sum', got {reduction!r}.")
        input_ids = as_integers(input_ids, "input_ids").to(self.device)
        is_padding_id = input_ids == self.config.pad_token_id
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids) if self.config.has_text else ~is_padding_id
        attention_mask = as_tensor(attention_mask, "attention_mask").to(self.device)
        if input_ids.ndim != 2 or attention_mask.shape != input_ids.shape:
            raise ValueError(
                "`input_ids` and `attention_mask` must both be (batch, length), "
                f"got {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}."
            )
        mask = attention_mask.bool()
        # A target counts where it and the token before it are both there: the token after left padding does not.
        scored = F.pad(mask[:, 1:] & mask[:, :-1], (1, 0)) & ~is_padding_id
        lengths = scored.sum(dim=1)
        if (lengths == 0).any():
            rows = (lengths == 0).nonzero().flatten().tolist()
            raise ValueError(f"Sequences {rows} have fewer than two tokens: there is nothing to score.")

        num_ids = self.config.num_ids
        if (wrong := (mask & ((input_ids < 0) | (input_ids >= num_ids))).nonzero()).numel():
            row, column = wrong[0].tolist()
            raise ValueError(
                f"Sequence {row} holds the id {input_ids[row, column]}, but the model has the ids 0 to {num_ids - 1}."
            )

        # Tokens attend to earlier ones only: with all padding moved to the right, no mask or positions are needed,
        # which some base models ignore.
        order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(dim=1).max())]
        input_ids, scored = input_ids.where(mask, 0).gather(1, order), scored.gather(1, order)[:, 1:]
        logits = self(input_ids, use_cache=False).logits[:, :-1, :num_ids]
        if suppress_tokens is not None:
            logits[..., list(suppress_tokens)] = -torch.inf
        losses = F.cross_entropy(logits.float().transpose(1, 2), input_ids[:, 1:], reduction="none")
        log_likelihoods = -losses.where(scored, 0.0)
        if reduction == "none":  # each back at the place of its token
            return log_likelihoods.new_zeros(mask.shape).scatter(1, order[:, 1:], log_likelihoods)
        total = log_likelihoods.sum(dim=1)
        return total / lengths if reduction == "mean" else total

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *,
        stop_strings: str | list[str] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> ModelOutput | torch.LongTensor:
        r"""
        Generate with the base model, which prepares its inputs and its cache in its own way. Arguments and output are
        those of [`~transformers.GenerationMixin.generate`]. Ids that only pad the vocabulary are never generated. With
        text in the vocabulary, the `attention_mask` defaults to all tokens, as the padding id is a token of text too.

        Args:
            stop_strings (`str` or `list[str]`, *optional*):
                Unit strings, such as `"<Un3><Un49>"`, or texts, each of which ends a sequence.
            tokenizer ([`HubertUnitTokenizer`] or [`SpeechTextTokenizer`], *optional*):
                The tokenizer that encodes `stop_strings`.

        Raises:
            ValueError: `stop_strings` without a `tokenizer`, or a sequence longer than the model's positions.
        """
        text_lm = self.to_text_lm()
        for name in ("hf_quantizer", "hf_device_map"):  # `generate` asks them whether it may compile the model
            if hasattr(self, name):
                setattr(text_lm, name, getattr(self, name))
        num_ids = self.config.num_ids
        input_ids = kwargs.get("input_ids", inputs)
        if self.config.has_text and input_ids is not None and kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = torch.ones_like(input_ids)  # or transformers would mask the padding id
        if num_ids < self.config.vocab_size:
            ban = _PaddingBan(range(num_ids, self.config.vocab_size), self.device)
            logits_processor = LogitsProcessorList([*(logits_processor or []), ban])
        stop_strings = stop_strings or (generation_config or self.generation_config).stop_strings
        if stop_strings and self.config.has_text:
            kwargs |= {"stop_strings": stop_strings, "tokenizer": tokenizer}
        elif stop_strings:
            if tokenizer is None:
                raise ValueError("`stop_strings` needs the tokenizer: pass `tokenizer=...` too.")
            strings = [stop_strings] if isinstance(stop_strings, str) else stop_strings
            if "" in strings:
                raise ValueError("`stop_strings` holds an empty string: every sequence ends with it.")
            ends = tokenizer(strings, add_special_tokens=False)["input_ids"]
            stopping_criteria = StoppingCriteriaList([*(stopping_criteria or []), _StopUnits(ends)])
            kwargs["stop_strings"] = text_lm.generation_config.stop_strings = None
        return text_lm.generate(inputs, generation_config, logits_processor, stopping_criteria, **kwargs)

    def generate_batch(self, inputs: list[list[int]], *args: Any, **kwargs: Any) -> dict[str, Any]:
        r"""
        Generate with the base model by continuous batching. Arguments and output are those of transformers'
        `generate_batch`, which leaves out what it does not support, such as a repetition penalty, with a warning.
        """
        return self.to_text_lm().generate_batch(inputs, *args, **kwargs)

    @property
    def prepare_inputs_for_generation(self) -> Any:
        """That of the base model. PEFT replaces it by one that adds its virtual tokens."""
        return self.lm.prepare_inputs_for_generation

    @prepare_inputs_for_generation.setter
    def prepare_inputs_for_generation(self, value: Any):
        self.lm.prepare_inputs_for_generation = value

    def to_text_lm(self) -> PreTrainedModel:
        r"""
        The plain causal LM over the unit vocabulary (`Qwen2ForCausalLM`, ...), sharing this model's weights. What its
        `save_pretrained` writes is an ordinary checkpoint, which engines such as vLLM serve unchanged.
        """
        self.lm.generation_config = GenerationConfig.from_dict(self.generation_config.to_dict())
        padding = range(self.config.num_ids, self.config.vocab_size)
        self.lm.generation_config.update(defaults_only=True, suppress_tokens=list(padding) or None)
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
        num_units = self.config.num_units
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.config.vocab_size = embeddings.num_embeddings
        if not self.config.has_text:
            self.config.num_units = min(num_units, self.config.vocab_size - NUM_SPECIAL_TOKENS)
        return embeddings


class _PaddingBan(SuppressTokensLogitsProcessor):
    """Bans the ids that pad the vocabulary. It has a type of its own because `generate` replaces its own processor of
    `suppress_tokens` by one that has the same type."""


class _StopUnits(StoppingCriteria):
    """
    Stops at one of the id sequences `ends`. `StopStringCriteria` of transformers also has the tokenizer encode
    letters, which this tokenizer refuses.
    """

    def __init__(self, ends: list[list[int]]):
        self.ends = ends

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        stops = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for end in self.ends:
            if len(end) <= input_ids.shape[1]:
                stops |= (input_ids[:, -len(end) :] == torch.tensor(end, device=input_ids.device)).all(dim=1)
        return stops


class _PositionCheck:
    """A forward pre-hook that names the length of a sequence with more tokens than there are positions."""

    def __init__(self, max_positions: int):
        self.max_positions = max_positions

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        inputs = [x for x in (*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None]
        if not inputs or torch.compiler.is_compiling():
            return
        cache, positions = kwargs.get("cache"), kwargs.get("position_ids")
        length = inputs[0].shape[1] + (0 if cache is None else int(cache.get_seq_length()))
        if length > self.max_positions and positions is not None:
            length = int(positions.max()) + 1
        if length > self.max_positions:
            raise ValueError(
                f"A sequence of {length} tokens is longer than the {self.max_positions} positions that "
                f"{type(module).__name__} has: shorten it, or take a base model with rotary embeddings."
            )


def _size_of_position_table(lm: PreTrainedModel) -> int | None:
    """Number of positions that a model has learned, or computed in advance; None where there is no limit."""
    config = lm.config.get_text_config()
    if config.model_type == "mpt":  # its biases are computed at each call, for this many positions
        return config.max_seq_len
    maximum = getattr(config, "max_position_embeddings", None) or getattr(config, "max_target_positions", None)
    if maximum is None:
        return None
    embeddings = [m for m in lm.modules() if isinstance(m, nn.Embedding) and m is not lm.get_input_embeddings()]
    for embedding in embeddings:
        if maximum <= embedding.num_embeddings <= maximum + 2:  # OPT and BART have two rows more than positions
            first = 0 if embedding.padding_idx is None else embedding.padding_idx + 1  # as in RoBERTa
            return min(maximum, embedding.num_embeddings - first)
    return maximum if any(buffer.ndim == 2 and len(buffer) == maximum for buffer in lm.buffers()) else None
