import copy

import torch

from slam_hf import SpeechLMForCausalLM
from slam_hf.fingerprints import describe_model, hash_code, hash_model, hash_rows


def test_the_hash_of_a_model_depends_on_its_weights_and_its_configuration(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "first")
    loaded = type(tiny_model).from_pretrained(tmp_path / "first")
    original = hash_model(loaded)
    loaded.save_pretrained(tmp_path / "second")
    assert hash_model(type(tiny_model).from_pretrained(tmp_path / "second")) == original
    other = copy.deepcopy(loaded)
    other.config.base_config.rope_parameters["rope_theta"] = 5000.0
    assert hash_model(other) != original
    other = copy.deepcopy(loaded)
    with torch.no_grad():
        other.lm.model.norm.weight[0] += 1e-6
    assert hash_model(other) != original


def test_a_model_in_memory_has_the_hash_of_its_files(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    model.config.use_cache = False  # as a trainer sets it
    model.save_pretrained(tmp_path / "model")
    assert hash_model(model) == hash_model(type(model).from_pretrained(tmp_path / "model", dtype=torch.float32))


def test_the_hash_of_a_model_does_not_change_between_versions(published_checkpoint):
    model = SpeechLMForCausalLM.from_pretrained(published_checkpoint, dtype=torch.float32)
    assert hash_model(model) == "83e4d56b3b07816045a57788afadfad261d930582f0d152374a7e1802991b636"


def test_a_model_with_an_adapter_is_not_named_after_its_base(tiny_model):
    model = copy.deepcopy(tiny_model)
    model.name_or_path, model.config._commit_hash, model.peft_config = "org/base", "0123abcd", {}
    described = describe_model(model, "org/adapter")
    assert (described["name"], described["revision"]) == ("org/adapter", None)


def test_a_local_model_is_named_by_its_folder(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "my-model")
    loaded = type(tiny_model).from_pretrained(tmp_path / "my-model")
    assert describe_model(loaded) == {"name": "my-model", "revision": None, "weights": hash_model(loaded)}
    loaded.config._commit_hash, loaded.name_or_path = "0123abcd", "org/my-model"
    assert describe_model(loaded)["name"] == "org/my-model"
    assert describe_model(loaded)["revision"] == "0123abcd"


def test_bfloat16_weights_have_a_hash(tiny_model):
    assert hash_model(copy.deepcopy(tiny_model).bfloat16()) != hash_model(tiny_model)


def test_different_rows_have_different_hashes():
    assert hash_rows([["a", 1], ["b", 2]]) == hash_rows(iter([["a", 1], ["b", 2]]))
    assert hash_rows([["a", 1], ["b", 2]]) != hash_rows([["b", 2], ["a", 1]])
    assert hash_rows(["ab", "c"]) != hash_rows(["a", "bc"])


def test_code_has_a_hash():
    assert hash_code() == hash_code()
    assert len(hash_code()) == 64
