import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CompileConfig,
    ContinuousBatchingConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    StaticCache,
)

import slam_hf  # noqa: F401 (registers the Auto classes)
from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM, SpeechTextTokenizer


SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BASES = {
    "qwen2": Qwen2Config(**SIZE, vocab_size=90, intermediate_size=64, num_key_value_heads=2, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZE, vocab_size=90, intermediate_size=64, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**SIZE, vocab_size=90, intermediate_size=64),
    "opt": OPTConfig(**SIZE, vocab_size=90, ffn_dim=64, word_embed_proj_dim=16, max_position_embeddings=64),
}
IDS = torch.tensor([[1, 5, 51, 9, 25, 32, 6, 9, 1], [1, 2, 3, 1, 0, 0, 0, 0, 0]])


def tiny_model(base: str = "qwen2", num_units: int = 60) -> SpeechLMForCausalLM:
    torch.manual_seed(0)
    return SpeechLMForCausalLM(SpeechLMConfig(base_config=BASES[base].to_dict(), vocab_size=num_units + 2)).eval()


@pytest.fixture
def reference(published_checkpoint) -> dict[str, torch.Tensor]:
    with np.load(published_checkpoint / "reference.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.mark.parametrize("auto_class", [AutoModelForCausalLM, AutoModel])
def test_published_checkpoint_gives_the_reference_logits(published_checkpoint, reference, auto_class):
    model = auto_class.from_pretrained(published_checkpoint)
    assert isinstance(model, SpeechLMForCausalLM)
    with torch.no_grad():
        logits = model(reference["input_ids"], attention_mask=reference["attention_mask"]).logits
    torch.testing.assert_close(logits, reference["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_published_checkpoint_gives_the_reference_log_likelihoods(
    published_checkpoint, reference, reduction, with_mask
):
    model = AutoModelForCausalLM.from_pretrained(published_checkpoint)
    mask = reference["attention_mask"] if with_mask else None
    scores = model.log_likelihood(reference["input_ids"], mask, reduction=reduction)
    torch.testing.assert_close(scores, reference[f"ll_{reduction}"], atol=1e-4, rtol=0)


def test_log_likelihoods_of_a_bfloat16_model_are_summed_in_float32():
    model = tiny_model().bfloat16()
    ids = torch.randint(2, 62, (1, 400))
    with torch.no_grad():
        expected = -F.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="sum")
    score = model.log_likelihood(ids, reduction="sum")
    assert score.dtype == torch.float32
    assert score.item() == pytest.approx(expected.item(), rel=1e-6)


def test_published_checkpoint_gives_the_reference_continuation(published_checkpoint, reference):
    model = AutoModelForCausalLM.from_pretrained(published_checkpoint)
    assert model.generation_config.eos_token_id == 1
    assert model.generation_config.pad_token_id == 0
    new_tokens = reference["generated"].shape[1] - reference["prompt"].shape[1]
    generated = model.generate(reference["prompt"], max_new_tokens=new_tokens, do_sample=False)
    assert generated.tolist() == reference["generated"].tolist()


@pytest.fixture
def interleaved(interleaved_checkpoint) -> tuple[SpeechLMForCausalLM, SpeechTextTokenizer, dict[str, torch.Tensor]]:
    """An interleaved model, its tokenizer, and the outputs of the reference toolkit."""
    text_tokenizer = interleaved_checkpoint / "text-tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer)
    with np.load(interleaved_checkpoint / "reference.npz") as arrays:
        reference = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return AutoModelForCausalLM.from_pretrained(interleaved_checkpoint), tokenizer, reference


def test_interleaved_checkpoint_gives_the_reference_logits(interleaved):
    model, _, reference = interleaved
    with torch.no_grad():
        logits = model(reference["input_ids"], attention_mask=reference["attention_mask"]).logits
    mask = reference["attention_mask"].bool()
    torch.testing.assert_close(logits[mask], reference["logits"][mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_interleaved_checkpoint_gives_the_reference_log_likelihoods(interleaved, reduction):
    model, tokenizer, reference = interleaved
    for mask in (None, reference["attention_mask"]):
        scores = model.log_likelihood(reference["input_ids"], mask, reduction=reduction)
        torch.testing.assert_close(scores, reference[f"ll_{reduction}"], atol=1e-4, rtol=1e-6)
    units = reference["units_only_input_ids"]
    scores = model.log_likelihood(units, reduction=reduction)
    torch.testing.assert_close(scores, reference[f"ll_units_only_all_{reduction}"], atol=1e-4, rtol=1e-6)
    text = [i for i in tokenizer.text_ids if i != tokenizer.eos_token_id]
    scores = model.log_likelihood(units, reduction=reduction, suppress_tokens=text)
    torch.testing.assert_close(scores, reference[f"ll_units_only_speech_{reduction}"], atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("modality", ["speech", "text"])
def test_interleaved_checkpoint_gives_the_reference_continuation(interleaved, modality):
    model, tokenizer, reference = interleaved
    banned = tokenizer.ids_outside(modality)
    generated = model.generate(
        reference[f"prompt_{modality}"], max_new_tokens=20, do_sample=False, suppress_tokens=banned
    )
    assert generated.tolist() == reference[f"generated_{modality}"].tolist()


def test_padding_id_within_a_prompt_is_not_masked(interleaved):
    model, _, _ = interleaved
    prompt = torch.tensor([[0, 421, 295, 0, 272]])
    options = {"max_new_tokens": 9, "do_sample": False}
    expected = model.lm.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    assert torch.equal(model.generate(prompt, **options), expected)
    assert torch.equal(model.generate(input_ids=prompt, **options), expected)


def test_padding_id_is_not_scored_within_a_text(interleaved):
    model, _, _ = interleaved
    with_padding_id = torch.tensor([[0, 421, 295, 0, 272]])
    scores = F.log_softmax(model(with_padding_id).logits, dim=-1)[0]
    expected = scores[0, 421] + scores[1, 295] + scores[3, 272]
    mask = torch.ones_like(with_padding_id)
    for attention_mask in (None, mask):
        score = model.log_likelihood(with_padding_id, attention_mask, reduction="sum")
        torch.testing.assert_close(score, expected[None])
        torch.testing.assert_close(model.log_likelihood(with_padding_id, attention_mask), expected[None] / 3)


def test_special_tokens_of_an_interleaved_checkpoint_are_kept(interleaved_checkpoint, tmp_path):
    config = AutoConfig.from_pretrained(interleaved_checkpoint)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 1)
    assert (config.has_text, config.num_units) == (True, None)
    saved = json.loads((interleaved_checkpoint / "config.json").read_text())
    saved["base_config"] |= {"pad_token_id": None, "bos_token_id": 7, "eos_token_id": [8, 9]}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 7, [8, 9])
    assert (config.base_config.bos_token_id, config.base_config.eos_token_id) == (7, [8, 9])
    config.save_pretrained(tmp_path / "saved")
    loaded = AutoConfig.from_pretrained(tmp_path / "saved")
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.has_text) == (0, 7, [8, 9], True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": "422"}, "vocab_size"),
        ({"eos_token_id": 422}, "`eos_token_id` is 422, and the vocabulary has the ids 0 to 421"),
        ({"eos_token_id": [1, 422]}, "`eos_token_id` is 422, and the vocabulary has the ids 0 to 421"),
        ({"base_config": [1]}, "base_config"),
        ({"base_config": {"_name_or_path": "a/b", "vocab_size": "z", "model_type": "llama"}}, "vocab_size"),
        ({"tokenizer_class": "SpeechTextTokenizer", "num_units": 0}, "`num_units` must be at least 1, got 0"),
    ],
)
def test_wrong_configurations_are_named(interleaved_checkpoint, tmp_path, changes, message):
    saved = json.loads((interleaved_checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, **changes}))
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        SpeechLMForCausalLM.from_pretrained(tmp_path)


