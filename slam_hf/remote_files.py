"""Reads remote files: `http://`, `https://`, `hf://`, `s3://` and other URLs of `fsspec`."""

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from huggingface_hub import HfApi, HfFileSystem, constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session
from tqdm import tqdm


MAX_DOWNLOAD_BYTES = 2**33
"""Maximum size of a file that is downloaded. A live stream never ends."""

DOWNLOAD_TIMEOUT = 30.0
"""Seconds to wait for an answer of a server, and for each part of it."""

DOWNLOAD_WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further try."""

BLOCK_BYTES = 2**18
"""Size of the first read of a remote file, if the server gives ranges. It holds all of most utterances."""

MAX_BLOCK_BYTES = 2**22
"""Maximum size of a block of a remote file that is read in order. Each block is twice as long as the one before."""

NUM_THREADS = 32
"""Files that are looked at in parallel. Each takes one request or several."""

FILES_AT_ONCE = 1024
"""Files that wait for a thread: each takes memory, and a corpus has hundreds of thousands."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class AudioDownloadError(ConnectionError):
    """A server could not be reached, or refused a file, in several tries. It may give the file later."""


class RemoteFileError(OSError):
    """The server says that there is no such file, or the file is too large."""


def local_path(path: str | os.PathLike) -> str | None:
    """The path of a local file or folder, or `None` for the URL of a remote one."""
    text = os.fsdecode(path)
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    return None if "://" in text else text


def absolute_path(path: str) -> str:
    """The path for processes whose current folder is another, or the URL."""
    local = local_path(path)
    return path.rstrip("/") if local is None else os.path.abspath(local)


def absolute_if_folder(name: str) -> str:
    """The absolute path of a folder, or the name of a repository."""
    return os.path.abspath(name) if os.path.isdir(name) else name


