"""Lists the recordings in tar archives, such as the shards of a WebDataset, by reading the headers of their files."""

import json
import os
import re
import tarfile  # noqa: TID251 - nothing is extracted
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from ..audio_files import AudioError, ByteRange, open_file
from ..remote_files import AudioDownloadError, RangedFile, local_path, look_at_files
from .folder_files import FolderFiles, is_hidden, list_files, printable, read_versions
from .listing import AUDIO_EXTENSIONS, may_be_audio
from .recordings import Recording, Skipped, SkipReason, read_labels


MAX_HEADER_BYTES = 2**16
"""Maximum size of a header with a long name or with attributes, which is read into memory."""

MAX_PADDING_BYTES = 2**20
"""Maximum size of the zeros after the end of an archive. An interrupted download may leave many more."""

MAX_MEMBER_BYTES = 2**24
"""Maximum size of the text of a sample."""

BLOCK_BYTES = 2**20
"""Size of a block of a remote archive. Longer files in it are skipped over without being read."""

TEXT_EXTENSIONS = ("txt", "text", "transcript")

_SAMPLE_KEY = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.[^/]*")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive."""

    name: str
    start: int
    size: int

    @property
    def sample(self) -> str:
        """The name up to the first dot, which the files of a sample have in common, as WebDataset defines it."""
        match = _SAMPLE_KEY.fullmatch(self.name)
        return self.name if match is None else match["key"]


def list_tar_files(root: str | os.PathLike) -> FolderFiles:
    """The files below a local or remote folder of tar archives, or a single archive. A `ValueError` says that the
    archive is compressed."""
    name = os.fsdecode(root)
    if name.endswith(_COMPRESSED):
        raise ValueError(f"{name!r} is compressed, and can only be read from its start: decompress it.")
    if not name.endswith(".tar"):
        return list_files(root)
    return FolderFiles(os.path.dirname(name), {os.path.basename(name): str(read_versions([name])[name])}, [], [])


def list_tar_shards(
    root: str | os.PathLike | FolderFiles, text_column: str = "text", label_columns: Mapping[str, str] | None = None
) -> list[Recording | Skipped]:
    r"""
    List the recordings in tar archives.

    Consecutive files whose names are equal up to the first dot are a sample, as in a WebDataset. Its text is that of
    `.txt`, `.text` or `.transcript`, or, in `.json`, of the key `text_column`, where `aligned_text` may have the times
    of words. Texts are given to a sample with one recording only.

    Args:
        root (`str`, `os.PathLike` or [`FolderFiles`]):
            A file that ends in `.tar`, or a folder of such files; or a URL of one.
        text_column (`str`, *optional*, defaults to `"text"`):
            Key of the transcript in JSON.
        label_columns (`dict[str, str]`, *optional*):
            The keys of `speaker` and `style` in JSON, where they are read.

    Returns:
        `list`: [`Recording`] with a [`ByteRange`], whose id is the path of the archive below `root`, `/`, and the name
        of the file in it. [`Skipped`] for archives that are compressed or damaged, where what comes before the damage
        is kept; for links, devices, and names that are absolute or lead out of the archive; and for samples without
        audio or with a malformed text.

    Raises:
        NotADirectoryError: `root` is not a folder.
        AudioDownloadError: a server could not be reached, or refused a file, in several tries.
    """
    folder = root if isinstance(root, FolderFiles) else list_tar_files(root)
    shards = [path for path in folder.versions if path.endswith(".tar")]
    compressed = [path for path in folder.versions if path.endswith(_COMPRESSED)]
    list_shard = partial(_list_shard, folder, text_column, label_columns or {})
    items = list(chain.from_iterable(look_at_files(list_shard, shards, "Listing archives")))
    irregular = [path for path in folder.irregular if path.endswith(".tar")]
    for paths, detail in ((compressed, "compressed: decompress it"), (irregular, "not a regular file")):
        items += (Skipped(printable(path), SkipReason.UNREADABLE, detail) for path in sorted(paths))
    return items + folder.unreadable


def _list_shard(
    folder: FolderFiles, text_column: str, label_columns: Mapping[str, str], shard: str
) -> list[Recording | Skipped]:
    path, shard = folder.locate(shard), printable(shard)
    items: list[Recording | Skipped] = []
    try:
        with open_file(path, BLOCK_BYTES) as file:
            if local_path(path) is None and not isinstance(file, RangedFile):
                raise AudioError(shard, "unreadable", "the server does not give parts of the archive: download it")
            members = _read_members(file, shard, items)
            for _, sample in groupby(members, key=lambda member: member.sample):
                items += _read_sample(file, path, shard, list(sample), text_column, label_columns)
    except AudioError as error:
        items.append(Skipped(shard, SkipReason(error.reason), error.detail))
    return items