def test_the_tokenizer_of_the_text_lm_is_not_that_of_the_model(interleaved_checkpoint, tmp_path):
    saved = json.loads((interleaved_checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "tokenizer_class": "LlamaTokenizer"}))
    assert AutoConfig.from_pretrained(tmp_path).tokenizer_class == "SpeechTextTokenizer"
    with pytest.raises(ValueError, match="must be 'HubertUnitTokenizer' or 'SpeechTextTokenizer', got 'LlamaT"):
        SpeechLMConfig(tokenizer_class="LlamaTokenizer")


def test_a_configuration_may_leave_out_the_size_of_the_vocabulary(tmp_path):
    config = {"model_type": "speech_language_model", "base_model_name": "org/text-lm"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(tmp_path).vocab_size == 502
    assert not AutoConfig.from_pretrained(tmp_path).has_text


def test_interleaved_model_is_saved_and_resized(interleaved, tmp_path):
    model, _, reference = interleaved
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded.config.has_text, loaded.config.vocab_size, loaded.config.num_units) == (True, 422, None)
    assert torch.equal(loaded(reference["input_ids"]).logits, model(reference["input_ids"]).logits)
    loaded.resize_token_embeddings(pad_to_multiple_of=64)
    assert (loaded.config.vocab_size, loaded.config.num_units) == (448, None)


