"""Lists the recordings in a folder: any audio files, or the layouts of LibriSpeech and Libri-Light."""

import mimetypes
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import soundfile

from .recordings import Recording, Skipped, SkipReason


# A file without a header does not say its sampling rate and encoding.
_FORMATS = {name.lower() for name in soundfile.available_formats()} - {"raw"}
_OTHER_NAMES = {"aif", "aifc", "oga", "opus", "snd", "sph"}
_FFMPEG_FORMATS = {"3gp", "aac", "amr", "m4a", "m4b", "mka", "mkv", "mov", "mp4", "webm", "wma"}
AUDIO_EXTENSIONS = frozenset(f".{name}" for name in _FORMATS | _OTHER_NAMES | _FFMPEG_FORMATS)

# Only the built-in table: with the system's lists, the listing would depend on the machine.
_MIME_TYPES = mimetypes.MimeTypes()

LIBRISPEECH_NAME = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d{4}")


def list_audio_folder(root: str | os.PathLike) -> list[Recording | Skipped]:
    r"""
    List the audio files below a folder, in the order of their paths.

    Args:
        root (`str` or `os.PathLike`):
            The folder. Hidden files and files whose extension is of another kind (text, tables, images) are ignored.
            Symbolic links are followed.

    Returns:
        `list`: [`Recording`] with the path relative to `root` as its id, and [`Skipped`] for files that are not named
        as audio or are not regular files, and for folders that cannot be read.

    Raises:
        NotADirectoryError: `root` is not a folder.
    """
    paths, skipped = _walk(root)
    return [_as_recording(root, path, id=path) for path in paths if _may_be_audio(path)] + skipped


def list_librilight(root: str | os.PathLike) -> list[Recording | Skipped]:
    """List the recordings of Libri-Light (arXiv 1912.07875), laid out as `<subset>/<speaker>/<book>/<name>.flac`.

    This is [`list_audio_folder`] of the folder that holds the subsets, or of any folder below it. The ids have no
    extension, and audio that is not in a book of a numbered speaker is [`Skipped`] too.
    """
    paths, skipped = _walk(root)
    recordings: list[Recording | Skipped] = []
    for path in filter(_may_be_audio, paths):
        if Path(root).absolute().joinpath(path).parts[-3].isdecimal():
            recordings.append(_as_recording(root, path, id=str(PurePosixPath(path).with_suffix(""))))
        else:
            recordings.append(Skipped(_printable(path), SkipReason.WRONGLY_NAMED, "not at <speaker>/<book>/<name>"))
    return recordings + skipped


def list_librispeech(root: str | os.PathLike) -> list[Recording | Skipped]:
    """List the utterances of LibriSpeech, laid out as `<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`
    with their texts in `<speaker>-<chapter>.trans.txt` beside them.

    This is [`list_audio_folder`] of the folder that holds the subsets, or of any folder below it. The ids are the
    names of the utterances, and audio that is named otherwise, or missing beside its text, is [`Skipped`] too.
    """
    paths, recordings = _walk(root)
    texts: dict[str, dict[str, str]] = {}
    for path in paths:
        if path.endswith(".trans.txt"):
            try:
                with open(os.path.join(root, path), encoding="utf-8") as file:
                    texts[str(PurePosixPath(path).parent)] = parse_librispeech_transcript(file)
            except (OSError, UnicodeDecodeError) as error:
                recordings.append(Skipped(_printable(path), SkipReason.UNREADABLE, f"the transcript: {error}"))
    for path in filter(_may_be_audio, paths):
        chapter, name = PurePosixPath(path).parent, PurePosixPath(path).stem
        match = LIBRISPEECH_NAME.fullmatch(name)
        folders = Path(root).absolute().joinpath(chapter).parts[-2:]
        if match is None or folders != (match["speaker"], match["chapter"]):
            detail = "not at <speaker>/<chapter>/<speaker>-<chapter>-<number>"
            recordings.append(Skipped(_printable(path), SkipReason.WRONGLY_NAMED, detail))
        else:
            text = texts.get(str(chapter), {}).pop(name, None)
            recordings.append(_as_recording(root, path, id=name, text=text))
    recordings += [
        Skipped(name, SkipReason.UNREADABLE, f"in the transcript of {_printable(chapter)}, but there is no such file")
        for chapter, remaining in texts.items()
        for name in remaining
    ]
    return recordings


def parse_librispeech_transcript(lines: Iterable[str]) -> dict[str, str]:
    """Texts of a LibriSpeech chapter by utterance, from the lines of its `.trans.txt` (`<name> <text>`)."""
    lines = (line.lstrip("\ufeff").rstrip("\n") for line in lines)
    return {name: text for name, _, text in (line.partition(" ") for line in lines if line.strip())}


def _as_recording(root: str | os.PathLike, path: str, id: str, text: str | None = None) -> Recording | Skipped:
    if _printable(path) != path:
        return Skipped(_printable(path), SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    if PurePosixPath(path).suffix.lower() not in AUDIO_EXTENSIONS:
        return Skipped(path, SkipReason.WRONGLY_NAMED, "its extension is not that of an audio format")
    return Recording(id=id, audio=os.path.join(root, path), text=text)


def _may_be_audio(path: str) -> bool:
    if PurePosixPath(path).suffix.lower() in AUDIO_EXTENSIONS:
        return True
    mime_type = _MIME_TYPES.guess_type(path)[0]
    return mime_type is None or mime_type.startswith(("audio/", "video/"))


def _printable(path: str) -> str:
    """The path, with bytes that are not UTF-8 escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(root: str | os.PathLike) -> tuple[list[str], list[Recording | Skipped]]:
    """Sorted paths of the files below `root`, relative to it, and what could not be listed."""
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{os.fspath(root)!r}: no such folder of recordings.")
    paths: list[str] = []
    skipped: list[Recording | Skipped] = []
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
                        is_folder, is_file = entry.is_dir(), entry.is_file()
                    except OSError:  # a link to itself
                        is_folder = is_file = False
                    if is_folder:
                        subfolders.append(path)
                    elif is_file:
                        paths.append(path)
                    elif _may_be_audio(path) or path.endswith(".trans.txt"):  # reading a named pipe would wait forever
                        skipped.append(Skipped(_printable(path), SkipReason.UNREADABLE, "not a regular file"))
        except OSError as error:
            if not folder:
                raise
            skipped.append(Skipped(_printable(folder), SkipReason.UNREADABLE, f"the folder: {error.strerror}"))
            continue
        folders += sorted(subfolders, reverse=True)
    return sorted(path.replace(os.sep, "/") for path in paths), sorted(skipped, key=lambda item: item.id)
