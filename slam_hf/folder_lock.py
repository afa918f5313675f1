"""Keeps two jobs from writing to one folder at the same time."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

_held: set[Path] = set()


class FolderInUseError(OSError):
    """Another job is writing to the folder."""


@contextmanager
def lock_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder for the job of this process, until the `with` block is left or the process dies. It is created
    where it is missing. Of several processes of one job, the main one holds it, and may lock it again.

    The lock is on the file `.lock` in the folder. It is a POSIX record lock, which forked workers do not inherit and
    which NFS passes on to other hosts. Where the file system has no locks, a warning is logged instead. A folder that
    another process holds is a [`FolderInUseError`], a path that leads through a file a `NotADirectoryError`.
    """
    folder = Path(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise NotADirectoryError(f"'{folder}' cannot be a folder: '{file}' is a file.") from None
    if folder in _held:
        yield
        return
    # The file stays: were it removed, a process could lock the removed file and another one the next.
    with open(folder / ".lock", "a+", encoding="utf-8", opener=_open_no_link) as file:
        _lock(file, folder)
        _held.add(folder)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            file.truncate(0)
            _held.remove(folder)


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
