"""Every causal LM of transformers that can be built tiny, as the base of a speech LM."""

import pytest
import torch
from tiny_causal_lms import tiny_config
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM


KEEPS_APART = ["beam", "bert", "cohere2", "gemma2", "gemma3_text", "gpt_neo", "gpt_neox", "gpt_oss", "llama"]
KEEPS_APART += ["llama4_text", "mistral", "moshi", "mpt", "opt", "phi3", "qwen2"]
REFUSES = ["bart", "bloom", "falcon_h1", "jamba", "lfm2", "mamba", "mamba2", "recurrent_gemma", "rwkv", "xlnet"]
# What needs packages that are missing, more than a few megabytes of weights, or a minute.
NOT_TINY = {"kimi_linear", "speech_language_model"}
OTHERS = sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING} - {*KEEPS_APART, *REFUSES} - NOT_TINY)
PROMPTS = torch.tensor([[1, 5, 9, 20, 7], [0, 0, 1, 30, 12]])


def build(model_type: str, **overrides) -> SpeechLMForCausalLM:
    config = SpeechLMConfig(base_config=tiny_config(model_type, **overrides), vocab_size=52)
    with torch.device("meta"):
        if SpeechLMForCausalLM(config).num_parameters() > 5_000_000:
            pytest.skip("cannot be built tiny")
    torch.manual_seed(0)
    return SpeechLMForCausalLM(config).eval()


def packing_fault(model: SpeechLMForCausalLM) -> float:
    """How far the logits of a document of 20 tokens behind one of 7 are from those of the document alone."""
    first, second = torch.randint(2, 52, (1, 7)), torch.randint(2, 52, (1, 20))
    positions = torch.cat([torch.arange(7), torch.arange(20)])[None]
    with torch.no_grad():
        packed = model(torch.cat([first, second], dim=1), position_ids=positions, use_cache=False).logits[:, 7:]
        return float((packed - model(second, use_cache=False).logits).abs().max())


@pytest.mark.parametrize("model_type", KEEPS_APART)
def test_packed_documents_are_as_alone_beyond_their_window_too(model_type):
    assert packing_fault(build(model_type)) < 1e-4


def test_packed_documents_are_as_alone_with_relative_biases():
    assert packing_fault(build("falcon", alibi=True)) < 1e-4


@pytest.mark.parametrize("model_type", REFUSES)
def test_base_that_cannot_keep_documents_apart_refuses_packed_sequences(model_type):
    model = build(model_type)
    with pytest.raises(ValueError, match="packing: false"):
        packing_fault(model)
    positions = torch.arange(9)[None]  # one document, and so not packed
    assert torch.isfinite(model(torch.full((1, 9), 5), position_ids=positions, labels=torch.full((1, 9), 5)).loss)