def _read_members(file: BinaryIO, shard: str, skipped: list[Recording | Skipped]) -> Iterator[_Member]:
    """The regular files in an archive. Files that are left out, and the place of damage, are added to `skipped`."""
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    headers, last = _Headers(file), None
    try:
        options = {"tarinfo": _Header, "encoding": "utf-8", "errors": "surrogateescape"}
        archive = tarfile.open(fileobj=headers, mode="r:", **options)  # noqa: SIM115
        while (info := archive.next()) is not None:
            archive.members.clear()  # all of them would take much memory
            headers.num_left = MAX_HEADER_BYTES
            if last is not None and info.offset <= last.offset:
                raise tarfile.ReadError("a header leads back")
            if info.isfile() and info.offset_data + info.size > num_bytes:
                raise tarfile.ReadError(f"{printable(info.name)!r} is cut off")
            last = info
            reason = _why_left_out(info)
            if reason is not None and may_be_audio(info.name) and not info.isdir():
                skipped.append(Skipped(f"{shard}/{printable(info.name)}", *reason))
            elif reason is None and not is_hidden(name := info.name.removeprefix("./")):
                yield _Member(name, info.offset_data, info.size)
        if last is None:
            raise tarfile.ReadError("there are no files in the archive")
        if num_bytes - file.tell() > MAX_PADDING_BYTES or file.read(MAX_HEADER_BYTES).strip(b"\0"):
            raise tarfile.ReadError("more follows the end of the archive: it was joined, or never written completely")
    except AudioDownloadError:
        raise
    except (tarfile.TarError, ArithmeticError, EOFError, LookupError, OSError, RecursionError, ValueError) as error:
        where = "nothing could be read" if last is None else f"read up to {printable(last.name)!r}"
        skipped.append(Skipped(shard, SkipReason.CORRUPT, f"{where}: {error}"))


def _why_left_out(info: tarfile.TarInfo) -> tuple[SkipReason, str] | None:
    if not info.isfile() or info.issparse():
        return SkipReason.UNREADABLE, "not a regular file"
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return SkipReason.WRONGLY_NAMED, "the name leads out of the archive"
    if printable(info.name) != info.name:
        return SkipReason.WRONGLY_NAMED, "the name is not UTF-8"
    return None


class _Headers:
    """Gives tarfile the headers of an archive: at most [`MAX_HEADER_BYTES`] for each file in it."""

    def __init__(self, file: BinaryIO):
        self.tell, self.seek, self.file = file.tell, file.seek, file
        self.num_left = MAX_HEADER_BYTES

    def read(self, num_bytes: int) -> bytes:
        self.num_left -= num_bytes
        if not 0 <= num_bytes <= self.num_left + num_bytes:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER_BYTES} bytes")
        return self.file.read(num_bytes)


class _Header(tarfile.TarInfo):
    """A header that raises an error if it is damaged. tarfile would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            detail = f"a damaged header ({error})" if buf else "there is no end marker: it may have been cut off"
            raise tarfile.ReadError(detail) from error


def _read_sample(
    file: BinaryIO,
    path: str,
    shard: str,
    members: list[_Member],
    text_column: str,
    label_columns: Mapping[str, str],
) -> list[Recording | Skipped]:
    audio = [member for member in members if _extension(member.name) in AUDIO_EXTENSIONS]
    if not audio and any(may_be_audio(member.name) for member in members):
        return [Skipped(f"{shard}/{members[0].sample}", SkipReason.WRONGLY_NAMED, "no audio file of this name")]
    items: list[Recording | Skipped] = []
    for member in audio:
        id = f"{shard}/{member.name}"
        try:
            text = {}
            if len(audio) == 1 or label_columns:
                text = _read_text(file, members, text_column, label_columns)
            if len(audio) > 1:
                text = {label: text[label] for label in label_columns}
            items.append(Recording(id, ByteRange(path, member.start, member.size), **text))
        except ValueError as error:
            items.append(Skipped(id, SkipReason.MALFORMED, str(error)))
    return items


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _read_text(
    file: BinaryIO, members: list[_Member], text_column: str, label_columns: Mapping[str, str]
) -> dict[str, Any]:
    """`text`, `aligned_text` and the labels of a sample. A `ValueError` names the file that cannot be read."""
    found: dict[str, Any] = {}
    for member in members:
        extension = _extension(member.name).removeprefix(".")
        if extension != "json" and extension not in TEXT_EXTENSIONS:
            continue
        if member.size > MAX_MEMBER_BYTES:
            raise ValueError(f"its .{extension} has {member.size} bytes")
        file.seek(member.start)
        try:
            content = file.read(member.size).decode("utf-8-sig")
            row = json.loads(content) if extension == "json" else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its .{extension}: {error}") from error
        if extension != "json":
            found["text"] = content.strip()
        elif isinstance(row, dict):
            found = {"text": row.get(text_column), "aligned_text": row.get("aligned_text")} | found
            found |= read_labels(row, label_columns)
        else:
            raise ValueError("its .json is not an object")
    if missing := label_columns.keys() - found.keys():
        raise ValueError(f"no .json with its {min(missing)}")
    return found
