"""The model that pretraining starts from, and its processor."""

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, EncodecFeatureExtractor, set_seed
from trl import ModelConfig, get_peft_config

from ..configuration_speech_lm import SpeechLMConfig
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..processing_speech_lm import SpeechLMProcessor, load_codec
from ..tokenization_hubert_unit import HubertUnitTokenizer
from .arguments import PretrainArguments


def initial_model(args: PretrainArguments, model_args: ModelConfig, seed: int) -> SpeechLMForCausalLM | PeftModel:
    r"""
    Random weights for `args.base_config`; or TWIST initialisation from a text LM, or the weights of a SpeechLM, as
    `model_args.model_name_or_path` names one or the other.

    Args:
        args ([`PretrainArguments`]):
            The architecture, the number of units and the rotary base.
        model_args ([`~trl.ModelConfig`]):
            The checkpoint, its revision, the type of the weights and the attention.
        seed (`int`):
            Seed of random weights.

    Returns:
        [`SpeechLMForCausalLM`], with LoRA adapters if `model_args.use_peft`.

    Raises:
        ValueError: both or neither of `base_config` and `model_name_or_path` are given, `dtype` is `"auto"`, or a
            SpeechLM has another number of units.
    """
    model = _base_model(args, model_args, seed)
    return get_peft_model(model, get_peft_config(model_args)) if model_args.use_peft else model


def make_processor(args: PretrainArguments) -> SpeechLMProcessor:
    r"""
    The processor of the model: the tokenizer of its units, and the codec that made them where one is named.

    Args:
        args ([`PretrainArguments`]):
            The number of units and the codec.

    Raises:
        ValueError: the codec has another number of units, or no vocoder to continue the recording `prompt` with.
    """
    codec = None if args.codec is None else load_codec(args.codec)
    if codec is not None and codec.codebook_size != args.num_units:
        raise ValueError(
            f"The codec {args.codec} has {codec.codebook_size} units, and `num_units` is {args.num_units}."
        )
    if args.prompt is not None and codec.vocoder is None:
        raise ValueError(f"The codec {args.codec} has no vocoder, and cannot say the continuation of `prompt`.")
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    return SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=args.num_units), codec)


def _base_model(args: PretrainArguments, model_args: ModelConfig, seed: int) -> SpeechLMForCausalLM:
    if (args.base_config is None) == (model_args.model_name_or_path is None):
        raise ValueError(
            "Give either `base_config`, to train from scratch, or `model_name_or_path`, to start from it."
        )
    if model_args.dtype == "auto":
        raise ValueError("`dtype` must be named, such as 'float32' (training in bf16 is the flag `bf16`), got 'auto'.")
    dtype = getattr(torch, model_args.dtype)
    if args.base_config is not None:
        config = SpeechLMConfig(base_config=args.base_config, vocab_size=args.num_units + 2)
        set_seed(seed)
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=model_args.attn_implementation
        )

    name, revision = model_args.model_name_or_path, model_args.model_revision
    if AutoConfig.from_pretrained(name, revision=revision).model_type != SpeechLMConfig.model_type:
        return SpeechLMForCausalLM.from_text_lm(
            name,
            args.num_units,
            rope_theta=args.rope_theta,
            dtype=dtype,
            revision=revision,
            attn_implementation=model_args.attn_implementation,
        )
    model = SpeechLMForCausalLM.from_pretrained(
        name, revision=revision, dtype=dtype, attn_implementation=model_args.attn_implementation
    )
    if model.config.num_units != args.num_units:
        raise ValueError(f"{name} has {model.config.num_units} units, and `num_units` is {args.num_units}.")
    return model