def test_a_leak_is_found_however_small():
    with pytest.raises(ValueError, match="packing: false"):
        packing_fault(build("lfm2", initializer_range=0.02))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_trying_a_base_changes_nothing_about_it(dtype, training):
    model = build("qwen2", attention_dropout=0.5).to(dtype).train(training)
    model.lm.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert model._way_to_pack(num_rows=2) == "positions"
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_packed_sequences_train_under_autocast_from_the_first_step():
    model = build("qwen2").train()
    ids, positions = torch.randint(2, 52, (2, 8)), torch.arange(4).repeat(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, position_ids=positions, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_packed_training_compiles_without_graph_breaks():
    model = build("mistral").train()
    ids, positions = torch.randint(2, 52, (2, 40)), torch.arange(20).repeat(2, 2)
    compiled = torch.compile(model, fullgraph=True)(ids, position_ids=positions, labels=ids).loss
    torch.testing.assert_close(compiled, model(ids, position_ids=positions, labels=ids).loss)
    with pytest.raises(Exception, match="packing: false"):
        torch.compile(build("lfm2"), fullgraph=True)(ids, position_ids=positions, labels=ids)


def check_generation(model: SpeechLMForCausalLM) -> None:
    """Greedy search, with and without a cache, and beam search give what the plain base model gives, padded or not."""
    kwargs = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    plain = model.to_text_lm()
    for options in ({}, {"use_cache": False}, {"num_beams": 2}):
        inputs = {"attention_mask": (PROMPTS != 0).long(), **kwargs, **options}
        try:
            expected = plain.generate(PROMPTS, **inputs)
        except Exception as error:
            with pytest.raises(type(error)):
                model.generate(PROMPTS, **inputs)
        else:
            assert model.generate(PROMPTS, **inputs).tolist() == expected.tolist(), options


@pytest.mark.parametrize("model_type", ["bloom", "gemma3_text", "jamba", "llama", "mamba", "opt", "rwkv"])
def test_generation_is_that_of_the_plain_base(model_type):
    check_generation(build(model_type))


@pytest.mark.parametrize("model_type", ["llama", "mamba", "falcon_mamba", "opt"])
def test_left_padded_prompt_continues_as_alone(model_type):
    model = build(model_type)
    kwargs = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    batch = model.generate(PROMPTS, attention_mask=(PROMPTS != 0).long(), **kwargs)
    assert batch[1, 2:].tolist() == model.generate(PROMPTS[1:, 2:], **kwargs)[0].tolist()


def check_log_likelihood(model: SpeechLMForCausalLM) -> None:
    ids, padding = torch.randint(2, 52, (1, 20)), torch.zeros(1, 5, dtype=torch.long)
    alone = model.log_likelihood(ids)
    torch.testing.assert_close(model.log_likelihood(torch.cat([padding, ids], 1)), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.log_likelihood(torch.cat([ids, padding], 1)), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["bart", "bloom", "mamba", "xlnet"])
def test_log_likelihood_does_not_depend_on_padding(model_type):
    check_log_likelihood(build(model_type))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", OTHERS)
def test_every_other_causal_lm(model_type):
    try:
        model = build(model_type)
        model(PROMPTS[:1], use_cache=False)
    except pytest.skip.Exception:
        raise
    except Exception as error:
        pytest.skip(f"cannot be built tiny: {error}")
    if model_type == "hrm_text":  # whose many steps amplify the rounding of float32
        model.double()
    try:
        # Experts see other numbers of tokens, which rounds otherwise.
        assert packing_fault(model) < (1e-3 if model_type == "granitemoe" else 1e-4)
    except ValueError as error:
        assert "packing: false" in str(error)
    check_generation(model)
    check_log_likelihood(model)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "gptj", "opt"])
def test_sequences_longer_than_the_positions_are_refused(model_type):
    model = build(model_type, max_position_embeddings=16)
    long = torch.randint(2, 52, (1, 17))
    for use in (
        lambda: model(long),
        lambda: model.log_likelihood(long),
        lambda: model.generate(long[:, :14], max_new_tokens=10, min_new_tokens=10),
        lambda: model(inputs_embeds=model.get_input_embeddings()(long)),
    ):
        with pytest.raises(ValueError, match="17 tokens is longer than the 16 positions"):
            use()
    assert model.max_positions == 16
    assert torch.isfinite(model.log_likelihood(long[:, :16])).all()


@pytest.mark.parametrize(
    ("model_type", "size", "usable"),
    [
        ("mpt", {"max_seq_len": 16}, 16),
        ("whisper", {"max_target_positions": 16}, 16),
        ("roberta", {"max_position_embeddings": 16}, 15),  # the first position is that of padding, id 0
    ],
)
def test_positions_have_other_names_and_places(model_type, size, usable):
    sizes = {
        "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 1},
        "whisper": {"d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 32, "decoder_attention_heads": 4},
        "roberta": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "is_decoder": True},
    }
    base_config = {"model_type": model_type, **sizes[model_type], **size}
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config, vocab_size=52)).eval()
    assert model.max_positions == usable
    assert model(torch.full((1, usable), 5)).logits.shape == (1, usable, 52)
    with pytest.raises(ValueError, match=f"longer than the {usable} positions"):
        model(torch.full((1, usable + 1), 5))


def test_packed_documents_may_together_be_longer_than_the_positions():
    model = build("opt", max_position_embeddings=16)
    model(torch.randint(2, 52, (1, 20)), position_ids=torch.arange(10).repeat(2)[None])


@pytest.mark.parametrize("model_type", ["llama", "mamba", "bloom"])
def test_positions_without_a_table_have_no_end(model_type):
    model = build(model_type)
    assert model.max_positions is None
    assert torch.isfinite(model.log_likelihood(torch.randint(2, 52, (1, 200)))).all()
