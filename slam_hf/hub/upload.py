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
    Upload a folder in one commit. After an interruption, nothing is published: call it again.

    Args:
        folder (`Path`):
            The folder. Hidden files are left out.
        repo_id (`str`):
            Repository, `user/name`. It is created if it does not exist.
        repo_type (`"model"`, `"dataset"` or `"space"`, *optional*, defaults to `"model"`):
            Type of the repository.
        private (`bool`, *optional*, defaults to `False`):
            Whether only the owner can see the repository.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch. It is created if it does not exist.
        tag (`str`, *optional*):
            Tag for the commit.
        message (`str`, *optional*):
            Commit message.
        delete_patterns (`list[str]`, *optional*):
            Patterns of files that the same commit removes from the repository, unless the folder has them.

    Returns:
        [`~huggingface_hub.CommitInfo`]: the commit.

    Raises:
        PermissionError: there is no token, or it has no write access.
        ValueError: the name of the repository is not valid, a file is a link or contains the token, the tag exists, or
            `private` is set and the repository is public.
        ConnectionError: the Hub did not accept the upload.
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
            raise ValueError(
                f"{repo_id} exists and is public: make it private on its page first, or use another repository."
            )
        if tag is not None and tag in (ref.name for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags):
            raise ValueError(f"{repo_id} has a tag {tag!r} already: choose another name, or delete the tag first.")
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
        raise _explain(error, repo_id) from None  # the server's message may repeat the request
    return commit


def _check_files(folder: Path, token: str) -> None:
    """Refuse links, which an upload would follow, and files that contain the token."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"'{path}' is not a regular file: only such files are published.")
        is_text = path.is_file() and path.suffix not in (".safetensors", ".parquet")
        if is_text and token.encode() in path.read_bytes():
            raise ValueError(
                f"'{path.relative_to(folder)}' holds your token of the Hub: remove the token from the file."
            )


def _explain(error: HTTPError, repo_id: str) -> OSError:
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(
            f"The Hub cannot be reached ({type(error).__name__}): run the same command again later."
        )
    status = error.response.status_code
    if status == 401:
        return PermissionError("The Hub does not know your token: log in again with `hf auth login`.")
    if status == 403:
        return PermissionError(
            f"Your token may not write to {repo_id}: use a token with write access, or a repository of your own."
        )
    reason = re.sub(r"hf_\w+", "<token>", (error.server_message or "no reason given").replace(get_token(), "<token>"))
    return ConnectionError(
        f"The Hub did not accept the upload to {repo_id} (HTTP {status}: {reason}). Run the same command again: files "
        "that it already has are not sent twice."
    )