def open_filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path of the URL in it. An `ImportError` says which package is missing."""
    try:
        return fsspec.url_to_fs(url)
    except ImportError as error:
        remedy = "pip install 'slam-hf[s3]'" if url.startswith("s3") else "pip install it"
        raise ImportError(f"{url!r} cannot be read: {error} (`{remedy}`).") from error
    except ValueError as error:  # an unknown protocol
        raise RemoteFileError(str(error)) from error


def pin_revision(url: str) -> str:
    """The URL with the present commit, if it is in a repository on the Hub: these may change during a job."""
    if not url.startswith("hf://"):
        return url
    try:
        resolved = with_retries(lambda: HfFileSystem().resolve_path(url), repr(url))
        if not hasattr(resolved, "revision"):  # a bucket
            return url
        names = {"repo_id": resolved.repo_id, "repo_type": resolved.repo_type, "revision": resolved.revision}
        commit = with_retries(lambda: HfApi().repo_info(**names).sha, repr(url))
    except FileNotFoundError:
        return url
    return f"hf://{replace(resolved, revision=commit).unresolve()}"


def with_retries(action: Callable[[], Result], name: str, failure: str = "could not be downloaded") -> Result:
    """Call a function that uses the network, again if it fails. [`AudioDownloadError`] says that it failed each time.
    [`RemoteFileError`], `FileNotFoundError` and `ImportError` are raised at once."""
    for wait in (*DOWNLOAD_WAITS, None):
        try:
            return action()
        except (RemoteFileError, FileNotFoundError, ImportError, OfflineModeIsEnabled):
            raise
        except Exception as error:  # each library that fetches has its own
            if wait is None:
                detail = str(error).partition("\n")[0] or type(error).__name__
                message = f"{name}: {failure} in {1 + len(DOWNLOAD_WAITS)} tries ({detail})."
                raise AudioDownloadError(f"{message} Start again to continue.") from error
        time.sleep(wait)


def look_at_files(look: Callable[[Item], Result], files: Sequence[Item], desc: str) -> Iterator[Result]:
    """What a function finds out about each file, in order. After two seconds, a bar shows the progress."""
    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(desc=desc, total=len(files), delay=2.0) as bar:
        for first in range(0, len(files), FILES_AT_ONCE):
            for result in pool.map(look, files[first : first + FILES_AT_ONCE]):
                bar.update()
                yield result


def _refusal(error: FileNotFoundError) -> ConnectionError | None:
    """The error of a server that refused a file or could not be reached, which fsspec also raises as a missing file.
    The server may give the file later."""
    cause = error.__cause__
    status = getattr(cause, "status", getattr(getattr(cause, "response", None), "status_code", None))
    if status not in (404, 410) and (status is not None or isinstance(cause, OSError)):
        return ConnectionError(str(cause))
    return None


class RangedFile(io.RawIOBase):
    """
    A file of `size` bytes that is read block by block: `fetch(first, end)` gives its bytes. Blocks grow from
    `block_bytes` to [`MAX_BLOCK_BYTES`] while the file is read in order, but not while a decoder searches in it.

    Decoders read the file in callbacks, which cannot raise. So where `fetch` raises, the file seems to end, and
    `error` keeps the error for the caller of the decoder to raise.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, block_bytes: int, block: bytes = b""):
        self.fetch = fetch
        self.size = size
        self.block_bytes = block_bytes
        self.error: Exception | None = None
        self._block, self._block_start, self._next_bytes, self._position = block, 0, block_bytes, 0

    def window(self, start: int, size: int) -> "RangedFile":
        """A part of the file, as a file of its own."""
        end = min(start + size, self.size)
        return RangedFile(lambda first, last: self.fetch(start + first, start + last), end - start, self.block_bytes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # A damaged header may send a decoder to before the start of the file.
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence])
        return self._position

    def readinto(self, buffer) -> int:
        buffer = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(buffer) and self._position < self.size:
            first = self._position - self._block_start
            if not 0 <= first < len(self._block) and not self._fetch_block():
                break
            first = self._position - self._block_start
            part = self._block[first : first + len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def _fetch_block(self) -> bool:
        if self.error is not None:
            return False
        in_order = self._block and self._position == self._block_start + len(self._block)
        self._next_bytes = min(2 * self._next_bytes, MAX_BLOCK_BYTES) if in_order else self.block_bytes
        end = min(self._position + self._next_bytes, self.size)
        try:
            self._block, self._block_start = self.fetch(self._position, end), self._position
        except (OSError, ValueError) as error:
            self.error = error
            return False
        return len(self._block) > 0


def open_remote(url: str, name: str, stack: ExitStack, block_bytes: int = BLOCK_BYTES) -> BinaryIO | RangedFile:
    r"""
    Open a remote file, which the stack closes: a [`RangedFile`] if the server gives ranges, and otherwise a copy.

    Raises:
        RemoteFileError: there is no such file, or it is too large.
        AudioDownloadError: the server could not be reached, or refused the file, in several tries.
    """
    if url.startswith(("http://", "https://")):
        return with_retries(lambda: _open_http(url, name, stack, block_bytes), name)
    return with_retries(lambda: _open_fsspec(url, name, stack, block_bytes), name)


def write_copy(chunks: Iterator[bytes], stack: ExitStack) -> BinaryIO:
    """A temporary file with this content."""
    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
    for chunk in chunks:
        file.write(chunk)
        if file.tell() > MAX_DOWNLOAD_BYTES:
            raise RemoteFileError(f"longer than {MAX_DOWNLOAD_BYTES} bytes")
    file.seek(0)
    return file


def _open_http(url: str, name: str, stack: ExitStack, block_bytes: int) -> BinaryIO | RangedFile:
    with _get(url, 0, block_bytes) as response:
        if response.status_code == 200:  # the server does not give ranges
            return write_copy(response.iter_bytes(), stack)
        if response.status_code == 416:  # the file is empty
            return io.BytesIO()
        size, tag = _version(response)
        block = _read(response, min(block_bytes, size))

    def fetch(first: int, end: int) -> bytes:
        with _get(url, first, end) as response:
            if response.status_code != 206 or _version(response) != (size, tag):
                raise ConnectionError("the file was changed while it was read")
            return _read(response, end - first)

    return RangedFile(lambda *bounds: with_retries(partial(fetch, *bounds), name), size, block_bytes, block)


@contextmanager
def _get(url: str, first: int, end: int) -> Iterator[Any]:
    """The response to a request for a range of a file."""
    headers = build_hf_headers() if url.startswith(f"{constants.ENDPOINT}/") else {}
    headers |= {"Range": f"bytes={first}-{end - 1}", "Accept-Encoding": "identity"}
    options = {"follow_redirects": True, "timeout": DOWNLOAD_TIMEOUT, "headers": headers}
    with get_session().stream("GET", url, **options) as response:
        if response.status_code in (404, 410):
            raise RemoteFileError(f"no such file: the server answers {response.status_code}")
        if response.status_code not in (200, 206, 416):
            raise ConnectionError(f"the server answers {response.status_code}")
        yield response


def _version(response: Any) -> tuple[int, str | None]:
    """Size and tag of the whole file, of which the response has a range."""
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if match is None:
        raise ConnectionError("the server does not say which range of the file it gives")
    return int(match[1]), response.headers.get("ETag")


def _read(response: Any, size: int) -> bytes:
    """The content of a response, which must have this size: a server may send more than it was asked for."""
    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > size:
            break
    return _check_length(content, size)


def _check_length(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise ConnectionError(f"the server gives {len(content)} in place of {size} bytes")
    return content


def _open_fsspec(url: str, name: str, stack: ExitStack, block_bytes: int) -> BinaryIO | RangedFile:
    try:
        file_system, path = open_filesystem(url)
        file = stack.enter_context(file_system.open(path, "rb", block_size=block_bytes, cache_type="none"))
    except FileNotFoundError as error:
        raise _refusal(error) or RemoteFileError("no such file") from error
    if not isinstance(file, AbstractBufferedFile):
        return write_copy(iter(lambda: file.read(2**20), b""), stack)

    def fetch(first: int, end: int) -> bytes:
        file.seek(first)
        return _check_length(file.read(end - first), end - first)

    return RangedFile(lambda *bounds: with_retries(partial(fetch, *bounds), name), file.size, block_bytes)