def test_published_config_is_read_in_full(published_checkpoint):
    config = AutoConfig.from_pretrained(published_checkpoint)
    assert isinstance(config, SpeechLMConfig)
    assert isinstance(config.base_config, Qwen2Config)
    assert (config.vocab_size, config.base_config.vocab_size, config.num_units) == (502, 502, 500)
    assert config.base_config.rope_parameters["rope_theta"] == 10_000
    assert config.get_text_config() is config.base_config


def test_default_config_is_the_slam_architecture():
    with torch.device("meta"):
        model = SpeechLMForCausalLM(SpeechLMConfig())
    assert model.num_parameters() == 358_347_904


@pytest.mark.parametrize("base", BASES)
def test_save_and_load_is_exact(base, tmp_path):
    model = tiny_model(base)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded.lm) is type(model.lm)
    state, loaded_state = model.state_dict(), loaded.state_dict()
    assert state.keys() == loaded_state.keys()
    assert all(torch.equal(state[name], loaded_state[name]) for name in state)
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == BASES[base].tie_word_embeddings
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_what_is_saved_is_in_the_published_format(published_checkpoint, tmp_path):
    AutoModelForCausalLM.from_pretrained(published_checkpoint).save_pretrained(tmp_path)
    published, saved = (json.loads((d / "config.json").read_text()) for d in (published_checkpoint, tmp_path))
    for key in ("model_type", "base_model_name", "twist_init", "vocab_size"):
        assert saved[key] == published[key]
    assert not {"num_units", "text_config"} & saved.keys()
    for key in ("model_type", "hidden_size", "num_hidden_layers", "num_key_value_heads", "rope_theta", "rms_norm_eps"):
        assert saved["base_config"][key] == published["base_config"][key]
    with (
        safe_open(published_checkpoint / "model.safetensors", "pt") as old,
        safe_open(tmp_path / "model.safetensors", "pt") as new,
    ):
        assert set(old.keys()) == set(new.keys())
        assert all(torch.equal(old.get_tensor(name), new.get_tensor(name)) for name in old.keys())  # noqa: SIM118


