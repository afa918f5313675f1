"""A Hugging Face Hub on the loopback interface, in memory, for the tests that push and load.

The Hub's client reads its environment when it is imported, so those tests run their code in a process of its own:

```python
run_with_hub("import slam_hf; ...", tmp_path)
```

`hf_loopback` is the token of `user`, `hf_reader` one of theirs that may not write, `hf_other` that of someone else.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback_repositories import Account, Hub, HubError, Request


REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ACCOUNTS = {
    "hf_loopback": Account("user", may_write=True, organizations=("org", "slprl", "someone", "facebook", "openai")),
    "hf_reader": Account("user", may_write=False),
    "hf_other": Account("other", may_write=True),
}


def run_with_hub(script: str, cache_dir: Path, timeout: float = 120.0) -> str:
    """Run a Python script against an empty Hub, and return what it prints; its errors are raised with their text."""
    with serve_hub() as hub:
        command = [sys.executable, "-c", script]
        environment = hub_environment(hub, cache_dir)
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    if finished.returncode != 0:
        raise AssertionError(finished.stderr)
    return finished.stdout


def hub_environment(hub: Hub, cache_dir: Path, token: str = "hf_loopback") -> dict[str, str]:
    """The environment variables of a process that speaks to this Hub, and to no other."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache_dir), "HF_TOKEN": token}
    return {**os.environ, **settings, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """An empty Hub that answers at its `url` until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


API = r"/api/(?P<kind>models|datasets|spaces)/" + REPO
ROUTES: list[tuple[str, str, Callable[..., Any], str | None]] = [
    ("GET", r"/api/whoami-v2", Hub.whoami, None),
    ("POST", r"/api/repos/create", Hub.create, None),
    ("DELETE", r"/api/repos/delete", Hub.delete, None),
    ("POST", r"/api/validate-yaml", Hub.validate_card, None),
    ("POST", rf"/(?P<kind>(?:datasets|spaces)/)?{REPO}\.git/info/lfs/objects/batch", Hub.lfs_batch, "write"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Hub.lfs_upload, None),
    ("POST", rf"{API}/preupload/{REVISION}", Hub.preupload, "write"),
    ("POST", rf"{API}/commit/{REVISION}", Hub.commit, "write"),
    ("POST", rf"{API}/branch/(?P<branch>.+)", Hub.create_branch, "write"),
    ("POST", rf"{API}/tag/{REVISION}", Hub.create_tag, "write"),
    ("POST", rf"{API}/paths-info/{REVISION}", Hub.paths_info, "read"),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", Hub.tree, "read"),
    ("GET", rf"{API}/refs", Hub.refs, "read"),
    ("GET", rf"{API}(?:/revision/{REVISION})?", Hub.info, "read"),
]
RESOLVE = re.compile(rf"/(?:(?P<kind>models|datasets|spaces)/)?{REPO}/resolve/{REVISION}/(?P<path>.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        path, body = unquote(url.path), self._read_body()
        hub.requests.append(f"{self.command} {path}")
        try:
            account = self._account()
            file = RESOLVE.fullmatch(path)
            if file is not None and self.command in ("GET", "HEAD"):
                hub.check_access(account, "read", file["kind"], file["repo"])
                self._send_file(*hub.file(file["kind"] or "models", file["repo"], file["revision"], file["path"]))
                return
            for method, pattern, handle, access in ROUTES:
                match = re.fullmatch(pattern, path)
                if match is not None and method == self.command:
                    arguments = {name: value for name, value in match.groupdict().items() if value is not None}
                    if access is not None:
                        hub.check_access(account, access, arguments.get("kind"), arguments["repo"])
                    if handle is Hub.tree:
                        arguments["recursive"] = "true" in url.query.lower()
                    self._send_json(200, handle(hub, Request(body, account), **arguments))
                    return
            raise HubError(404, "NoRoute")
        except HubError as error:
            self._send_json(error.status, error.content, {"X-Error-Code": error.code})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _account(self) -> Account | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in ACCOUNTS:
            raise HubError(401, "Unauthorized", {"error": "Invalid credentials in Authorization header"})
        return ACCOUNTS.get(token)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send_json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send_file(self, commit: str, content: bytes) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, content, headers)
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
