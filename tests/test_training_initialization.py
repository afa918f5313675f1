import shutil

import pytest
import torch
from peft import PeftModel
from training_utils import BASE_CONFIG, tiny_speech_lm
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from slam_hf import HubertUnitCodec, SpeechLMForCausalLM, SpeechTextTokenizer
from slam_hf.training.arguments import ModelArguments, PretrainArguments
from slam_hf.training.initialization import initial_model, make_processor


OPT = {
    "model_type": "opt",
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_from_scratch_the_seed_decides():
    first, again, other = (
        initial_model(PretrainArguments(base_config=BASE_CONFIG, num_units=50), ModelArguments(), seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert first["lm.model.embed_tokens.weight"].shape == (52, 16)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["lm.model.embed_tokens.weight"], other["lm.model.embed_tokens.weight"])


def test_a_text_lm_is_twist_initialisation(tmp_path):
    text_lm = AutoModelForCausalLM.from_config(Qwen2Config(**BASE_CONFIG, vocab_size=100))
    text_lm.save_pretrained(tmp_path)
    args = PretrainArguments(num_units=50, rope_theta=10_000.0)
    model = initial_model(args, ModelArguments(model_name_or_path=str(tmp_path)), seed=0)
    assert model.config.twist_init
    assert model.config.base_config.rope_parameters["rope_theta"] == 10_000.0
    embeddings = text_lm.get_input_embeddings().weight[:52]
    torch.testing.assert_close(model.get_input_embeddings().weight, embeddings, rtol=0, atol=0)


def test_a_text_lm_keeps_its_text_where_there_is_text_to_train_on(interleaved_checkpoint, tmp_path):
    text_lm, corpus = tmp_path / "text-lm", tmp_path / "corpus"
    corpus.mkdir()
    shutil.copytree(interleaved_checkpoint / "text-tokenizer", text_lm)
    base = {name: value for name, value in BASE_CONFIG.items() if name != "model_type"}
    AutoModelForCausalLM.from_config(LlamaConfig(**base, vocab_size=380)).save_pretrained(text_lm)
    args = PretrainArguments(num_units=40, datasets=[{"path": str(corpus), "modality": "text"}])
    model_args = ModelArguments(model_name_or_path=str(text_lm))
    first, again = (initial_model(args, model_args, seed=3) for _ in range(2))
    assert (first.config.vocab_size, first.config.has_text, first.config.base_model_name) == (422, True, "text-lm")
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    tokenizer = make_processor(args, model_args).tokenizer
    assert (type(tokenizer), len(tokenizer)) == (SpeechTextTokenizer, 422)


def test_a_published_model_of_speech_and_text_goes_on_with_its_text_tokenizer(interleaved_checkpoint):
    args = PretrainArguments(num_units=40, text_tokenizer=str(interleaved_checkpoint / "text-tokenizer"))
    model_args = ModelArguments(model_name_or_path=str(interleaved_checkpoint))
    assert initial_model(args, model_args, seed=0).config.vocab_size == 422
    assert make_processor(args, model_args).tokenizer("<text>One")["input_ids"][:2] == [0, 421]
    args.num_units = 41
    with pytest.raises(ValueError, match="has 40 units, and `num_units` is 41"):
        initial_model(args, model_args, seed=0)


def test_a_speech_lm_goes_on(tmp_path):
    before = tiny_speech_lm()
    before.save_pretrained(tmp_path)
    model_args = ModelArguments(model_name_or_path=str(tmp_path))
    after = initial_model(PretrainArguments(num_units=50), model_args, seed=0)
    assert type(after) is SpeechLMForCausalLM
    torch.testing.assert_close(after.state_dict(), before.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="has 50 units, and `num_units` is 500"):
        initial_model(PretrainArguments(), model_args, seed=0)
    with pytest.raises(ValueError, match="is a SpeechLM and keeps its `rope_theta`"):
        initial_model(PretrainArguments(num_units=50, rope_theta=5.0), model_args, seed=0)


def test_lora_trains_adapters_only():
    model_args = ModelArguments(use_peft=True, lora_target_modules=["q_proj", "v_proj"])
    model = initial_model(PretrainArguments(base_config=BASE_CONFIG), model_args, seed=0)
    assert isinstance(model, PeftModel)
    assert {name.split(".")[-3] for name, weight in model.named_parameters() if weight.requires_grad} == {
        "lora_A",
        "lora_B",
    }


def test_lora_trains_every_linear_layer_by_default():
    model = initial_model(PretrainArguments(base_config=BASE_CONFIG), ModelArguments(use_peft=True), seed=0)
    modules = {name.rpartition(".")[2] for name in model.targeted_module_names}
    assert modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert ModelArguments(use_peft=True, lora_target_modules=["q_proj"]).lora_target_modules == ["q_proj"]


@pytest.mark.parametrize(
    ("base_config", "positions"),
    [
        ({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}, 64),
        ({**OPT, "max_position_embeddings": 48}, 48),
        ({**BASE_CONFIG, "max_position_embeddings": 32}, None),  # rotary
    ],
)
def test_a_context_is_no_longer_than_the_positions_of_the_model(base_config, positions):
    for context_length in (positions or 100, 65):
        args = PretrainArguments(base_config=base_config, context_length=context_length)
        if positions is None or context_length <= positions:
            initial_model(args, ModelArguments(), seed=0)
        else:
            with pytest.raises(ValueError, match=f"`context_length` is 65, and the model has {positions} positions"):
                initial_model(args, ModelArguments(), seed=0)


def test_the_processor_has_the_codec_of_the_units(tiny_codec, tmp_path):
    assert make_processor(PretrainArguments(num_units=50), ModelArguments()).audio_tokenizer is None
    tiny_codec.save_pretrained(tmp_path)
    processor = make_processor(PretrainArguments(num_units=50, codec=str(tmp_path)), ModelArguments())
    assert (processor.tokenizer.num_units, processor.audio_tokenizer.codebook_size) == (50, 50)
    with pytest.raises(ValueError, match="has 50 units and the model 500"):
        make_processor(PretrainArguments(codec=str(tmp_path)), ModelArguments())


def test_a_speech_lm_keeps_its_codec(tiny_codec, tmp_path, capsys):
    tiny_codec.save_pretrained(tmp_path / "codec")
    tiny_speech_lm().save_pretrained(tmp_path / "model")
    processor = make_processor(PretrainArguments(num_units=50, codec=str(tmp_path / "codec")), ModelArguments())
    processor.save_pretrained(tmp_path / "model")
    args, model_args = PretrainArguments(num_units=50), ModelArguments(model_name_or_path=str(tmp_path / "model"))
    assert make_processor(args, model_args).audio_tokenizer.name_or_path == str(tmp_path / "codec")
    (tmp_path / "codec").rename(tmp_path / "elsewhere")
    assert make_processor(args, model_args).audio_tokenizer is None
    assert "The model will have no codec" in capsys.readouterr().out


def test_a_prompt_needs_a_vocoder(tiny_codec, recordings, tmp_path):
    HubertUnitCodec.from_parts(tiny_codec.encoder, tiny_codec.codebook, layer=1).save_pretrained(tmp_path)
    args = PretrainArguments(num_units=50, codec=str(tmp_path), prompt=str(recordings[0]))
    with pytest.raises(ValueError, match="has no vocoder"):
        make_processor(args, ModelArguments())


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (
            {"benchmarks": "sblimp"},
            ValueError,
            "`benchmarks` must be a mapping, .* in JSON .*'sblimp'",
        ),
        (
            {"base_config": "{hidden_size: 64}"},
            ValueError,
            "`base_config` must be a mapping, .* in JSON",
        ),
        ({"benchmarks": {"genppl": "x"}}, ValueError, "and 'genppl' is not one of them"),
        ({"benchmarks": {"sblimp": "no/folder"}}, FileNotFoundError, "'no/folder' of the benchmark sblimp"),
        ({"prompt": "none.wav", "codec": "x"}, FileNotFoundError, "'none.wav' to continue does not exist"),
    ],
)
def test_what_is_needed_after_training_is_looked_for_before(args, error, message):
    with pytest.raises(error, match=message):
        PretrainArguments(**args)


@pytest.mark.parametrize(
    ("args", "model_args", "message"),
    [
        ({}, {}, "Give either `base_config`"),
        ({"base_config": BASE_CONFIG}, {"model_name_or_path": "x"}, "Give either `base_config`"),
        ({"base_config": BASE_CONFIG}, {"dtype": "auto"}, "`dtype` must be named"),
    ],
)
def test_contradicting_arguments_are_refused(args, model_args, message):
    with pytest.raises(ValueError, match=message):
        initial_model(PretrainArguments(**args), ModelArguments(**model_args), seed=0)


def test_a_model_of_another_kind_is_refused_in_one_line(tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    model_args = ModelArguments(model_name_or_path=str(tmp_path / "codec"))
    with pytest.raises(ValueError, match=r"codec' cannot be trained: .*HubertUnitCodecConfig.*ForCausalLM\.$"):
        initial_model(PretrainArguments(), model_args, seed=0)