def test_truncated_checkpoint_is_refused(published_checkpoint, tmp_path):
    (tmp_path / "config.json").write_bytes((published_checkpoint / "config.json").read_bytes())
    weights = (published_checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(Exception, match="(?i)incomplete|invalid|safetensor"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("num_units", [60, 120])
def test_twist_keeps_the_text_lm(base, num_units, tmp_path):
    torch.manual_seed(0)
    text_lm = AutoModelForCausalLM.from_config(BASES[base]).eval()
    text_lm.save_pretrained(tmp_path / "text-lm")
    model = SpeechLMForCausalLM.from_text_lm(tmp_path / "text-lm", num_units=num_units).eval()
    assert (model.config.twist_init, model.config.base_model_name) == (True, "text-lm")
    assert len(model.get_input_embeddings().weight) == len(model.get_output_embeddings().weight) == num_units + 2
    kept = min(num_units + 2, 90)
    theirs, ours = text_lm.state_dict(), model.lm.state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        if weight.ndim == 2 and len(weight) == 90:
            assert torch.equal(ours[name][:kept], weight[:kept]), name
        else:
            assert torch.equal(ours[name], weight), name


@pytest.mark.parametrize("base", ["llama", "opt"])
@pytest.mark.parametrize("unused_rows", [0, 7])
def test_a_text_lm_keeps_its_text(base, unused_rows, interleaved_checkpoint, tmp_path):
    torch.manual_seed(0)
    folder, tokens = tmp_path / "text-lm", 380
    shutil.copytree(interleaved_checkpoint / "text-tokenizer", folder)
    config = copy.deepcopy(BASES[base])
    config.vocab_size = tokens + unused_rows
    text_lm = AutoModelForCausalLM.from_config(config)
    text_lm.save_pretrained(folder)
    model = SpeechLMForCausalLM.from_text_lm(folder, num_units=40, keep_text=True)
    config = model.config
    assert (config.vocab_size, config.num_units, config.has_text, config.twist_init) == (422, 40, True, True)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 0, 1)
    theirs, ours = text_lm.state_dict(), model.lm.state_dict()
    for name, weight in theirs.items():
        if weight.ndim == 2 and len(weight) == tokens + unused_rows:
            assert torch.equal(ours[name][: tokens + unused_rows], weight), name
            new = ours[name][tokens + unused_rows :]
            assert len(new) == 42 - unused_rows
            torch.testing.assert_close(new, weight.mean(dim=0).expand_as(new), atol=1e-4, rtol=0)
            assert len(new.unique(dim=0)) == len(new)
        else:
            assert torch.equal(ours[name], weight), name
    model.save_pretrained(tmp_path / "saved")
    SpeechTextTokenizer.from_text_tokenizer(AutoTokenizer.from_pretrained(folder), 40).save_pretrained(
        tmp_path / "saved"
    )
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config.has_text
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").num_units == 40


def test_the_tokenizer_of_another_text_lm_is_refused(interleaved_checkpoint, tmp_path):
    AutoModelForCausalLM.from_config(BASES["llama"]).save_pretrained(tmp_path)
    tokenizer = interleaved_checkpoint / "text-tokenizer"
    with pytest.raises(ValueError, match="is not the tokenizer of .*: it has 380 tokens, and the model 90"):
        SpeechLMForCausalLM.from_text_lm(tmp_path, keep_text=True, text_tokenizer=tokenizer)


def test_twist_sets_the_base_of_the_rotary_embedding(tmp_path):
    AutoModelForCausalLM.from_config(BASES["llama"]).save_pretrained(tmp_path / "llama")
    model = SpeechLMForCausalLM.from_text_lm(tmp_path / "llama", num_units=60, rope_theta=500.0)
    exponents = torch.arange(0, 8, 2) / 8
    torch.testing.assert_close(model.lm.model.rotary_emb.inv_freq, 500.0**-exponents)
    assert model.config.base_config.rope_parameters["rope_theta"] == 500.0

    AutoModelForCausalLM.from_config(BASES["opt"]).save_pretrained(tmp_path / "opt")
    with pytest.raises(ValueError, match="opt.*no rotary embedding"):
        SpeechLMForCausalLM.from_text_lm(tmp_path / "opt", num_units=60, rope_theta=500.0)


@pytest.mark.parametrize("base", BASES)
def test_log_likelihood_does_not_depend_on_padding(base):
    model = tiny_model(base)
    alone = model.log_likelihood(IDS[1:, :4])
    padded = model.log_likelihood(IDS)[1:]
    left = model.log_likelihood(torch.tensor([[0, 0, 0, 1, 2, 3, 1]]))
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=0)


def test_log_likelihood_is_that_of_the_tokens_after_the_first():
    model = tiny_model()
    log_probs = F.log_softmax(model(IDS[1:, :4]).logits[0], dim=-1)
    expected = log_probs[0, 2] + log_probs[1, 3] + log_probs[2, 1]
    torch.testing.assert_close(model.log_likelihood(IDS[1:], reduction="sum")[0], expected)
    torch.testing.assert_close(model.log_likelihood(IDS[1:], reduction="mean")[0], expected / 3)


def test_log_likelihoods_of_single_tokens_are_at_their_places_whatever_the_padding():
    model = tiny_model()
    log_probs = F.log_softmax(model(IDS[1:, :4]).logits[0], dim=-1)
    expected = torch.stack([log_probs[0, 2], log_probs[1, 3], log_probs[2, 1]])
    left, right = model.log_likelihood(torch.tensor([[0, 0, 1, 2, 3, 1], [1, 2, 3, 1, 0, 0]]), reduction="none")
    torch.testing.assert_close(left, F.pad(expected, (3, 0)))
    torch.testing.assert_close(right, F.pad(expected, (1, 2)))


