"""Writes files so that they are complete or not there at all."""

import errno
import os
import uuid
from pathlib import Path

from .remote_files import local_path, open_filesystem, with_retries


class DiskFullError(OSError):
    """No space is left for the output. No file is half-written, and the job can be continued once there is space."""


def atomic_write(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that, whenever the process is killed, it either has all its content or is as it was before.

    A missing folder is created. A killed process may leave a hidden file beside it, which [`remove_unfinished`]
    removes. [`DiskFullError`] is raised when the disk or the quota is full. `path` may also be the URL of a file in an
    object store, which writes every file like this.
    """
    local = local_path(path)
    if local is None:
        file_system, name = open_filesystem(os.fspath(path))
        return with_retries(lambda: file_system.pipe_file(name, content), repr(path), "could not be written")
    path = Path(local)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                error.errno,
                "No space is left for the output. What is finished is kept: free some space and start the same "
                "command again to continue",
                str(path),
            ) from error
        raise


def remove_unfinished(folder: str | os.PathLike, prefix: str) -> None:
    """Remove what killed processes left of files whose names begin with `prefix`. No process may be writing them."""
    for path in Path(local_path(folder) or os.devnull).glob(f".{prefix}*.{'[0-9a-f]' * 32}"):
        path.unlink()
