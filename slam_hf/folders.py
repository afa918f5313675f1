"""Folders for output, on this machine or in an object store (`s3://`, `hf://` and others of `fsspec`)."""

import os

from fsspec.implementations.dirfs import DirFileSystem

from .remote_files import open_filesystem


def open_folder(path: str | os.PathLike) -> DirFileSystem:
    """The files of a folder, by their paths in it. What other processes have written until now is seen too."""
    file_system, root = open_filesystem(os.fspath(path))
    file_system.invalidate_cache()
    return DirFileSystem(root, file_system)
