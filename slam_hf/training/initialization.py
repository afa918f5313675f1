"""The model that pretraining starts from, and its processor."""

import torch
from accelerate import PartialState
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, set_seed
from trl import ModelConfig, get_peft_config

from ..configuration_hubert_unit_codec import make_feature_extractor
from ..configuration_speech_lm import SpeechLMConfig
from ..loading_utils import naming_damaged_files
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..processing_speech_lm import SpeechLMProcessor, check_codec, load_codec
from ..tokenization_hubert_unit import HubertUnitTokenizer, UnitTokenizer
from ..tokenization_speech_text import SpeechTextTokenizer
from .arguments import PretrainArguments


def initial_model(args: PretrainArguments, model_args: ModelConfig, seed: int) -> SpeechLMForCausalLM | PeftModel:
    """
    Make the model: with random weights for `args.base_config`, or with the weights of a text LM (TWIST initialisation)
    or a SpeechLM, which `model_args.model_name_or_path` names; with LoRA adapters if `model_args.use_peft`. A model
    that is trained on text has a vocabulary of text and units.

    Raises:
        ValueError: both or neither of `base_config` and `model_name_or_path` are given, `dtype` is `"auto"`, a
            SpeechLM has another vocabulary, or the model has fewer positions than `context_length`.
    """
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if (args.base_config is None) == (name is None):
        raise ValueError(
            "Give either `base_config`, to train from scratch, or `model_name_or_path`, to start from it."
        )
    if model_args.dtype == "auto":
        raise ValueError("`dtype` must be named, such as 'float32' (training in bf16 is the flag `bf16`), got 'auto'.")
    loading = {"dtype": getattr(torch, model_args.dtype), "attn_implementation": model_args.attn_implementation}
    set_seed(seed)  # of new weights
    if args.base_config is not None:
        vocabulary = _make_tokenizer(args, model_args).model_vocabulary
        config = SpeechLMConfig(base_config=args.base_config, **vocabulary)
        model = AutoModelForCausalLM.from_config(config, **loading)
    elif not _is_speech_lm(model_args):
        loading |= {"revision": revision, "rope_theta": args.rope_theta}
        if args.has_text:
            loading |= {"keep_text": True, "text_tokenizer": args.text_tokenizer}
        try:
            model = SpeechLMForCausalLM.from_text_lm(name, args.num_units, **loading)
        except ValueError as error:  # that of a model of another kind goes on to list all that transformers has
            raise ValueError(f"'{name}' cannot be trained: {str(error).splitlines()[0]}") from error
    elif args.rope_theta is not None:
        raise ValueError(f"{name} is a SpeechLM and keeps its `rope_theta`: remove it, or give -1.")
    else:
        model = SpeechLMForCausalLM.from_pretrained(name, revision=revision, **loading)
        if args.has_text and not model.config.has_text:
            raise ValueError(f"{name} is a SpeechLM of units alone, and cannot be trained on text.")
        num_units = _make_tokenizer(args, model_args).num_units
        if num_units != args.num_units:
            raise ValueError(f"{name} has {num_units} units, and `num_units` is {args.num_units}.")
    if model.max_positions is not None and args.context_length > model.max_positions:
        raise ValueError(
            f"`context_length` is {args.context_length:,}, and the model has {model.max_positions:,} positions: "
            "shorten it, or train from scratch with more `max_position_embeddings`."
        )
    return get_peft_model(model, get_peft_config(model_args)) if model_args.use_peft else model


def make_processor(args: PretrainArguments, model_args: ModelConfig) -> SpeechLMProcessor:
    """
    Make the processor of the model: the tokenizer of its units and texts, and the codec of the units. A SpeechLM that
    training starts from keeps its processor, unless `args.codec` names a codec.

    Raises:
        ValueError: the codec has another number of units, or no vocoder to continue the recording `prompt` with.
    """
    if args.codec is None and args.base_config is None and _is_speech_lm(model_args):
        name, revision = model_args.model_name_or_path, model_args.model_revision
        with naming_damaged_files(name):
            processor = AutoProcessor.from_pretrained(name, revision=revision, **_text_tokenizer(args))
        try:
            codec = processor.audio_tokenizer
        except OSError as error:
            PartialState().print(f"{error} The model will have no codec.")
            codec = None
        processor.audio_tokenizer = codec
        return processor
    codec = None
    if args.codec is not None:
        codec = load_codec(args.codec)
        check_codec(codec, args.num_units)
        if args.prompt is not None and codec.vocoder is None:
            raise ValueError(f"The codec {args.codec} has no vocoder, which the continuation of `prompt` needs.")
    feature_extractor = make_feature_extractor(16_000 if codec is None else codec.sampling_rate)
    return SpeechLMProcessor(feature_extractor, _make_tokenizer(args, model_args), codec)


def _make_tokenizer(args: PretrainArguments, model_args: ModelConfig) -> UnitTokenizer:
    """The tokenizer of the units, or of text and units if there is text to train on."""
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if args.base_config is None and _is_speech_lm(model_args):
        with naming_damaged_files(name):
            return AutoTokenizer.from_pretrained(name, revision=revision, **_text_tokenizer(args))
    if not args.has_text:
        return HubertUnitTokenizer(num_units=args.num_units)
    if args.text_tokenizer is not None:
        name, revision = args.text_tokenizer, None
    with naming_damaged_files(name):
        of_text = AutoTokenizer.from_pretrained(name, revision=revision)
    return SpeechTextTokenizer.from_text_tokenizer(of_text, args.num_units)


def _text_tokenizer(args: PretrainArguments) -> dict[str, str]:
    return {} if args.text_tokenizer is None else {"text_tokenizer": args.text_tokenizer}


def _is_speech_lm(model_args: ModelConfig) -> bool:
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if name is None:
        return False
    with naming_damaged_files(name):
        return AutoConfig.from_pretrained(name, revision=revision).model_type == SpeechLMConfig.model_type
