"""Remembers the commit that a model was loaded at, which transformers resolves and does not keep."""

import os
import re
from typing import Any

from transformers.utils.hub import resolve_revision


class CommitMixin:
    """For models: after `from_pretrained`, `config._commit_hash` is the commit on the Hub, or `None` for a folder."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        revision: str | None = "main",
        **kwargs: Any,
    ) -> Any:
        access = {key: kwargs[key] for key in ("token", "local_files_only", "cache_dir") if key in kwargs}
        revision = resolve_revision(pretrained_model_name_or_path, revision, **access)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, revision=revision, **kwargs)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        commit = getattr(revision, "resolved", revision)
        is_folder = pretrained_model_name_or_path is None or os.path.isdir(pretrained_model_name_or_path)
        is_commit = not is_folder and re.fullmatch("[0-9a-f]{40}", commit or "")
        model.config._commit_hash = commit if is_commit else None
        return loaded