@pytest.mark.parametrize("kind", [torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int])
def test_log_likelihood_takes_lists_arrays_and_other_integers(kind):
    model, mask = tiny_model(), (IDS != 0).long()
    assert torch.equal(model.log_likelihood(kind(IDS), kind(mask)), model.log_likelihood(IDS))
    unread = IDS.where(mask.bool(), -100)
    assert torch.equal(model.log_likelihood(kind(unread), kind(mask)), model.log_likelihood(IDS))


def test_log_likelihood_names_what_is_wrong():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"Sequences \[1\] have fewer than two tokens"):
        model.log_likelihood(torch.tensor([[1, 2, 1], [1, 0, 0]]))
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'max'"):
        model.log_likelihood(IDS, reduction="max")
    with pytest.raises(ValueError, match=r"got \(2, 9\) and \(2, 8\)"):
        model.log_likelihood(IDS, IDS[:, 1:])
    with pytest.raises(ValueError, match="Sequence 1 holds the id 62, but the model has the ids 0 to 61"):
        model.log_likelihood(torch.tensor([[1, 2, 1], [1, 62, 1]]))
    with pytest.raises(ValueError, match="Sequence 0 holds the id -5"):
        model.log_likelihood([[1, -5, 1]])
    with pytest.raises(ValueError, match="`input_ids` must hold numbers, in a tensor, an array or lists"):
        model.log_likelihood([[1, 2, 1], [1, 1]])
    with pytest.raises(ValueError, match="`input_ids` must be integers, got torch.float32"):
        model.log_likelihood(IDS.float())


@pytest.mark.parametrize("base", BASES)
def test_exported_text_lm_gives_the_same_logits(base, tmp_path):
    model = tiny_model(base)
    model.to_text_lm().save_pretrained(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(exported).__module__.startswith("transformers.")
    assert exported.config.vocab_size == 62
    assert exported.generation_config.eos_token_id == 1
    assert torch.equal(exported(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "attn_implementation", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.slow)]
)
def test_packed_documents_do_not_see_each_other(base, attn_implementation):
    model = tiny_model(base)
    model.set_attn_implementation(attn_implementation)
    first, second = IDS[:1], IDS[1:, :4]
    packed = torch.cat([first, second], dim=1)
    position_ids = torch.cat([torch.arange(9), torch.arange(4)])[None]
    with torch.no_grad():  # flex attention has no backward on a CPU
        logits = model(packed, position_ids=position_ids).logits
        alone = torch.cat([model(first).logits, model(second).logits], dim=1)
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)


def test_flex_attention_is_dispatched_to_the_base_model():
    model = tiny_model()
    model.set_attn_implementation("flex_attention")
    assert model.lm.config._attn_implementation == "flex_attention"


@pytest.mark.parametrize("cache_implementation", ["dynamic", "static"])
def test_generation_is_the_same_with_every_cache(cache_implementation):
    model = tiny_model()
    kwargs = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = model.generate(IDS[:1], use_cache=False, **kwargs)
    assert torch.equal(model.generate(IDS[:1], cache_implementation=cache_implementation, **kwargs), expected)
    cache = StaticCache(config=model.config, max_cache_len=32)
    assert torch.equal(model.generate(IDS[:1], cache=cache, **kwargs), expected)


PROMPTS = [[1, 5, 51, 9, 17], [1, 7], [1, 20, 3, 30, 3, 12, 40, 2, 9]]


def lively_model(base: str = "qwen2") -> SpeechLMForCausalLM:
    """A model whose greedy continuations do not repeat one unit."""
    model = tiny_model(base)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.5)
    return model


