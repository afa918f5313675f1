import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from evaluate_model import load_model
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from training_utils import tiny_speech_lm

from slam_hf.sharded_checkpoints import MODEL_SHARDS, check_shards, is_sharded, load_sharded_model


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def save_shards(folder: Path, name: str, state: dict) -> Path:
    dcp.save({name: state}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


@pytest.fixture(params=[False, True], ids=["own head", "tied head"])
def model(request):
    return tiny_speech_lm(tie_word_embeddings=request.param)


@pytest.fixture
def checkpoint(tmp_path, model):
    save_shards(tmp_path / "checkpoint-2" / MODEL_SHARDS, "model", model.state_dict())
    model.config.save_pretrained(tmp_path / "checkpoint-2")
    return tmp_path / "checkpoint-2"


def test_a_sharded_model_is_loaded_whole(checkpoint, model):
    assert is_sharded(checkpoint)
    for loaded in (load_sharded_model(checkpoint), load_model(str(checkpoint))):
        assert loaded.state_dict().keys() == model.state_dict().keys()
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight)
        is_tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
        assert is_tied == model.config.tie_word_embeddings


def test_an_index_of_shards_executes_nothing(checkpoint, tmp_path):
    index = checkpoint / MODEL_SHARDS / ".metadata"
    index.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    for load in (load_sharded_model, lambda folder: check_shards(folder / MODEL_SHARDS)):
        with pytest.raises(ValueError, match=f"'{index}' is not an index of shards: it refers to 'posix.mkdir'"):
            load(checkpoint)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("instance", ["the class", "an instance"])
@pytest.mark.parametrize("state", [{"__len__": 1}, (None, {"mkdir": 1}), (None, {"version": "2"}), []])
def test_an_index_sets_nothing_but_its_fields(checkpoint, instance, state):
    """`BUILD` sets what follows an object on it, and as the second of a pair even on a class."""
    made = pickle.dumps(Metadata, protocol=2)[:-1] + (b")\x81" if instance == "an instance" else b"")
    index = checkpoint / MODEL_SHARDS / ".metadata"
    before = vars(Metadata).copy()
    index.write_bytes(made + pickle.dumps(state, protocol=2)[2:-1] + b"b.")
    with pytest.raises(ValueError, match="is not an index of shards: it sets attributes that its objects do not have"):
        check_shards(index.parent)
    assert vars(Metadata) == before


def test_a_value_in_shards_executes_nothing(tmp_path):
    folder = save_shards(tmp_path / "plain", "optimizer", {"betas": (0.9, 0.95), "lr": 0.1, "foreach": None})
    assert "optimizer.lr" in check_shards(folder).state_dict_metadata
    folder = save_shards(tmp_path / "hostile", "optimizer", {"lr": Malicious(tmp_path / "executed")})
    with pytest.raises(ValueError, match="hostile' holds a value 'optimizer.lr' that cannot be read safely"):
        check_shards(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"\x80\x04K\x01.", b"no pickle"])
def test_a_damaged_index_is_named(checkpoint, content):
    (checkpoint / MODEL_SHARDS / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=".metadata' is not an index of shards"):
        load_sharded_model(checkpoint)


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
def test_missing_shards_are_named(checkpoint, file):
    (checkpoint / MODEL_SHARDS / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{MODEL_SHARDS}' lacks {file}"):
        load_sharded_model(checkpoint)


def test_shards_that_are_cut_short_or_damaged_are_named(checkpoint):
    path = checkpoint / MODEL_SHARDS / "__0_0.distcp"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    for load in (load_sharded_model, lambda folder: check_shards(folder / MODEL_SHARDS)):
        with pytest.raises(ValueError, match=f"'{path}' is cut short"):
            load(checkpoint)
    path.write_bytes(content[: len(content) // 2].ljust(len(content)))
    with pytest.raises(ValueError, match=f"{MODEL_SHARDS}' is damaged: PytorchStreamReader failed"):
        load_sharded_model(checkpoint)


HEAD = "model.lm.model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        # Its loops see nothing in this table, while lookups find what they like.
        (lambda index: setattr(index, "storage_data", Metadata({})), "one of its tables is a Metadata"),
        (lambda index: setattr(index, "state_dict_metadata", None), "one of its tables is a NoneType"),
        (lambda index: index.state_dict_metadata.update({HEAD: None}), f"{HEAD} is a NoneType"),
        (lambda index: index.state_dict_metadata[HEAD].chunks.clear(), f"a part of {HEAD} is missing"),
        (lambda index: index.storage_data.pop(MetadataIndex(HEAD, (0, 0))), f"MetadataIndex.*{HEAD}"),
        (
            lambda index: setattr(index.storage_data[MetadataIndex(HEAD, (0, 0))], "length", -1),
            f"{HEAD} is nowhere in a file",
        ),
    ],
)
def test_an_index_that_is_not_whole_is_named(checkpoint, spoil, problem):
    path = checkpoint / MODEL_SHARDS / ".metadata"
    index = check_shards(path.parent)
    spoil(index)
    path.write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=f".metadata' is not an index of shards: {problem}"):
        load_sharded_model(checkpoint)


def test_an_index_names_no_file_outside_its_folder(checkpoint):
    path = checkpoint / MODEL_SHARDS / ".metadata"
    index = check_shards(path.parent)
    for info in index.storage_data.values():
        info.relative_path = "../__0_0.distcp"
    path.write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match="it names a file that is not a shard"):
        load_sharded_model(checkpoint)


def test_shards_of_another_model_are_refused(checkpoint, model):
    tiny_speech_lm(hidden_size=32).config.save_pretrained(checkpoint)
    with pytest.raises(ValueError, match="in another shape than config.json says"):
        load_sharded_model(checkpoint)
    tiny_speech_lm(tie_word_embeddings=model.config.tie_word_embeddings, num_hidden_layers=0).config.save_pretrained(
        checkpoint
    )
    with pytest.raises(
        ValueError, match="has model.lm.model.layers.0.input_l.*, which the model of config.json lacks"
    ):
        load_sharded_model(checkpoint)
    model.config.save_pretrained(checkpoint)
    weights = {name: weight for name, weight in model.state_dict().items() if "norm" in name}
    save_shards(checkpoint / MODEL_SHARDS, "model", weights)
    with pytest.raises(ValueError, match="it does not hold the whole model"):
        load_sharded_model(checkpoint)
