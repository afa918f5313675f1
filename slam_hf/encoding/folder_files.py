"""Lists the files below a local or remote folder, with what tells one version of a file from another."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..audio_files import open_file
from ..remote_files import RemoteFileError, local_path, look_at_files, open_filesystem, with_retries
from .recordings import Skipped, SkipReason


MAX_TRANSCRIPT_BYTES = 2**26
"""Maximum size of a text file beside recordings, such as the transcripts of a chapter."""


@dataclass(frozen=True)
class FolderFiles:
    r"""
    The files below a folder.

    Args:
        root (`str`):
            Path or URL of the folder.
        versions (`dict[str, str]`):
            The files, in the order of their paths, which are relative to `root`: size, and time of change or hash.
            Hidden files are not among them.
        irregular (`list[str]`):
            Paths of other things than files and folders, such as named pipes and broken links.
        unreadable (`list[Skipped]`):
            Folders that cannot be read.
    """

    root: str
    versions: dict[str, str]
    irregular: list[str]
    unreadable: list[Skipped]

    def locate(self, path: str) -> str:
        """Path or URL of one of the files."""
        return os.path.join(self.root, path) if local_path(self.root) is not None else f"{self.root}/{path}"

    def parts(self, path: str) -> tuple[str, ...]:
        """Names of the folders above one of the files, from the outermost, and the name of the file."""
        located = self.locate(path)
        return tuple((located if "://" in located else os.path.abspath(located)).split("/"))


def list_files(root: str | os.PathLike) -> FolderFiles:
    r"""
    List the files below a folder.

    Args:
        root (`str` or `os.PathLike`):
            Path of the folder, whose symbolic links are followed, or its URL.

    Raises:
        NotADirectoryError: `root` is not a folder.
        AudioDownloadError: the server could not be reached, or refused the list, in several tries.
        ValueError: `root` is on a web server, which has no list of its files.
    """
    path = local_path(root)
    return _list_remote(os.fsdecode(root).rstrip("/")) if path is None else _list_local(path)


def printable(path: str) -> str:
    """The path, with bytes that are not UTF-8 escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_text(path: str) -> str:
    """The content of a local or remote text file in UTF-8. A `ValueError` says that it is too long or not UTF-8."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size > MAX_TRANSCRIPT_BYTES:
            raise ValueError(f"longer than {MAX_TRANSCRIPT_BYTES} bytes")
        file.seek(0)
        return file.read(size).decode()


def read_versions(paths: Iterable[str]) -> dict[str, str | None]:
    """What tells the present version of each local or remote file from others, or `None` where that is not known."""
    paths = list(dict.fromkeys(paths))
    return dict(zip(paths, look_at_files(_read_version, paths, "Looking at files"), strict=True))


def _read_version(path: str) -> str | None:
    if path.startswith(("http://", "https://")):
        return None
    try:
        if (local := local_path(path)) is not None:
            return _local_version(os.stat(local))
        file_system, inside = open_filesystem(path)
        return _remote_version(with_retries(lambda: file_system.info(inside), repr(path)))
    except (FileNotFoundError, NotADirectoryError, PermissionError, RemoteFileError, ValueError):
        return None  # reported when its turn comes


def _local_version(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _remote_version(info: dict[str, Any]) -> str:
    """Size, and hash or time of change, for which each file system has another name."""
    keys = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "updated", "mtime")
    return f"{info.get('size')} {next((info[key] for key in keys if info.get(key)), None)}"


def _list_remote(root: str) -> FolderFiles:
    if root.startswith(("http://", "https://")):
        raise ValueError(f"{root!r}: a web server has no list of its files. Name them in a manifest.")
    file_system, folder = open_filesystem(root)
    file_system.invalidate_cache()  # of what this process has listed earlier
    try:
        infos = with_retries(lambda: file_system.find(folder, detail=True), repr(root), "could not be listed")
    except FileNotFoundError:
        infos = {}
    start = len(folder.rstrip("/")) + 1
    files = {name[start:]: info for name, info in infos.items() if info["type"] == "file" and len(name) > start}
    if not files:
        raise NotADirectoryError(f"{root!r}: no such folder of recordings.")
    visible = (path for path in sorted(files) if not path.endswith("/") and not is_hidden(path))
    return FolderFiles(root, {path: _remote_version(files[path]) for path in visible}, [], [])


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder above it, is hidden."""
    return any(name.startswith(".") for name in path.split("/"))


def _list_local(root: str) -> FolderFiles:
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{root!r}: no such folder of recordings.")
    versions: dict[str, str] = {}
    irregular: list[str] = []
    unreadable: list[Skipped] = []
    visited = set()
    folders = [""]
    while folders:  # `os.walk` recurses, and fails in a deep folder
        folder = folders.pop()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in visited:  # a link to a folder above
                continue
            visited.add((status.st_dev, status.st_ino))
            subfolders = []
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if entry.name.startswith("."):
                        continue
                    try:
                        status = entry.stat()
                    except OSError:  # a link to itself, or to nothing
                        status = None
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        subfolders.append(path)
                    elif status is not None and stat.S_ISREG(status.st_mode):
                        versions[path.replace(os.sep, "/")] = _local_version(status)
                    else:  # reading a named pipe would wait forever
                        irregular.append(path)
        except OSError as error:
            if not folder:
                raise
            unreadable.append(Skipped(printable(folder), SkipReason.UNREADABLE, f"the folder: {error.strerror}"))
            continue
        folders += sorted(subfolders, reverse=True)
    return FolderFiles(root, dict(sorted(versions.items())), irregular, unreadable)
