"""Reads the checkpoints that FSDP writes in shards (`SHARDED_STATE_DICT`) without executing their pickles.

`torch.distributed.checkpoint` reads the index of the shards, `.metadata`, with `pickle.load`, and values that are not
tensors with `torch.load(weights_only=False)`. So both are checked before it reads them: the index may refer to nothing
but the classes of an index, and the values must be plain.
"""

import io
import pickle
import re
import warnings
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from accelerate.utils.constants import FSDP_MODEL_NAME, OPTIMIZER_NAME
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from .checkpoint_files import require_files
from .configuration_speech_lm import SpeechLMConfig
from .modeling_speech_lm import SpeechLMForCausalLM


INDEX_NAME = ".metadata"
MODEL_SHARDS, OPTIMIZER_SHARDS = f"{FSDP_MODEL_NAME}_0", f"{OPTIMIZER_NAME}_0"

_METADATA = "torch.distributed.checkpoint.metadata"
_ADMITTED = {
    *(f"{_METADATA}.{name}" for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *(f"{_METADATA}.{name}Metadata" for name in ("BytesStorage", "ChunkStorage", "TensorStorage")),
    f"{_METADATA}.TensorProperties",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
    "torch.Size",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
}


class ShardReader(dcp.FileSystemReader):
    """Reads the shards in a folder, after [`check_shards`]."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return check_shards(Path(self.path))


class _IndexReader(pickle._Unpickler):  # in Python, since the one in C does not let a class check what is set
    dispatch = pickle._Unpickler.dispatch.copy()

    def load_build(self) -> None:
        instance, state = self.stack[-2:]
        names = {field.name for field in fields(instance)} if is_dataclass(instance) else set()
        # The state of `TensorProperties` is a tuple, which its class reads.
        if not (type(instance) is TensorProperties or (type(state) is dict and state.keys() <= names)):
            raise ValueError("it sets attributes that its objects do not have")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_dtype and f"{module}.{name}" not in _ADMITTED:
            raise ValueError(f"it refers to '{module}.{name}', which no index needs")
        return super().find_class(module, name)


def check_shards(folder: Path) -> Metadata:
    """
    Check that a folder of shards is complete and that reading it executes nothing, and return its index. A
    `FileNotFoundError` or `ValueError` names the file.
    """
    path = folder / INDEX_NAME
    require_files(folder, [INDEX_NAME], "The run was killed while it wrote these shards.")
    try:
        with open(path, "rb") as file:
            index = _IndexReader(file).load()
        if not isinstance(index, Metadata):
            raise ValueError(f"it holds a {type(index).__name__}")
        for table in (index.state_dict_metadata, index.storage_data):
            if type(table) is not dict:
                raise ValueError(f"one of its tables is a {type(table).__name__}")
        for name, stored in index.state_dict_metadata.items():
            _check_entry(name, stored, index)
        if any(not re.fullmatch(r"__\d+_\d+\.distcp", info.relative_path) for info in index.storage_data.values()):
            raise ValueError("it names a file that is not a shard")
        if any(info.transform_descriptors for info in index.storage_data.values()):
            raise ValueError("its shards are compressed")
    except Exception as error:  # a damaged pickle raises errors of any kind
        raise ValueError(f"'{path}' is not an index of shards: {error}.") from error
    require_files(folder, sorted({info.relative_path for info in index.storage_data.values()}), "It is incomplete.")
    for info in index.storage_data.values():
        if info.offset + info.length > (folder / info.relative_path).stat().st_size:
            raise ValueError(f"'{folder / info.relative_path}' is cut short.")
    for name, stored in index.state_dict_metadata.items():
        if isinstance(stored, BytesStorageMetadata):
            _check_value(folder, name, index)
    return index


def _check_entry(name: str, stored: Any, index: Metadata) -> None:
    """Check that the parts of a tensor, or a value, are all stored somewhere."""
    parts = [MetadataIndex(name)]
    if isinstance(stored, TensorStorageMetadata):
        parts = [MetadataIndex(name, chunk.offsets) for chunk in stored.chunks if chunk.sizes.numel()]
        if sum(chunk.sizes.numel() for chunk in stored.chunks) != stored.size.numel():
            raise ValueError(f"a part of {name} is missing")
    elif not isinstance(stored, BytesStorageMetadata):
        raise ValueError(f"{name} is a {type(stored).__name__}")
    if any(min(index.storage_data[part].offset, index.storage_data[part].length) < 0 for part in parts):
        raise ValueError(f"{name} is nowhere in a file")


def _check_value(folder: Path, name: str, index: Metadata) -> None:
    try:
        info = index.storage_data[MetadataIndex(name)]
        with open(folder / info.relative_path, "rb") as file:
            file.seek(info.offset)
            content = io.BytesIO(file.read(info.length))
        torch.load(content, map_location="cpu", weights_only=True)  # noqa: TID251 (weights_only)
    except Exception as error:
        reason = str(error).split(".")[0]
        raise ValueError(f"'{folder}' holds a value '{name}' that cannot be read safely: {reason}.") from error


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint holds its model in shards."""
    return (folder / MODEL_SHARDS).is_dir()


def load_sharded_model(checkpoint: Path) -> SpeechLMForCausalLM:
    """
    Load the model of a sharded checkpoint, in float32.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or would execute something, or the shards are not those of the whole model.
    """
    require_files(checkpoint, ["config.json"], "It is that of the model.")
    model = SpeechLMForCausalLM(SpeechLMConfig.from_pretrained(checkpoint))
    state, stored = model.state_dict(), check_shards(checkpoint / MODEL_SHARDS).state_dict_metadata
    for name, tensor in state.items():
        if f"model.{name}" not in stored:
            raise ValueError(
                f"'{checkpoint / MODEL_SHARDS}' lacks {name}: it does not hold the whole model. Shards of a training "
                "with LoRA hold the adapters alone: finish the run, which saves the whole model."
            )
        if getattr(stored[f"model.{name}"], "size", None) != tensor.size():
            raise ValueError(f"'{checkpoint / MODEL_SHARDS}' has {name} in another shape than config.json says.")
    for name in sorted(stored.keys() - {f"model.{name}" for name in state}):
        raise ValueError(f"'{checkpoint / MODEL_SHARDS}' has {name}, which the model of config.json lacks.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        try:
            dcp.load({"model": state}, storage_reader=ShardReader(checkpoint / MODEL_SHARDS), no_dist=True)
        except dcp.CheckpointException as error:
            (reason, _), *_ = error.failures.values()
            raise ValueError(f"'{checkpoint / MODEL_SHARDS}' is damaged: {reason}") from error
    model.tie_weights()
    return model