def compiled_everywhere() -> CompileConfig:
    """Compiles the steps of decoding on a CPU too."""
    config = CompileConfig()
    config._compile_all_devices = True
    return config


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "max_cache_len": 64},
        pytest.param(
            {"cache_implementation": "static", "compile_config": compiled_everywhere()}, marks=pytest.mark.slow
        ),
    ],
    ids=["dynamic", "static", "longer static", "compiled"],
)
def test_prompts_of_a_batch_continue_as_alone_without_a_cache(base, options):
    model = lively_model(base)
    kwargs = {"max_new_tokens": 12, "do_sample": False}
    alone = [model.generate(torch.tensor([prompt]), use_cache=False, **kwargs)[0] for prompt in PROMPTS]
    rows = [torch.nn.functional.pad(torch.tensor(prompt), (9 - len(prompt), 0)) for prompt in PROMPTS]
    batch = torch.stack(rows)
    generated = model.generate(batch, attention_mask=(batch != 0).long(), **kwargs, **options)
    assert len(set(generated[0].tolist())) > 8
    for row, prompt, expected in zip(generated, PROMPTS, alone, strict=True):
        new = expected[len(prompt) :]
        assert row[9 : 9 + len(new)].tolist() == new.tolist()
        assert not row[9 + len(new) :].any()


def test_continuous_batching_generates_the_same_tokens():
    model = lively_model()
    model.config.num_units = 50  # the last ten ids pad the vocabulary
    kwargs = {"max_new_tokens": 12, "do_sample": False}
    expected = [model.generate(torch.tensor([ids]), **kwargs)[0, len(ids) :].tolist() for ids in PROMPTS]
    config = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)
    results = model.generate_batch(PROMPTS, continuous_batching_config=config, warmup=False, max_new_tokens=12)
    assert [list(result.generated_tokens) for result in results.values()] == expected


def test_what_is_offloaded_is_not_compiled(monkeypatch):
    model = lively_model()
    model.hf_device_map = {"lm.model": 0, "lm.lm_head": "cpu"}
    answers, ask = [], type(model.lm)._valid_auto_compile_criteria
    monkeypatch.setattr(
        type(model.lm), "_valid_auto_compile_criteria", lambda *args: answers.append(ask(*args)) or answers[-1]
    )
    options = {"cache_implementation": "static", "compile_config": compiled_everywhere()}
    model.generate(IDS[:1], max_new_tokens=2, **options)
    assert answers == [False]


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
@pytest.mark.parametrize("base", BASES)
def test_tokens_after_a_cache_attend_to_it(base, name):
    model = tiny_model(base)
    positions = torch.arange(IDS.shape[1])[None]
    with torch.no_grad():
        expected = model(IDS[:1], position_ids=positions).logits
        begun = model(IDS[:1, :5], position_ids=positions[:, :5], use_cache=True).cache
        logits = model(IDS[:1, 5:], position_ids=positions[:, 5:], **{name: begun}).logits
    torch.testing.assert_close(logits, expected[:, 5:])


def test_generation_takes_its_options():
    model = tiny_model()
    prompts = torch.tensor([[1, 5, 51, 9], [0, 0, 1, 7]])
    mask = (prompts != 0).long()
    beams = model.generate(prompts, attention_mask=mask, num_beams=3, num_return_sequences=2, max_new_tokens=5)
    assert len(beams) == 4
    sampled = model.generate(prompts, attention_mask=mask, do_sample=True, top_k=5, max_new_tokens=5, min_new_tokens=5)
    assert sampled.shape == (2, 9)
    out = model.generate(
        prompts, attention_mask=mask, max_new_tokens=3, return_dict_in_generate=True, output_scores=True
    )
    assert out.scores[0].shape == (2, 62)
    assert (model.generate(max_new_tokens=2)[:, 0] == 1).all()


def test_batched_generation_is_that_of_each_prompt_alone():
    model = tiny_model()
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    prompts = torch.tensor([[1, 5, 51, 9], [0, 0, 1, 7]])
    batched = model.generate(prompts, attention_mask=(prompts != 0).long(), **kwargs)
    assert torch.equal(batched[0], model.generate(prompts[:1], **kwargs)[0])
    assert torch.equal(batched[1, 2:], model.generate(prompts[1:, 2:], **kwargs)[0])


def test_loss_is_scaled_by_num_items_in_batch():
    model = tiny_model()
    labels = IDS.masked_fill(IDS == 0, -100)
    mean = model(IDS, attention_mask=IDS != 0, labels=labels).loss
    scored = int((labels[:, 1:] != -100).sum())
    scaled = model(IDS, attention_mask=IDS != 0, labels=labels, num_items_in_batch=4 * scored).loss
    torch.testing.assert_close(scaled, mean / 4)


