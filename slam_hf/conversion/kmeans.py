"""Reads the centroids out of a pickled scikit-learn KMeans without executing the pickle.

A pickle is a program that names functions and calls them. This reader replaces them by classes that do nothing, admits
only the names that a KMeans needs, and only a limited number of instructions that build data.
"""

import io
import math
import os
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


_ESTIMATORS = {
    f"sklearn.cluster.{module}.{name}" for module in ("_kmeans", "k_means_") for name in ("KMeans", "MiniBatchKMeans")
}
_JOBLIB_ARRAYS = {f"{joblib}.numpy_pickle.NumpyArrayWrapper" for joblib in ("joblib", "sklearn.externals.joblib")}
_NUMPY_ARRAYS = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_ADMITTED = {
    *_ESTIMATORS,
    *_JOBLIB_ARRAYS,
    *_NUMPY_ARRAYS,
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.random.__RandomState_ctor",
    "numpy.random._mt19937.MT19937",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__randomstate_ctor",
}
_MAX_DECOMPRESSED = 2**28
"""Maximum size of a decompressed file, in bytes: some hundred times the largest codebook in use."""

_INSTRUCTIONS = """
    PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINBYTES
    SHORT_BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM
    SETITEMS MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE NEWOBJ
"""
"""The instructions that build data: no persistent ids, extension codes or old instructions for calls."""

_MAX_INSTRUCTIONS = 20_000
"""Maximum number of instructions, some twenty times what a KMeans needs: an empty list takes one byte in the file and
sixty in memory."""


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
    data = Path(path).read_bytes()
    try:
        estimator = _Reader(_decompress(data)).load()
        if not isinstance(estimator, _Object) or estimator.name not in _ESTIMATORS:
            raise ValueError("it holds something else")
        return _check_centroids(estimator.state.get("cluster_centers_"))
    except Exception as error:  # a damaged pickle can raise nearly any type
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
    is_matrix = isinstance(centroids, np.ndarray) and centroids.ndim == 2 and centroids.size > 0
    if not is_matrix or centroids.dtype.kind != "f":
        raise ValueError("its `cluster_centers_` are no matrix of floating point numbers")
    if not np.isfinite(centroids).all():
        raise ValueError("its `cluster_centers_` hold NaN or infinite numbers")
    return torch.from_numpy(centroids.astype(np.float32, order="C"))


class _Object:
    """Replaces every object of a pickle, and keeps its arguments and its state."""

    name = ""

    def __new__(cls, *args: Any) -> "_Object":
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Instructions(dict):
    """The admitted instructions of an unpickler by their code, which counts them."""

    left = _MAX_INSTRUCTIONS

    def __getitem__(self, instruction: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it has more than {_MAX_INSTRUCTIONS:,} instructions")
        if instruction not in self:
            raise ValueError(f"it uses the pickle instruction {chr(instruction)!r}, which no KMeans needs")
        return super().__getitem__(instruction)


class _Reader(pickle._Unpickler):
    """Based on the unpickler in Python, as in joblib: that in C cannot stop where the data of an array follows."""

    def __init__(self, data: bytes):
        self.file, self.size = io.BytesIO(data), len(data)
        super().__init__(self.file)
        codes = [getattr(pickle, name)[0] for name in _INSTRUCTIONS.split()]
        self.dispatch = _Instructions({code: self.dispatch[code] for code in codes})
        self.dispatch[pickle.BUILD[0]] = _Reader.load_build
        self.dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # the size of the next part is not needed

    def find_class(self, module: str, name: str) -> type[_Object]:
        name = f"{module}.{name}"
        if name not in _ADMITTED:
            raise ValueError(f"it refers to {name!r}, which no KMeans needs")
        return type("_Object", (_Object,), {"name": name})

    def load_build(self) -> None:
        super().load_build()
        built = self.stack[-1]
        if built.name in _JOBLIB_ARRAYS:
            self.stack[-1] = self._read_array(built.state)
        elif built.name in _NUMPY_ARRAYS:
            _version, shape, dtype, is_fortran, data = built.state
            self.stack[-1] = _to_array(data, shape, dtype, "F" if is_fortran else "C")

    def _read_array(self, wrapper: dict[str, Any]) -> np.ndarray:
        """Read the array of a joblib wrapper: its raw data follows in the file, outside of the pickle."""
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


def _to_array(data: bytes, shape: tuple[int, ...], dtype: Any, order: str) -> np.ndarray:
    return np.frombuffer(data, _to_dtype(dtype)).reshape(shape, order=order)


def _to_dtype(dtype: Any) -> np.dtype:
    """The numeric type of a pickled `numpy.dtype`, such as `("f4", False, True)` with byte order `"<"`."""
    is_dtype = isinstance(dtype, _Object) and dtype.name == "numpy.dtype"
    if not is_dtype or not re.fullmatch("[fiub][1248]", dtype.args[0]):
        raise ValueError("it has an array of something other than numbers")
    return np.dtype(dtype.args[0]).newbyteorder(dtype.state[1] if dtype.state else "=")
