"""The results of an evaluation: a record of each item, and a summary that says what was scored with what."""

import json
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

import slam_hf

from ..atomic_write import atomic_write
from ..encoding.codec_identity import CodecDescription
from ..encoding.ledger import to_parquet
from ..fingerprints import hash_code
from ..public_names import public_name
from ..setting_changes import list_changes
from .results_table import read_summary
from .tasks import CONDITIONAL_SCORES, TASKS


@dataclass
class Evaluation:
    """
    A model's results on a benchmark: those of the metric, and one record per item, whose `skipped` says why the item
    does not count, or is `None`. The model is as [`describe_model`] describes it, the data has the `name` of the
    folder and as `hash` the SHA-256 of the names, labels and contents of the items. The codec is the one that made the
    units, if they were made from audio; the settings are everything else that the results depend on.
    """

    task: str
    results: dict[str, Any]
    records: list[dict[str, Any]]
    model: dict[str, str | None]
    data: dict[str, str]
    codec: CodecDescription | None
    settings: dict[str, Any]


def describe_results(evaluation: Evaluation) -> str:
    """The results as people read them: what was skipped, and each score, in percent where it is an accuracy."""
    parts = {name: evaluation.results.get(name, {}) for name in ("continuation", *CONDITIONAL_SCORES)}
    results = evaluation.results | {f"{part} {name}": parts[part][name] for part in parts for name in parts[part]}
    task, scale = TASKS[evaluation.task], TASKS[evaluation.task].scale
    skipped = [record["skipped"] for record in evaluation.records if record["skipped"] is not None]
    lines = [f"skipped: {reason}" for reason in skipped[:10]]
    precision = " The model was in bfloat16." if evaluation.settings.get("dtype") == "bfloat16" else ""
    lines.append(f"{task.heading}: {len(evaluation.records):,} items, {len(skipped):,} of them skipped.{precision}")
    for name, value in results.items():
        if isinstance(value, float):
            digits = 1 if abs(scale * value) >= 10 or scale == 100 else 2
            low, high = (f"{scale * end:.{digits}f}" for end in results[f"{name}_interval"])
            lines.append(f"{name}: {scale * value:.{digits}f}{' %' if scale == 100 else ''} [{low}, {high}]")
        elif isinstance(value, int):
            lines.append(f"{name}: {value:,}")
    return "\n".join(lines)


def check_earlier(
    output_dir: str | os.PathLike, task: str, model: dict[str, str | None], data: str, settings: dict[str, Any]
) -> None:
    """Raise a `ValueError` if a folder has the results of a task with other settings, on other data or of another
    model, which the new ones would replace. Those of a model that has been trained again since are replaced."""
    path = Path(output_dir, f"{task}.json")
    if not path.is_file():
        return
    earlier = read_summary(path)
    before, now = {"data": earlier["data"]["name"]}, {"data": public_name(data)}
    before |= {"dtype": "float32", "ban_text": False} | earlier["settings"]
    now |= {"ban_text": False} | settings
    if earlier["model"]["weights"] != model["weights"]:
        before, now = before | {"model": earlier["model"]["name"]}, now | {"model": model["name"]}
    if changes := list_changes(*({name: values[name] for name in before.keys() & now} for values in (before, now))):
        raise ValueError(
            f"'{path}' has the results of another evaluation, which would be replaced. Name another `output_dir`, or "
            "remove it:\n" + "\n".join(changes)
        )


def save_evaluation(
    evaluation: Evaluation, output_dir: str | os.PathLike, num_parameters: int, training_tokens: float | None = None
) -> Path:
    r"""
    Write `{task}.parquet` with the records and `{task}.json` with the summary.

    Args:
        evaluation ([`Evaluation`]):
            The results.
        output_dir (`str` or `os.PathLike`):
            Where to write.
        num_parameters (`int`):
            Size of the model.
        training_tokens (`float`, *optional*):
            Number of tokens that the model was trained on.

    Returns:
        `Path` of the summary.
    """
    summary = {
        "task": evaluation.task,
        "results": evaluation.results,
        "num_items": len(evaluation.records),
        "num_skipped": sum(record["skipped"] is not None for record in evaluation.records),
        "model": {**evaluation.model, "num_parameters": num_parameters, "training_tokens": training_tokens},
        "data": evaluation.data,
        "codec": evaluation.codec and asdict(evaluation.codec),
        "settings": evaluation.settings,
        "code": {"slam_hf": slam_hf.__version__, "hash": hash_code()}
        | {name: metadata.version(name) for name in ("torch", "transformers")},
    }
    columns = dict.fromkeys(column for record in evaluation.records for column in record)
    records = pa.table({column: [record.get(column) for record in evaluation.records] for column in columns})
    # The type of a column without values cannot be inferred: `skipped`, if nothing was.
    fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in records.schema]
    path = Path(output_dir, f"{evaluation.task}.json")
    atomic_write(path.with_suffix(".parquet"), to_parquet(records.cast(pa.schema(fields))))
    atomic_write(path, (json.dumps(summary, indent=2) + "\n").encode())
    return path