def test_activation_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(IDS, attention_mask=IDS != 0, labels=IDS, use_cache=False).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_lora_trains_only_the_adapter(tmp_path):
    model = tiny_model()
    frozen = {name: weight.clone() for name, weight in model.state_dict().items()}
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.SGD(peft_model.parameters(), lr=1.0)
    peft_model(input_ids=IDS, attention_mask=IDS != 0, labels=IDS).loss.backward()
    optimizer.step()
    merged = peft_model.merge_and_unload()
    changed = {name for name, weight in merged.state_dict().items() if not torch.equal(weight, frozen[name])}
    assert changed
    assert all("proj" in name and "weight" in name for name in changed)


@pytest.mark.parametrize("base", BASES)
def test_base_model_and_head_make_the_logits(base):
    model = tiny_model(base)
    states = model.base_model(IDS).last_hidden_state
    torch.testing.assert_close(model.get_output_embeddings()(states), model(IDS).logits)


def test_embeddings_can_be_resized(tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(70)
    assert (model.config.vocab_size, model.config.base_config.vocab_size) == (70, 70)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


def test_dtype_and_device_map_are_those_asked_for(published_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(published_checkpoint, dtype=torch.bfloat16, device_map="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    scores = model.log_likelihood(IDS)
    assert scores.dtype == torch.float32
    assert all(math.isfinite(score) for score in scores.tolist())


@pytest.mark.slow
def test_forward_compiles_without_graph_breaks():
    model = tiny_model()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IDS, use_cache=False).logits, model(IDS, use_cache=False).logits)


def test_plain_text_lm_loads_without_the_prefix(tmp_path):
    text_lm = Qwen2ForCausalLM(BASES["qwen2"]).eval()
    text_lm.save_pretrained(tmp_path)
    config = SpeechLMConfig(base_config=BASES["qwen2"].to_dict(), vocab_size=90)
    model = SpeechLMForCausalLM.from_pretrained(tmp_path, config=config)
    assert torch.equal(model(IDS).logits, text_lm(IDS).logits)


def test_configuration_of_the_base_is_copied():
    base_config = Qwen2Config(**SIZE, vocab_size=90)
    before = base_config.to_dict()
    config = SpeechLMConfig(base_config=base_config, vocab_size=52)
    assert base_config.to_dict() == before
    assert config.base_config.vocab_size == 52
    as_dict = {**before, "model_type": "qwen2"}
    SpeechLMConfig(base_config=as_dict, vocab_size=52)
    assert as_dict == {**before, "model_type": "qwen2"}


@pytest.mark.parametrize(
    "overrides",
    [{"vocab_size": 77}, {"pad_token_id": 3, "bos_token_id": 4, "eos_token_id": 4}, {"tie_word_embeddings": False}],
)
def test_overridden_configuration_reaches_the_base(overrides, tmp_path):
    SpeechLMConfig(base_config=BASES["qwen2"].to_dict(), vocab_size=52).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, **overrides)
    assert {name: getattr(config.base_config, name) for name in overrides} == overrides
    assert config.num_units == config.vocab_size - 2
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert {name: getattr(loaded.config, name) for name in overrides} == overrides
    assert torch.equal(loaded(IDS).logits, model.eval()(IDS).logits)


def test_vocabulary_set_later_reaches_the_base():
    config = SpeechLMConfig(base_config=BASES["qwen2"].to_dict(), vocab_size=52)
    config.vocab_size = 77
    assert (config.base_config.vocab_size, config.num_units) == (77, 75)


def test_vocabulary_without_room_for_the_units_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 3, got 2"):
        SpeechLMConfig(vocab_size=2)
    with pytest.raises(ValueError, match="50 units, <PAD> and <S> need 52 rows, but `vocab_size` is 40"):
        SpeechLMConfig(vocab_size=40, num_units=50)
    SpeechLMConfig(base_config=BASES["qwen2"].to_dict(), vocab_size=52).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="60 units, <PAD> and <S> need 62 rows, but `vocab_size` is 52"):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path, num_units=60))
    with pytest.raises(ValueError, match="`num_units` must be at most 65,536"):
        SpeechLMConfig(vocab_size=10_000_000)


