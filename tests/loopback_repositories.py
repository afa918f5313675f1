"""The repositories of the Hub of `loopback_hub`: what is in them, who may do what, and how the Hub speaks of it."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs


DATE = "2026-01-01T00:00:00.000Z"
PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".flac", ".wav")


@dataclass(frozen=True)
class Account:
    name: str
    may_write: bool
    organizations: tuple[str, ...] = ()

    def belongs_to(self, owner: str) -> bool:
        return owner in (self.name, *self.organizations)


class HubError(Exception):
    """An answer with the code that the client turns into an exception of its own."""

    def __init__(self, status: int, code: str, content: dict[str, Any] | None = None):
        super().__init__(code)
        self.status = status
        self.code = code
        self.content = {"error": code, **(content or {})}


@dataclass
class Request:
    body: bytes
    account: Account | None


class Repository:
    """The files of each commit, by path; and the branches and tags, each the name of a commit."""

    def __init__(self, owner: str, private: bool):
        self.owner = owner
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "main")

    def commit(self, files: dict[str, bytes], branch: str) -> str:
        content = repr([list(self.commits), sorted((path, _git_hash(file)) for path, file in files.items())])
        revision = hashlib.sha1(content.encode()).hexdigest()
        self.commits[revision] = files
        self.branches[branch] = revision
        return revision

    def resolve(self, revision: str | None) -> tuple[str, dict[str, bytes]]:
        if revision in (None, "HEAD"):
            revision = "main"
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound")
        return commit, self.commits[commit]


class Hub:
    """The requests that the client makes, as methods that return what the answer holds as JSON.

    Tests change how it behaves: `refused` is an error for every request that writes, `stalls_after` the number of LFS
    uploads after which it answers no more of them (and sets `stalled`), `damage` is done to files on their way out.
    """

    def __init__(self, url: str):
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refused: HubError | None = None
        self.stalls_after: int | None = None
        self.stalled = threading.Event()

    def repository(self, kind: str, repo: str) -> Repository:
        if (kind, repo) not in self.repositories:
            raise HubError(404, "RepoNotFound")
        return self.repositories[kind, repo]

    def check_access(self, account: Account | None, access: str, kind: str | None, repo: str) -> None:
        """Refuse as the Hub does: it does not tell those who may not see a repository whether it exists."""
        repository = self.repositories.get(((kind or "models").strip("/"), repo))
        if repository is None or (
            repository.private and (account is None or not account.belongs_to(repository.owner))
        ):
            raise HubError(401 if account is None else 404, "RepoNotFound")
        if access == "write":
            self.check_writer(account, repository.owner)

    def check_writer(self, account: Account | None, owner: str) -> None:
        if self.refused is not None:
            raise self.refused
        if account is None:
            raise HubError(401, "Unauthorized")
        if not account.may_write or not account.belongs_to(owner):
            raise HubError(403, "Forbidden")

    def whoami(self, request: Request) -> dict[str, Any]:
        if request.account is None:
            raise HubError(401, "Unauthorized")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        name = request.account.name
        return {"type": "user", "id": "0", "name": name, "fullname": name, "orgs": [], "auth": token}

    def create(self, request: Request) -> dict[str, Any]:
        content = json.loads(request.body)
        kind = f"{content.get('type') or 'model'}s"
        name = content["name"]
        account = request.account
        repo = name if "/" in name else f"{content.get('organization') or (account and account.name)}/{name}"
        owner = repo.split("/")[0]
        self.check_writer(account, owner)
        created = {"url": f"{self.url}/{PREFIXES[kind]}{repo}", "name": repo, "id": repo}
        if (kind, repo) in self.repositories:
            raise HubError(409, "RepoExists", created)
        private = bool(content.get("private")) or content.get("visibility") == "private"
        self.repositories[kind, repo] = Repository(owner, private)
        return created

    def delete(self, request: Request) -> dict[str, Any]:
        content = json.loads(request.body)
        repo = "/".join(filter(None, [content.get("organization"), content["name"]]))
        self.check_writer(request.account, repo.split("/")[0])
        self.repositories.pop((f"{content.get('type') or 'model'}s", repo), None)
        return {}

    def validate_card(self, request: Request) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    def lfs_batch(self, request: Request, repo: str, kind: str | None = None) -> dict[str, Any]:
        objects = []
        for item in json.loads(request.body)["objects"]:
            upload = {"href": f"{self.url}/lfs/{item['oid']}", "header": {}}
            known = item["oid"] in self.uploads
            objects.append({**item, **({} if known else {"actions": {"upload": upload}})})
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, request: Request, oid: str) -> dict[str, Any]:
        if self.stalls_after is not None and len(self.uploads) >= self.stalls_after:
            self.stalled.set()
            threading.Event().wait(30)
            raise HubError(503, "Stalled")
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, "WrongHash")
        self.uploads[oid] = request.body
        return {}

    def preupload(self, request: Request, kind: str, repo: str, revision: str) -> dict[str, Any]:
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(request.body)["files"]
            ]
        }

    def commit(self, request: Request, kind: str, repo: str, revision: str) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        files = dict(repository.resolve(revision)[1])
        for line in filter(None, request.body.splitlines()):
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
        oid = repository.commit(files, revision)
        url = f"{self.url}/{PREFIXES[kind]}{repo}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def info(self, request: Request, kind: str, repo: str, revision: str | None = None) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        commit, files = repository.resolve(revision)
        siblings = [{"rfilename": path, "size": len(file), "blobId": _git_hash(file)} for path, file in files.items()]
        described = {"_id": "0", "id": repo, "author": repo.split("/")[0], "private": repository.private}
        counted = {"downloads": 0, "likes": 0, "tags": [], "gated": False, "disabled": False}
        return {**described, **counted, "sha": commit, "createdAt": DATE, "lastModified": DATE, "siblings": siblings}

    def refs(self, request: Request, kind: str, repo: str) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        branches = _ref_entries("refs/heads", repository.branches)
        return {"branches": branches, "tags": _ref_entries("refs/tags", repository.tags), "converts": []}

    def create_branch(self, request: Request, kind: str, repo: str, branch: str) -> dict[str, Any]:
        repository = self.repository(kind, repo)
        if branch in repository.branches:
            raise HubError(409, "RefExists")
        repository.branches[branch] = repository.resolve(json.loads(request.body or b"{}").get("startingPoint"))[0]
        return {}

    def create_tag(self, request: Request, kind: str, repo: str, revision: str) -> dict[str, Any]:
        repository, name = self.repository(kind, repo), json.loads(request.body)["tag"]
        if name in repository.tags:
            raise HubError(409, "RefExists")
        repository.tags[name] = repository.resolve(revision)[0]
        return {}

    def tree(
        self, request: Request, kind: str, repo: str, revision: str, folder: str | None = None, recursive: bool = False
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

    def paths_info(self, request: Request, kind: str, repo: str, revision: str) -> list[dict[str, Any]]:
        files = self.repository(kind, repo).resolve(revision)[1]
        body = request.body
        paths = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
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


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": _git_hash(content), "size": len(content), "path": path}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _ref_entries(prefix: str, refs: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "ref": f"{prefix}/{name}", "targetCommit": commit} for name, commit in refs.items()]


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
