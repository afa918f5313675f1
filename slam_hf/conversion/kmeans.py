"""Reads the centroids out of a pickled scikit-learn KMeans without executing the pickle.

A pickle is a program for a small stack machine. Here `pickletools.genops` decodes its instructions, and a machine that
knows only those that build data carries them out. Classes and functions stay names: none is imported or called, and
names that have no business in a KMeans are refused.
"""

import io
import math
import os
import pickletools
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


_ESTIMATORS = {
    f"sklearn.cluster.{module}.{name}" for module in ("_kmeans", "k_means_") for name in ("KMeans", "MiniBatchKMeans")
}
_JOBLIB_ARRAYS = {f"{joblib}.numpy_pickle.NumpyArrayWrapper" for joblib in ("joblib", "sklearn.externals.joblib")}
_NUMPY_ARRAYS = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_RANDOM_STATES = {
    "numpy.random.__RandomState_ctor",
    "numpy.random._mt19937.MT19937",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__randomstate_ctor",
}
_ADMITTED = {
    *_ESTIMATORS,
    *_JOBLIB_ARRAYS,
    *_NUMPY_ARRAYS,
    *_RANDOM_STATES,
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
}
_MAX_DECOMPRESSED = 2**28
"""Bytes that a compressed file may grow to: 256 MiB, some hundred times the largest codebook in use."""


def read_kmeans(path: str | os.PathLike) -> torch.Tensor:
    r"""
    Read the centroids of a `KMeans` or `MiniBatchKMeans` that was saved with `joblib.dump` (or pickled with a protocol
    up to 4).

    Neither scikit-learn nor joblib is needed, and nothing in the file is executed.

    Args:
        path (`str` or `os.PathLike`):
            The file, as it is or compressed with zlib or gzip.

    Returns:
        `torch.FloatTensor` of shape `(num_units, hidden_size)`: the centroids.

    Raises:
        ValueError: the file holds anything else, is damaged, or promises more data than it has.
    """
    try:
        estimator = _Machine(_decompress(Path(path).read_bytes())).run()
        if not isinstance(estimator, _Object) or estimator.name not in _ESTIMATORS:
            raise ValueError("it holds something else")
        return _check_centroids(estimator.state.get("cluster_centers_"))
    except (ValueError, TypeError, AttributeError, LookupError, zlib.error) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a scikit-learn KMeans that is safe to read: {error}") from error


def _decompress(data: bytes) -> bytes:
    if not data.startswith((b"\x78", b"\x1f\x8b")):  # zlib, gzip
        return data
    stream = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    decompressed = stream.decompress(data, _MAX_DECOMPRESSED)
    if not stream.eof:
        raise ValueError(f"the compressed data is cut short, or longer than {_MAX_DECOMPRESSED} bytes")
    return decompressed


def _check_centroids(centroids: Any) -> torch.Tensor:
    if (
        not isinstance(centroids, np.ndarray)
        or centroids.dtype.kind != "f"
        or centroids.ndim != 2
        or not centroids.size
    ):
        raise ValueError("its `cluster_centers_` are no matrix of floating point numbers")
    if not np.isfinite(centroids).all():
        raise ValueError("its `cluster_centers_` hold NaN or infinite numbers")
    return torch.from_numpy(centroids.astype(np.float32, order="C"))


@dataclass
class _Object:
    """A class or function by its name, or what calling it with `args` and setting `state` would have made."""

    name: str
    args: Any = None
    state: Any = None


class _Machine:
    """Carries out the instructions of a pickle, with an `_Object` in place of every object."""

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)
        self.size = len(data)
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self.file):
            self.execute(opcode.name, argument)
        return self.stack.pop()

    def execute(self, instruction: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                push(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                push(argument)
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                push({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[instruction])
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "MARK":
                self.marked.append(self.stack)
                self.stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(instruction[-1])
                self.stack[-size:] = [tuple(self.stack[-size:])]
            case "TUPLE":
                items = self.pop_marked()
                self.stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                items = [pop()] if instruction == "APPEND" else self.pop_marked()
                self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = [pop(-2), pop()] if instruction == "SETITEM" else self.pop_marked()
                self.stack[-1].update(_to_dict(items))
            case "GLOBAL":
                push(_refer_to(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                push(_refer_to(".".join([pop(-2), pop()])))
            case "REDUCE" | "NEWOBJ":
                push(_Object(pop(-2).name, args=pop()))
            case "BUILD":
                push(self.build(pop(-2), pop()))
            case _:
                raise ValueError(f"it uses the pickle instruction {instruction}, which no KMeans needs")

    def pop_marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def build(self, obj: _Object, state: Any) -> _Object | np.ndarray:
        if obj.name in _JOBLIB_ARRAYS:
            return self.read_joblib_array(state)
        if obj.name in _NUMPY_ARRAYS:
            _version, shape, dtype, is_fortran, data = state
            return _to_array(data, shape, dtype, "F" if is_fortran else "C")
        return _Object(obj.name, obj.args, state)

    def read_joblib_array(self, wrapper: dict[str, Any]) -> np.ndarray:
        """The array behind a joblib wrapper: its raw data follow in the file, outside of the pickle."""
        if wrapper.get("numpy_array_alignment_bytes") is not None:  # since joblib 1.2
            self.file.seek(self.file.read(1)[0], os.SEEK_CUR)
        shape, itemsize = wrapper["shape"], _to_dtype(wrapper["dtype"]).itemsize
        left = self.size - self.file.tell()
        if not all(isinstance(length, int) and 0 <= length <= left for length in shape):
            raise ValueError("it has an array with an impossible shape")
        num_bytes = math.prod(shape) * itemsize
        if num_bytes > left:
            raise ValueError(f"it promises an array of shape {shape}, more than the file holds")
        return _to_array(self.file.read(num_bytes), shape, wrapper["dtype"], wrapper["order"])


def _refer_to(name: str) -> _Object:
    if name not in _ADMITTED:
        raise ValueError(f"it refers to {name!r}, which no KMeans needs")
    return _Object(name)


def _to_dict(items: list[Any]) -> dict[str, Any]:
    keys, values = items[::2], items[1::2]
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("it has a dictionary whose keys are no strings")
    return dict(zip(keys, values, strict=True))


def _to_array(data: bytes, shape: tuple[int, ...], dtype: Any, order: str) -> np.ndarray:
    return np.frombuffer(data, _to_dtype(dtype)).reshape(shape, order=order)


def _to_dtype(dtype: Any) -> np.dtype:
    """The number type that a pickled `numpy.dtype` describes, such as `("f4", False, True)` with byte order `"<"`."""
    if not (
        isinstance(dtype, _Object) and dtype.name == "numpy.dtype" and re.fullmatch("[fiub][1248]", dtype.args[0])
    ):
        raise ValueError("it has an array of something other than numbers")
    byte_order = dtype.state[1] if dtype.state else "="
    return np.dtype(dtype.args[0]).newbyteorder(byte_order)
