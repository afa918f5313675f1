import contextlib
import copyreg
import functools
import gzip
import os
import pickle
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from slam_hf.conversion import kmeans as kmeans_module
from slam_hf.conversion import read_kmeans


FIXTURE = Path(__file__).parent / "fixtures" / "hubert-25hz" / "kmeans.bin"


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_centroids_are_those_that_joblib_loads():
    joblib = pytest.importorskip("joblib")
    expected = joblib.load(FIXTURE).cluster_centers_
    centroids = read_kmeans(FIXTURE)
    assert centroids.dtype == torch.float32
    assert centroids.shape == (50, 48)
    assert torch.equal(centroids, torch.from_numpy(expected))


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)], ids=str)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("estimator", ["KMeans", "MiniBatchKMeans"])
def test_joblib_files_of_every_kind(features, tmp_path, estimator, protocol, compress):
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    estimator = getattr(cluster, estimator)(5, n_init=1, max_iter=2, random_state=np.random.RandomState(0)).fit(
        features
    )
    joblib.dump(estimator, tmp_path / "km.bin", compress=compress, protocol=protocol)
    assert torch.equal(read_kmeans(tmp_path / "km.bin"), torch.from_numpy(estimator.cluster_centers_))


def test_double_precision_in_fortran_order_and_a_plain_pickle(features, tmp_path):
    cluster = pytest.importorskip("sklearn.cluster")
    estimator = cluster.KMeans(5, n_init=1, max_iter=2).fit(features)
    estimator.cluster_centers_ = np.asfortranarray(estimator.cluster_centers_, dtype=">f8")
    expected = torch.from_numpy(estimator.cluster_centers_.astype(np.float32, order="C"))
    pytest.importorskip("joblib").dump(estimator, tmp_path / "km.bin")
    assert torch.equal(read_kmeans(tmp_path / "km.bin"), expected)
    write(tmp_path / "km.pkl", pickle.dumps(estimator, protocol=4))
    assert torch.equal(read_kmeans(tmp_path / "km.pkl"), expected)


def test_neither_scikit_learn_nor_joblib_is_needed(monkeypatch):
    for name in ("sklearn", "sklearn.cluster", "joblib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read_kmeans(FIXTURE).shape == (50, 48)


class Call:
    """Pickles to a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def text(value: str) -> bytes:
    """The pickle instruction that puts `value` on the stack."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HOSTILE = {
    "os.system": lambda target: pickle.dumps(Call(os.system, f"touch {target}")),
    "eval": lambda target: pickle.dumps(Call(eval, f"open({str(target)!r}, 'w')"), protocol=2),
    "protocol 0": lambda target: pickle.dumps(Call(os.system, f"touch {target}"), protocol=0),
    "in a state": lambda target: pickle.dumps({"cluster_centers_": [Call(os.system, f"touch {target}")]}),
    "partial": lambda target: pickle.dumps(Call(functools.partial(os.system, f"touch {target}"))),
    "INST": lambda target: b"(" + text(f"touch {target}") + b"ios\nsystem\n.",
    "OBJ": lambda target: b"(cos\nsystem\n" + text(f"touch {target}") + b"o.",
    "STACK_GLOBAL": lambda target: text("os") + text("system") + b"\x93" + text(f"touch {target}") + b"\x85R.",
    "EXT1": lambda target: b"\x82\xf0" + text(f"touch {target}") + b"\x85R.",
}


@pytest.fixture
def extension_registry():
    copyreg.add_extension("os", "system", 0xF0)
    yield
    copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.parametrize("compress", [bytes, zlib.compress, gzip.compress])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_and_not_executed(tmp_path, extension_registry, name, compress):
    content = HOSTILE[name](tmp_path / "executed")
    path = write(tmp_path / "km.bin", compress(content))
    with pytest.raises(ValueError, match="km.bin' is not a scikit-learn KMeans that is safe to read"):
        read_kmeans(path)
    assert not (tmp_path / "executed").exists()
    with contextlib.suppress(Exception):
        pickle.loads(content)
    assert (tmp_path / "executed").exists(), "the pickle was harmless"


@pytest.mark.parametrize("where", ["init", "cluster_centers_"])
def test_hostile_objects_in_a_true_kmeans_are_refused_and_not_executed(features, tmp_path, where):
    joblib, cluster = pytest.importorskip("joblib"), pytest.importorskip("sklearn.cluster")
    estimator = cluster.KMeans(5, n_init=1, max_iter=2).fit(features)
    hostile = Call(os.system, f"touch {tmp_path / 'executed'}")
    setattr(estimator, where, np.array([hostile], dtype=object) if where == "cluster_centers_" else hostile)
    joblib.dump(estimator, tmp_path / "km.bin")
    with pytest.raises(ValueError, match=r"posix.system|something other than numbers"):
        read_kmeans(tmp_path / "km.bin")
    assert not (tmp_path / "executed").exists()
    joblib.load(tmp_path / "km.bin")
    assert (tmp_path / "executed").exists(), "the file was harmless"