def padded_model() -> tuple[SpeechLMForCausalLM, SpeechLMForCausalLM]:
    """A model of 50 units, and the same padded to 64 rows, of which the last ones are the most likely."""
    model, padded = tiny_model("llama", num_units=50), tiny_model("llama", num_units=50)
    padded.resize_token_embeddings(pad_to_multiple_of=64)
    with torch.no_grad():
        padded.get_output_embeddings().weight[52:] = 3 * padded.get_output_embeddings().weight[:12]
    return model, padded


def test_rows_that_pad_the_vocabulary_are_not_generated(tmp_path):
    model, padded = padded_model()
    assert (padded.config.vocab_size, padded.config.base_config.vocab_size, padded.config.num_units) == (64, 64, 50)
    kwargs = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    assert (padded.lm.generate(IDS[:1], **kwargs) >= 52).any()
    assert torch.equal(padded.generate(IDS[:1], **kwargs), model.generate(IDS[:1], **kwargs))
    assert (padded.generate(IDS[:1], do_sample=True, num_return_sequences=8, max_new_tokens=20) < 52).all()
    assert torch.equal(padded.to_text_lm().generate(IDS[:1], **kwargs), model.generate(IDS[:1], **kwargs))
    padded.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.num_units == 50
    assert torch.equal(loaded.generate(IDS[:1], **kwargs), model.generate(IDS[:1], **kwargs))


def test_padding_of_the_vocabulary_and_suppressed_tokens_are_banned_together():
    model, padded = padded_model()
    kwargs = {"max_new_tokens": 20, "do_sample": False, "suppress_tokens": list(range(30))}
    expected = model.generate(IDS[:1], **kwargs)
    assert (expected[0, IDS.shape[1] :] >= 30).all()
    assert torch.equal(padded.generate(IDS[:1], **kwargs), expected)


def test_rows_that_pad_the_vocabulary_take_no_probability():
    model, padded = padded_model()
    ids = IDS.clamp(max=51)
    torch.testing.assert_close(padded.log_likelihood(ids), model.log_likelihood(ids))


def test_stop_strings_end_a_sequence():
    model, tokenizer = tiny_model(), HubertUnitTokenizer(num_units=60)
    kwargs = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    free = model.generate(IDS[:1], **kwargs)[0].tolist()
    string = tokenizer.decode(free[11:13])
    stopped = model.generate(IDS[:1], stop_strings=[string, "<Un59><Un59><Un59>"], tokenizer=tokenizer, **kwargs)
    end = next(n for n in range(10, 18) if free[n - 2 : n] == free[11:13])
    assert stopped[0].tolist() == free[:end]
    model.generation_config.stop_strings = string
    assert model.generate(IDS[:1], tokenizer=tokenizer, **kwargs)[0].tolist() == free[:end]
    with pytest.raises(ValueError, match="pass `tokenizer=...` too"):
        model.generate(IDS[:1], stop_strings="<Un3>", **kwargs)
    with pytest.raises(ValueError, match="'stop' at character 0 is not a unit"):
        model.generate(IDS[:1], stop_strings="stop", tokenizer=tokenizer, **kwargs)


@pytest.mark.parametrize("method", [PromptTuningConfig, PrefixTuningConfig])
@pytest.mark.filterwarnings("ignore:.*past_key_values")
def test_virtual_tokens_are_tuned_and_generated_with_as_on_the_plain_base(method):
    def results(model):
        torch.manual_seed(0)
        tuned = get_peft_model(model, method(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
        mask = torch.ones_like(IDS[:1])
        loss = tuned(input_ids=IDS[:1], attention_mask=mask, labels=IDS[:1]).loss
        loss.backward()
        assert all(p.grad is not None for p in tuned.parameters() if p.requires_grad)
        kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
        return loss, tuned.generate(input_ids=IDS[:1], attention_mask=mask, **kwargs)

    torch.testing.assert_close(results(tiny_model()), results(tiny_model().to_text_lm()))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.lm.model.norm.weight[3] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path.name}': lm.model.norm.weight holds NaN or infinite weights"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
