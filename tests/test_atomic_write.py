import errno
import os

import pytest

from slam_hf.atomic_write import DiskFullError, atomic_write, remove_unfinished


def test_a_file_is_written_with_its_folder(tmp_path):
    atomic_write(tmp_path / "a" / "b.json", b"content")

    assert (tmp_path / "a" / "b.json").read_bytes() == b"content"
    assert os.listdir(tmp_path / "a") == ["b.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch, code):
    atomic_write(tmp_path / "a.json", b"before")

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError, match="No space is left for the output. What is finished is kept"):
        atomic_write(tmp_path / "a.json", b"after")

    assert (tmp_path / "a.json").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.json"]


def test_other_errors_leave_the_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda source, target: os.stat(tmp_path / "missing"))

    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "a.json", b"content")

    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_leaves_is_removed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(source, target):
        raise Killed

    monkeypatch.setattr(os, "replace", kill)
    for name in ("train-00000.parquet", "test-00000.parquet"):
        with pytest.raises(Killed):
            atomic_write(tmp_path / name, b"content")
    (tmp_path / ".train-mine").touch()

    remove_unfinished(tmp_path, "train-")

    train, test = sorted(os.listdir(tmp_path), reverse=True)
    assert train == ".train-mine"
    assert test.startswith(".test-00000.parquet.")
