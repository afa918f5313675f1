import os
import signal
import subprocess
import sys
from multiprocessing import get_context

import pytest

from slam_hf import folder_lock
from slam_hf.folder_lock import FolderInUseError, lock_folder


HOLD = """
import sys, time
from slam_hf.folder_lock import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / "out"`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_job_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(FolderInUseError, match=f"writing to '{tmp_path}/out' .process {holder.pid} on .*another fold"):
        lock_folder(tmp_path / "out").__enter__()
    with lock_folder(tmp_path / "elsewhere"):
        pass


def test_a_killed_job_leaves_no_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with lock_folder(tmp_path / "out"):
        pass


def test_a_link_to_the_folder_is_the_folder(tmp_path, holder):
    (tmp_path / "link").symlink_to(tmp_path / "out")

    with pytest.raises(FolderInUseError):
        lock_folder(tmp_path / "link").__enter__()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "mine")

    with pytest.raises(OSError, match="symbolic links"):
        lock_folder(tmp_path / "out").__enter__()
    assert (tmp_path / "mine").read_text() == "mine"


def try_to_lock(folder):
    folder_lock._held.clear()  # of the parent
    try:
        with lock_folder(folder):
            os._exit(0)
    except FolderInUseError:
        os._exit(1)


def is_free(folder):
    process = get_context("fork").Process(target=try_to_lock, args=(folder,))
    process.start()
    process.join()
    return process.exitcode == 0


def test_a_folder_is_held_until_the_outermost_block_is_left(tmp_path):
    with lock_folder(tmp_path):
        assert not is_free(tmp_path)
        with lock_folder(tmp_path):
            pass
        assert not is_free(tmp_path)
    assert (tmp_path / ".lock").read_bytes() == b""
    assert is_free(tmp_path)


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(NotADirectoryError, match=f"'{path}' cannot be a folder: '{tmp_path}/file' is a file."):
            lock_folder(path).__enter__()


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "lockf", fail)
    with lock_folder(tmp_path):
        pass

    assert "cannot be locked (No locks available): let no other job write to it." in caplog.text
