"""The input of a job, listed and probed once: a file that all its tasks read."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_write import atomic_write
from ..audio_files import AudioError, open_file
from ..remote_files import local_path, pin_revision
from ..setting_changes import list_changes
from .dataset_source import open_dataset
from .folder_files import list_files, read_versions
from .ledger import to_parquet
from .listing import list_audio_folder, list_librilight, list_librispeech
from .manifest import read_manifest
from .recordings import Recording, Skipped
from .source_arguments import SourceArguments, VoiceSourceArguments
from .sources import LISTING_SCHEMA, Source, divide_listing, file_source
from .tar_shards import list_tar_files, list_tar_shards


_STATE_KEY = b"slam_hf.source"


def prepare_source(path: str | os.PathLike, args: SourceArguments) -> Source:
    r"""
    List and probe the input of a job, and write what was found to a file, from which [`open_source`] opens it in any
    process. One process calls this before the others start.

    If the file exists, the input is listed again, which is quick. It is probed again only if a file was added, removed
    or changed, as its size and its time of change or hash tell. A job may continue if the recordings have the same
    names, texts, excerpts, sizes, lengths and heads, wherever they are now.

    Args:
        path (`str` or `os.PathLike`):
            Path or URL of the file.
        args ([`SourceArguments`]):
            What to encode.

    Returns:
        [`Source`], as [`open_source`] gives it.

    Raises:
        ValueError: the file holds another input, or is damaged; or the source does not exist or has no recordings.
        AudioDownloadError: a server could not be reached, or refused a file, in several tries.
    """
    args = _absolute(args)
    files, list_recordings = _survey(args)
    survey = hashlib.sha256(
        json.dumps([args.layout, args.chunk_seconds, files, args.label_columns]).encode()
    ).hexdigest()
    stored = _read(path)
    if stored is not None and stored[0]["survey"] == survey:
        return _open(*stored)
    if list_recordings is None:
        source, state = open_dataset(args), {"dataset": asdict(args), "parts": []}
        listing = LISTING_SCHEMA.empty_table()
    else:
        recordings = list_recordings()
        _check_any(recordings, args)
        source = file_source(recordings, args.chunk_seconds)
        state = {"dataset": None, "parts": [[part.num_rows, part.seconds] for part in source.parts]}
        listing = source.parts[0].listing
    state |= {"survey": survey, "identity": source.identity, "chunk_seconds": source.chunk_seconds}
    state = json.loads(json.dumps(state))
    if stored is not None:
        _check_same(path, stored[0], state)
    atomic_write(path, to_parquet(listing.replace_schema_metadata({_STATE_KEY: json.dumps(state).encode()})))
    return source


def open_source(path: str | os.PathLike) -> Source:
    r"""
    Open the input of a job from the file that [`prepare_source`] has written.

    Returns:
        [`Source`], with the same parts in every process.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds a dataset that has changed since.
    """
    stored = _read(path)
    if stored is None:
        raise FileNotFoundError(f"'{path}': the input of the job has not been listed, or the file was removed.")
    return _open(*stored)


def _survey(args: SourceArguments) -> tuple[Any, Callable[[], list[Recording | Skipped]] | None]:
    """What the listing depends on, which is found quickly, and the function that lists the recordings: `None` for a
    dataset."""
    match args.layout:
        case "dataset" | "preference_pairs":
            return asdict(args), None
        case "folder" | "librispeech" | "librilight" if set(args.label_columns.values()) - {"folder"}:
            raise ValueError(
                f"`layout {args.layout}` has no columns: with `speaker_column folder`, the name of the speaker's "
                "folder is the speaker. A manifest may name speakers and styles."
            )
        case "manifest":
            recordings = read_manifest(args.source, args.audio_root, args.label_columns)
            paths = [item.audio for item in recordings if isinstance(item, Recording)]
            return [list(map(asdict, recordings)), read_versions(paths)], lambda: recordings
        case "webdataset":
            folder = list_tar_files(args.source)
            columns = (args.text_column, args.label_columns)
            return [asdict(folder), *columns], lambda: list_tar_shards(folder, *columns)
    listings = {"folder": list_audio_folder, "librispeech": list_librispeech, "librilight": list_librilight}
    folder = list_files(args.source)
    return asdict(folder), lambda: _name_speakers(listings[args.layout](folder), args)


def _name_speakers(recordings: list[Recording | Skipped], args: SourceArguments) -> list[Recording | Skipped]:
    """Give recordings the names of folders as labels, where the arguments ask for it."""
    depth = 2 if args.layout == "folder" else 3  # <speaker>/<chapter or book>/<file>
    return [
        replace(item, **{label: item.audio.split("/")[-depth] for label in args.label_columns})
        if isinstance(item, Recording)
        else item
        for item in recordings
    ]


def _absolute(args: SourceArguments) -> SourceArguments:
    """The arguments with absolute paths, for processes whose current folder is another, and with URLs at their present
    commits."""

    def absolute(path: str | None) -> str | None:
        if path is None or local_path(path) is None:
            return path and pin_revision(path)
        is_name = args.layout in ("dataset", "preference_pairs") and not os.path.exists(path)
        return path if is_name else os.path.join(os.getcwd(), local_path(path))

    return replace(
        args, source=absolute(args.source), audio_root=absolute(args.audio_root), data_dir=absolute(args.data_dir)
    )


def _check_any(recordings: Sequence[Recording | Skipped], args: SourceArguments) -> None:
    """Stop before the folder of the job is claimed for a source, or for a layout, that was named by mistake."""
    if any(isinstance(item, Recording) for item in recordings):
        return
    first = ""
    if recordings:
        first = f" (the first of {len(recordings):,}: '{recordings[0].id}', {recordings[0].detail})"
    raise ValueError(f"'{args.source}' has no recordings for `layout {args.layout}`{first}.")


def _check_same(path: str | os.PathLike, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    keys = ("identity", "chunk_seconds")
    if changes := list_changes({key: earlier[key] for key in keys}, {key: now[key] for key in keys}):
        raise ValueError(
            f"'{path}' was written for another input, or the recordings were changed since. Use that input to "
            "continue, or write to another folder:\n" + "\n".join(changes)
        )


def _open(state: dict[str, Any], table: pa.Table) -> Source:
    if state["dataset"] is not None:
        source = open_dataset(VoiceSourceArguments(**state["dataset"]))
        if json.loads(json.dumps(source.identity)) != state["identity"]:
            name = state["dataset"]["source"]
            raise ValueError(f"The dataset '{name}' has changed since the job began. Write to another folder.")
        return source
    return Source(divide_listing(table, state["parts"]), state["identity"], state["chunk_seconds"])


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], pa.Table] | None:
    """The state and the rows in the file, or `None` where there is none."""
    try:
        with open_file(path) as file:
            content = file.read()
    except AudioError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        return json.loads(table.schema.metadata[_STATE_KEY]), table
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
        detail = str(error).partition("\n")[0]
        raise ValueError(f"'{path}' is damaged ({detail}). Remove it and start the same command again.") from error
