"""Cards of published models, from a file with what their paper reports."""

import os
from pathlib import Path

import yaml

from ..evaluation.slamming_results import PUBLISHED
from .model_description import ModelDescription


def describe_published(path: str | os.PathLike) -> dict[str, ModelDescription]:
    r"""
    Read what a paper reports of its models.

    Args:
        path (`str` or `os.PathLike`):
            A YAML file: under `models`, for each card its arguments of [`ModelDescription`], and under `row` the
            model's name in the results table of the Slamming paper, which has the scores; under `common`, the
            arguments that the models share.

    Returns:
        `dict[str, ModelDescription]`: by the name of the card.
    """
    content = yaml.safe_load(Path(path).read_text("utf-8"))
    scores = {row.model: row.scores for row in PUBLISHED}
    return {
        name: ModelDescription(scores=scores[model.pop("row")], **content["common"], **model)
        for name, model in content["models"].items()
    }
