import json

import numpy as np
import pytest
from safetensors.numpy import save

from slam_hf.checkpoint_files import check_content, require_files, weight_files
from slam_hf.loading_utils import read_json


def test_errors_of_json_name_the_file(tmp_path):
    for content, message in (("[1]", "holds a list"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=f"config.json' {message}"):
            read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "config.json") == {"a": 1}


def test_weights_are_one_file_or_those_of_the_index(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks model.safetensors"):
        weight_files(tmp_path)
    content = save({"a": np.zeros(3)})
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}))
    (tmp_path / "model-1.safetensors").write_bytes(content)
    with pytest.raises(FileNotFoundError, match="lacks model-2.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(content)
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    for damaged in (b"", content[:-1], content[:20], b"PK\3\4"):
        (tmp_path / "model-2.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="model-2.safetensors' is damaged or cut short"):
            weight_files(tmp_path)
    for weight_map in ({}, [], None, 3):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ValueError, match="index.json' has no `weight_map`"):
            weight_files(tmp_path)


def test_a_file_that_is_missing_is_not_called_damaged(tmp_path):
    for suffix in (".json", ".safetensors", ".parquet", ".png", ".md"):
        with pytest.raises(FileNotFoundError, match=f"file{suffix}"):
            check_content(tmp_path / f"file{suffix}")
    with pytest.raises(FileNotFoundError, match="lacks a, b. Do so."):
        require_files(tmp_path, ["a", "b"], "Do so.")