def test_functions_of_numpy_that_read_files_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([Call(os.system, f"touch {tmp_path / 'executed'}")]), allow_pickle=True)
    content = pickle.dumps(Call(np.load, str(tmp_path / "objects.npy"), None, True))
    with pytest.raises(ValueError, match="refers to 'numpy.load'"):
        read_kmeans(write(tmp_path / "km.bin", content))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K2K0\x86", b"M\xff\x1fM\xff\x1f\x86", "more than the file holds"),
        (b"K2K0\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", "impossible shape"),
        (b"K2K0\x86", b"K2J\xd0\xff\xff\xff\x86", "impossible shape"),
        (b"K2K0\x86", b"J\xce\xff\xff\xffJ\xd0\xff\xff\xff\x86", "impossible shape"),
        (b"K2K0\x86", b"J\xff\xff\xff\x7fK0\x85\x86", "impossible shape"),
        (b"K2K0\x86", b"K2K\x08K\x06\x87", "no matrix of floating point numbers"),
        (b"K2K0\x86", b"K2\x85", "is not a scikit-learn KMeans"),
        (b"K2K0\x86", b"N", "is not a scikit-learn KMeans"),
        (b"\x8c\x02f4", b"\x8c\x02O8", "something other than numbers"),
        (b"\x8c\x02f4", b"\x8c\x02i4", "no matrix of floating point numbers"),
        (b"KMeans", b"KMedia", "refers to 'sklearn.cluster._kmeans.KMedia'"),
        (b"cluster_centers_", b"cluster_middles_", "no matrix of floating point numbers"),
        (b"\x64\xca\x6d\xbe", b"\x00\x00\xc0\x7f", "hold NaN"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, old, new, message):
    content = FIXTURE.read_bytes()
    assert content.count(old) == 1
    with pytest.raises(ValueError, match=message):
        read_kmeans(write(tmp_path / "km.bin", content.replace(old, new)))


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
def test_truncated_files_are_refused(tmp_path, compress):
    content = compress(FIXTURE.read_bytes())
    for length in [*range(40), *range(40, len(content), 331)]:
        with pytest.raises(ValueError, match="is not a scikit-learn KMeans"):
            read_kmeans(write(tmp_path / "km.bin", content[:length]))


@pytest.mark.parametrize(
    "content", [None, 3, "text", [1.5], {"cluster_centers_": 1}, {1: 2}, np.ones((3, 2))], ids=str
)
def test_other_pickles_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match="is not a scikit-learn KMeans"):
        read_kmeans(write(tmp_path / "km.bin", pickle.dumps(content, protocol=4)))


def test_compressed_files_may_not_grow_without_bound(tmp_path, monkeypatch):
    path = write(tmp_path / "km.bin", zlib.compress(FIXTURE.read_bytes()))
    assert read_kmeans(path).shape == (50, 48)
    monkeypatch.setattr(kmeans_module, "_MAX_DECOMPRESSED", 10_000)
    with pytest.raises(ValueError, match="longer than 10000 bytes"):
        read_kmeans(path)


BOMBS = {
    "lists": b"]" * 10**7,
    "lists in a frame": b"\x80\x04\x95" + struct.pack("<Q", 10**7) + b"]" * 10**7,
    "nested lists": b"](" * 10**6 + b"e" * 10**6 + b".",
    "a memo of a billion": b"]r\xff\xff\xff\x3f.",
    "a number of ten million digits": b"I" + b"9" * 10**7 + b"\n.",
    "bytes of an exabyte": b"\x8e" + struct.pack("<Q", 2**60) + b"x",
    "an array of bytes of an exabyte": b"\x96" + struct.pack("<Q", 2**60) + b"x",
    "a string of 2 GB": b"X\xff\xff\xff\x7fx",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"].",
    "tuples that double": b")" + b"2\x86" * 15_000 + b".",
}


@pytest.mark.parametrize("compress", [bytes, zlib.compress])
@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_bounded_by_the_file(tmp_path, name, compress):
    path = write(tmp_path / "km.bin", compress(BOMBS[name]))
    tracemalloc.start()
    with pytest.raises(ValueError, match="km.bin' is not a scikit-learn KMeans that is safe to read"):
        read_kmeans(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * len(BOMBS[name]) + 2**24


def test_an_extension_that_the_process_has_cached_is_not_called(tmp_path, extension_registry):
    content = HOSTILE["EXT1"](tmp_path / "executed")
    pickle.loads(content)
    (tmp_path / "executed").unlink()
    with pytest.raises(ValueError, match="which no KMeans needs"):
        read_kmeans(write(tmp_path / "km.bin", content))
    assert not (tmp_path / "executed").exists()
