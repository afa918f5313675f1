"""Keeps two jobs from writing to one folder at the same time."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .remote_files import local_path


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

_held: set[str] = set()


class FolderInUseError(OSError):
    """Another job is writing to the folder."""


@contextmanager
def lock_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder for the job of this process, until the `with` block is left or the process dies. A missing folder
    is created. If a job has several processes, the main one holds the folder, and may lock it again.

    The lock is on the file `.lock` in the folder. It is a POSIX record lock, which forked workers do not inherit and
    which NFS passes on to other hosts. Where the file system has no locks, as in object stores, a warning is
    logged instead. [`FolderInUseError`] is raised if another process holds the folder, and `NotADirectoryError` if
    the path leads through a file.
    """
    local = local_path(folder)
    key = os.fspath(folder) if local is None else str(Path(local).resolve())
    if key in _held:
        yield
        return
    with _warn(key) if local is None else _lock_local(Path(key)):
        _held.add(key)
        try:
            yield
        finally:
            _held.remove(key)


@contextmanager
def _warn(url: str) -> Iterator[None]:
    logger.warning(f"'{url}' cannot be locked: let no other job write to it.")
    yield


@contextmanager
def _lock_local(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise NotADirectoryError(f"'{folder}' cannot be a folder: '{file}' is a file.") from None
    # The file stays: were it removed, a process could lock the removed file and another one the next.
    with open(folder / ".lock", "a+", encoding="utf-8", opener=_open_no_link) as file:
        _lock(file, folder)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            file.truncate(0)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), mode=0o666)


def _lock(file, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        file.seek(0)
        raise FolderInUseError(
            f"Another job is writing to '{folder}' ({file.read() or 'just started'}). Wait until it ends, or choose "
            "another folder."
        ) from None
    except OSError as error:
        logger.warning(f"'{folder}' cannot be locked ({error.strerror}): let no other job write to it.")
