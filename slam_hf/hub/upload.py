"""Publishes a folder as one commit on the Hub."""

import re
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id


def publish_folder(
    folder: Path,
    repo_id: str,
    repo_type: Literal["model", "dataset", "space"] = "model",
    private: bool = False,
    revision: str = "main",
    tag: str | None = None,
    message: str = "Upload with slam-hf",
    delete_patterns: list[str] | None = None,
) -> CommitInfo:
    r"""
    Upload a folder in one commit, which is there whole or not at all: interrupted, start it again.

    Args:
        folder (`Path`):
            The folder. Hidden files stay where they are.
        repo_id (`str`):
            Repository, `user/name`. It is created where there is none.
        repo_type (`"model"`, `"dataset"` or `"space"`, *optional*, defaults to `"model"`):
            What it is.
        private (`bool`, *optional*, defaults to `False`):
            Whether only its owner may see it.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch. It is created where there is none.
        tag (`str`, *optional*):
            Name to give to the commit.
        message (`str`, *optional*):
            Message of the commit.
        delete_patterns (`list[str]`, *optional*):
            Files that the same commit removes from the repository unless the folder has them.

    Returns:
        [`~huggingface_hub.CommitInfo`]: the commit.

    Raises:
        PermissionError: there is no token, or it may not write there.
        ValueError: the name is not that of a repository, a file is a link or holds the token, the tag is taken, or the
            repository should be private and exists in public.
        ConnectionError: the Hub did not take the upload.
    """
    validate_repo_id(repo_id)
    token = get_token()
    if token is None:
        raise PermissionError(
            "You are not logged in to the Hub: run `hf auth login`, or set `HF_TOKEN` to a token with write access."
        )
    _check_files(folder, token)
    api = HfApi()
    try:
        space_sdk = "gradio" if repo_type == "space" else None
        repo_id = api.create_repo(
            repo_id, repo_type=repo_type, private=private, space_sdk=space_sdk, exist_ok=True
        ).repo_id
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise ValueError(f"{repo_id} exists and is public: make it private on its page first, or take another.")
        if tag is not None and tag in (ref.name for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags):
            raise ValueError(f"{repo_id} has a tag {tag!r} already: take another name, or delete it first.")
        if revision != "main":
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type=repo_type,
            revision=revision,
            commit_message=message,
            ignore_patterns=[".*", "*/.*"],
            delete_patterns=delete_patterns,
        )
        if tag is not None:
            api.create_tag(repo_id, tag=tag, revision=commit.oid, repo_type=repo_type)
    except HTTPError as error:
        raise _explain(error, repo_id) from None  # what the server says may repeat what it was sent
    return commit


def _check_files(folder: Path, token: str) -> None:
    """Refuse links, which an upload would follow, and files of text that hold the token."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"'{path}' is not a regular file: only such files are published.")
        is_text = path.is_file() and path.suffix not in (".safetensors", ".parquet")
        if is_text and token.encode() in path.read_bytes():
            raise ValueError(f"'{path.relative_to(folder)}' holds your token of the Hub: remove it from the file.")


def _explain(error: HTTPError, repo_id: str) -> OSError:
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(f"The Hub cannot be reached ({type(error).__name__}): start the same command again.")
    status = error.response.status_code
    if status == 401:
        return PermissionError("The Hub does not know your token: log in again with `hf auth login`.")
    if status == 403:
        return PermissionError(
            f"Your token may not write to {repo_id}: take one with write access, or a repository of your own."
        )
    reason = re.sub(r"hf_\w+", "<token>", (error.server_message or "no reason given").replace(get_token(), "<token>"))
    return ConnectionError(
        f"The Hub did not take the upload to {repo_id} (HTTP {status}: {reason}). Start the same command again: files "
        "that it already has are not sent twice."
    )
