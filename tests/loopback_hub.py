"""A Hugging Face Hub on the loopback interface, in memory, for the tests that push and load.

The Hub's client reads its environment when it is imported, so those tests run their code in a process of its own:

```python
run_with_hub("import slam_hf; ...", tmp_path)
```
"""

import base64
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
from urllib.parse import parse_qs, unquote, urlsplit


DATE = "2026-01-01T00:00:00.000Z"
PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".flac", ".wav")
REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"


def run_with_hub(script: str, cache_dir: Path, timeout: float = 120.0) -> str:
    """Run a Python script against an empty Hub, and return what it prints; its errors are raised with their text."""
    with serve_hub() as url:
        environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HOME": str(cache_dir),
            "HF_TOKEN": "hf_loopback",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-c", script]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    if finished.returncode != 0:
        raise AssertionError(finished.stderr)
    return finished.stdout


@contextmanager
def serve_hub() -> Iterator[str]:
    """The URL of an empty Hub that answers until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubError(Exception):
    """An answer with the code that the client turns into an exception of its own."""

    def __init__(self, status: int, code: str, content: dict[str, Any] | None = None):
        super().__init__(code)
        self.status = status
        self.code = code
        self.content = {"error": code, **(content or {})}


class Repository:
    """The files of each commit, by path."""

    def __init__(self, private: bool):
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})

    def commit(self, files: dict[str, bytes]) -> str:
        content = repr([list(self.commits), sorted((path, _git_hash(file)) for path, file in files.items())])
        revision = hashlib.sha1(content.encode()).hexdigest()
        self.commits[revision] = files
        return revision

    def resolve(self, revision: str | None) -> tuple[str, dict[str, bytes]]:
        if revision in (None, "main", "HEAD"):
            revision = list(self.commits)[-1]
        if revision not in self.commits:
            raise HubError(404, "RevisionNotFound")
        return revision, self.commits[revision]


class Hub:
    """The requests that the client makes, as methods that return what the answer holds as JSON."""

    def __init__(self, url: str):
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}

    def repository(self, kind: str, repo: str) -> Repository:
        if (kind, repo) not in self.repositories:
            raise HubError(404, "RepoNotFound")
        return self.repositories[kind, repo]

    def whoami(self, body: bytes) -> dict[str, Any]:
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return {"type": "user", "id": "0", "name": "user", "fullname": "user", "orgs": [], "auth": token}

    def create(self, body: bytes) -> dict[str, Any]:
        request = json.loads(body)
        kind = f"{request.get('type') or 'model'}s"
        name = request["name"]
        repo = name if "/" in name else f"{request.get('organization') or 'user'}/{name}"
        created = {"url": f"{self.url}/{PREFIXES[kind]}{repo}", "name": repo, "id": repo}
        if (kind, repo) in self.repositories:
            raise HubError(409, "RepoExists", created)
        private = bool(request.get("private")) or request.get("visibility") == "private"
        self.repositories[kind, repo] = Repository(private)
        return created

    def delete(self, body: bytes) -> dict[str, Any]:
        request = json.loads(body)
        repo = "/".join(filter(None, [request.get("organization"), request["name"]]))
        self.repositories.pop((f"{request.get('type') or 'model'}s", repo), None)
        return {}

    def validate_card(self, body: bytes) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    def lfs_batch(self, body: bytes, repo: str, kind: str | None = None) -> dict[str, Any]:
        objects = []
        for item in json.loads(body)["objects"]:
            upload = {"href": f"{self.url}/lfs/{item['oid']}", "header": {}}
            known = item["oid"] in self.uploads
            objects.append({**item, **({} if known else {"actions": {"upload": upload}})})
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, body: bytes, oid: str) -> dict[str, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubError(400, "WrongHash")
        self.uploads[oid] = body
        return {}

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> dict[str, Any]:
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        files = dict(repository.resolve(revision)[1])
        for line in filter(None, body.splitlines()):
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.uploads[value["oid"]]
                case "deletedFile":
                    files.pop(value["path"], None)
                case "deletedFolder":
                    files = {path: f for path, f in files.items() if not path.startswith(f"{value['path']}/")}
        oid = repository.commit(files)
        url = f"{self.url}/{PREFIXES[kind]}{repo}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def info(self, body: bytes, kind: str, repo: str, revision: str | None = None) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        commit, files = repository.resolve(revision)
        siblings = [{"rfilename": path, "size": len(file), "blobId": _git_hash(file)} for path, file in files.items()]
        described = {"_id": "0", "id": repo, "author": repo.split("/")[0], "private": repository.private}
        counted = {"downloads": 0, "likes": 0, "tags": [], "gated": False, "disabled": False}
        return {**described, **counted, "sha": commit, "createdAt": DATE, "lastModified": DATE, "siblings": siblings}

    def refs(self, body: bytes, kind: str, repo: str) -> dict[str, Any]:
        commit = self.repository(kind, repo).resolve("main")[0]
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
        return {"branches": [branch], "tags": [], "converts": []}

    def tree(
        self, body: bytes, kind: str, repo: str, revision: str, folder: str | None = None, recursive: bool = False
    ) -> list[dict[str, Any]]:
        files = self.repository(kind, repo).resolve(revision)[1]
        prefix = f"{folder}/" if folder else ""
        below = {path: file for path, file in sorted(files.items()) if path.startswith(prefix)}
        if folder and not below:
            raise HubError(404, "EntryNotFound")
        folders = {str(parent) for path in below for parent in Path(path).parents}
        folders = {path for path in folders if path != "." and path.startswith(prefix)}
        entries = [_folder_entry(path) for path in sorted(folders)]
        entries += [_file_entry(path, file) for path, file in below.items()]
        return [entry for entry in entries if recursive or "/" not in entry["path"][len(prefix) :]]

    def paths_info(self, body: bytes, kind: str, repo: str, revision: str) -> list[dict[str, Any]]:
        files = self.repository(kind, repo).resolve(revision)[1]
        is_json = body.startswith(b"{")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
        entries = []
        for path in (path.strip("/") for path in paths):
            if path in files:
                entries.append(_file_entry(path, files[path]))
            elif any(other.startswith(f"{path}/") for other in files):
                entries.append(_folder_entry(path))
        return entries

    def file(self, kind: str, repo: str, revision: str, path: str) -> tuple[str, bytes]:
        commit, files = self.repository(kind, repo).resolve(revision)
        if path not in files:
            raise HubError(404, "EntryNotFound")
        return commit, files[path]


API = r"/api/(?P<kind>models|datasets|spaces)/" + REPO
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", r"/api/whoami-v2", Hub.whoami),
    ("POST", r"/api/repos/create", Hub.create),
    ("DELETE", r"/api/repos/delete", Hub.delete),
    ("POST", r"/api/validate-yaml", Hub.validate_card),
    ("POST", rf"/(?P<kind>(?:datasets|spaces)/)?{REPO}\.git/info/lfs/objects/batch", Hub.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Hub.lfs_upload),
    ("POST", rf"{API}/preupload/{REVISION}", Hub.preupload),
    ("POST", rf"{API}/commit/{REVISION}", Hub.commit),
    ("POST", rf"{API}/paths-info/{REVISION}", Hub.paths_info),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.+))?", Hub.tree),
    ("GET", rf"{API}/refs", Hub.refs),
    ("GET", rf"{API}(?:/revision/{REVISION})?", Hub.info),
]
RESOLVE = re.compile(rf"/(?:(?P<kind>models|datasets|spaces)/)?{REPO}/resolve/{REVISION}/(?P<path>.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        path, body = unquote(url.path), self._read_body()
        try:
            file = RESOLVE.fullmatch(path)
            if file is not None and self.command in ("GET", "HEAD"):
                self._send_file(*hub.file(file["kind"] or "models", file["repo"], file["revision"], file["path"]))
                return
            for method, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, path)
                if match is not None and method == self.command:
                    arguments = {name: value for name, value in match.groupdict().items() if value is not None}
                    if handle is Hub.tree:
                        arguments["recursive"] = "true" in url.query.lower()
                    self._send_json(200, handle(hub, body, **arguments))
                    return
            raise HubError(404, "NoRoute")
        except HubError as error:
            self._send_json(error.status, error.content, {"X-Error-Code": error.code})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

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


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": _git_hash(content), "size": len(content), "path": path}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
