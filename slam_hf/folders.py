"""Folders for output, on this machine or in an object store (`s3://`, `hf://` and others of `fsspec`)."""

import os

from fsspec.core import url_to_fs
from fsspec.implementations.dirfs import DirFileSystem


def open_folder(path: str | os.PathLike) -> DirFileSystem:
    """The files of a folder, by their paths in it. What other processes have written since is seen too."""
    file_system, root = url_to_fs(os.fspath(path), use_listings_cache=False)
    return DirFileSystem(root, file_system)
