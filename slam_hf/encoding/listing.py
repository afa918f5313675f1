"""Lists the recordings in a folder: any audio files, or the layouts of LibriSpeech and Libri-Light."""

import io
import mimetypes
import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import soundfile

from ..audio_files import AudioError
from ..remote_files import AudioDownloadError, look_at_files
from .folder_files import FolderFiles, list_files, printable, read_text
from .recordings import Recording, Skipped, SkipReason


# A file without a header does not say its sampling rate and encoding.
_FORMATS = {name.lower() for name in soundfile.available_formats()} - {"raw"}
_OTHER_NAMES = {"aif", "aifc", "oga", "opus", "snd", "sph"}
_FFMPEG_FORMATS = {"3gp", "aac", "amr", "m4a", "m4b", "mka", "mkv", "mov", "mp4", "webm", "wma"}
AUDIO_EXTENSIONS = frozenset(f".{name}" for name in _FORMATS | _OTHER_NAMES | _FFMPEG_FORMATS)

# Only the built-in table: with the system's lists, the listing would depend on the machine.
_MIME_TYPES = mimetypes.MimeTypes()

LIBRISPEECH_NAME = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d{4}")


def list_audio_folder(root: str | os.PathLike | FolderFiles) -> list[Recording | Skipped]:
    r"""
    List the audio files below a folder, in the order of their paths.

    Args:
        root (`str`, `os.PathLike` or [`FolderFiles`]):
            The folder, or its URL, such as `s3://bucket/folder` or `hf://datasets/user/name`. Hidden files and files
            whose extension is of another kind (text, tables, images) are ignored. Symbolic links are followed.

    Returns:
        `list`: [`Recording`] with the path relative to `root` as its id, and [`Skipped`] for files that are not named
        as audio or are not regular files, and for folders that cannot be read.

    Raises:
        NotADirectoryError: `root` is not a folder.
        AudioDownloadError: a server could not be reached, or refused the list, in several tries.
    """
    folder = root if isinstance(root, FolderFiles) else list_files(root)
    return [_as_recording(folder, path, id=path) for path in filter(may_be_audio, folder.versions)] + _skipped(folder)


def list_librilight(root: str | os.PathLike | FolderFiles) -> list[Recording | Skipped]:
    """List the recordings of Libri-Light (arXiv 1912.07875), laid out as `<subset>/<speaker>/<book>/<name>.flac`.

    This is [`list_audio_folder`] of the folder that holds the subsets, or of any folder below it. The ids have no
    extension, and audio that is not in a book of a numbered speaker is [`Skipped`] too.
    """
    folder = root if isinstance(root, FolderFiles) else list_files(root)
    recordings: list[Recording | Skipped] = []
    for path in filter(may_be_audio, folder.versions):
        if "".join(folder.parts(path)[-3:-2]).isdecimal():
            recordings.append(_as_recording(folder, path, id=str(PurePosixPath(path).with_suffix(""))))
        else:
            recordings.append(Skipped(printable(path), SkipReason.WRONGLY_NAMED, "not at <speaker>/<book>/<name>"))
    return recordings + _skipped(folder)


def list_librispeech(root: str | os.PathLike | FolderFiles) -> list[Recording | Skipped]:
    """List the utterances of LibriSpeech, laid out as `<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`
    with their texts in `<speaker>-<chapter>.trans.txt` beside them.

    This is [`list_audio_folder`] of the folder that holds the subsets, or of any folder below it. The ids are the
    names of the utterances, and audio that is named otherwise, or missing beside its text, is [`Skipped`] too.
    """
    folder = root if isinstance(root, FolderFiles) else list_files(root)
    recordings = _skipped(folder)
    texts: dict[str, dict[str, str]] = {}
    transcripts = [path for path in folder.versions if path.endswith(".trans.txt")]
    contents = look_at_files(_read_transcript, list(map(folder.locate, transcripts)), "Reading transcripts")
    for path, read in zip(transcripts, contents, strict=True):
        if isinstance(read, str):
            recordings.append(Skipped(printable(path), SkipReason.UNREADABLE, f"the transcript: {read}"))
        else:
            texts[str(PurePosixPath(path).parent)] = read
    for path in filter(may_be_audio, folder.versions):
        chapter, name = PurePosixPath(path).parent, PurePosixPath(path).stem
        match = LIBRISPEECH_NAME.fullmatch(name)
        if match is None or folder.parts(path)[-3:-1] != (match["speaker"], match["chapter"]):
            detail = "not at <speaker>/<chapter>/<speaker>-<chapter>-<number>"
            recordings.append(Skipped(printable(path), SkipReason.WRONGLY_NAMED, detail))
        else:
            text = texts.get(str(chapter), {}).pop(name, None)
            recordings.append(_as_recording(folder, path, id=name, text=text))
    recordings += [
        Skipped(name, SkipReason.UNREADABLE, f"in the transcript of {printable(chapter)}, but there is no such file")
        for chapter, remaining in texts.items()
        for name in remaining
    ]
    return recordings


def parse_librispeech_transcript(lines: Iterable[str]) -> dict[str, str]:
    """Texts of a LibriSpeech chapter by utterance, from the lines of its `.trans.txt` (`<name> <text>`)."""
    lines = (line.lstrip("\ufeff").rstrip("\n") for line in lines)
    return {name: text for name, _, text in (line.partition(" ") for line in lines if line.strip())}


def _read_transcript(path: str) -> dict[str, str] | str:
    """The texts of a chapter, or why they cannot be read."""
    try:
        return parse_librispeech_transcript(io.StringIO(read_text(path), newline=None))
    except AudioDownloadError:
        raise
    except (OSError, ValueError) as error:
        return error.detail if isinstance(error, AudioError) else str(error)


def _as_recording(folder: FolderFiles, path: str, id: str, text: str | None = None) -> Recording | Skipped:
    if printable(path) != path:
        return Skipped(printable(path), SkipReason.WRONGLY_NAMED, "the name is not UTF-8")
    if PurePosixPath(path).suffix.lower() not in AUDIO_EXTENSIONS:
        return Skipped(path, SkipReason.WRONGLY_NAMED, "its extension is not that of an audio format")
    return Recording(id=id, audio=folder.locate(path), text=text)


def may_be_audio(path: str) -> bool:
    """Whether a file is audio by its name, or may be: its extension is not known to be of another kind."""
    if PurePosixPath(path).suffix.lower() in AUDIO_EXTENSIONS:
        return True
    mime_type = _MIME_TYPES.guess_type(path)[0]
    return mime_type is None or mime_type.startswith(("audio/", "video/"))


def _skipped(folder: FolderFiles) -> list[Recording | Skipped]:
    irregular = (path for path in folder.irregular if may_be_audio(path) or path.endswith(".trans.txt"))
    skipped = [Skipped(printable(path), SkipReason.UNREADABLE, "not a regular file") for path in irregular]
    return sorted(skipped + folder.unreadable, key=lambda item: item.id)
