"""Folders for output, on this machine or in an object store (`s3://`, `hf://` and others of `fsspec`)."""

import os
from glob import escape

from fsspec.implementations.dirfs import DirFileSystem

from .remote_files import open_filesystem


class _Folder(DirFileSystem):
    def glob(self, path: str) -> list[str]:
        """The files that match a pattern. The name of the folder is not a pattern: it may hold brackets."""
        return self._relpath(self.fs.glob(escape(self.path) + self._join(path).removeprefix(self.path)))


def open_folder(path: str | os.PathLike) -> DirFileSystem:
    """The files of a folder, by their paths in it. What other processes have written until now is seen too."""
    file_system, root = open_filesystem(os.fspath(path))
    file_system.invalidate_cache()
    return _Folder(root, file_system)
