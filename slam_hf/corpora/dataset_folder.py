"""The finished dataset: chunks put together as the shards that `load_dataset` reads, the skip report and the card."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from ..encoding.atomic_write import atomic_write, remove_unfinished
from ..encoding.codec_identity import CodecDescription
from ..encoding.ledger import ChunkRecord, Ledger, to_parquet
from ..encoding.piece_batches import ChunkKey
from ..encoding.recordings import Skipped
from .dataset_card import SplitSummary, make_card


SHARD_SECONDS = 100 * 3600.0
"""Audio in a shard: about 15 MB of Parquet at 25 frames a second."""


def job_folder(output_dir: str | os.PathLike, split: str) -> Path:
    """Where the state of a split's tokenisation is kept: hidden, so that it is no part of the dataset."""
    return Path(output_dir) / ".tokenization" / split


def read_summary(output_dir: str | os.PathLike, split: str) -> SplitSummary | None:
    """Summary of a split, or `None` while it is not finished."""
    path = job_folder(output_dir, split) / "summary.json"
    return SplitSummary(**json.loads(path.read_bytes())) if path.exists() else None


def finish_split(
    output_dir: str | os.PathLike, split: str, ledger: Ledger, codec: CodecDescription, has_pairs: bool
) -> SplitSummary:
    r"""
    Make the shards, the skip report and the card of a split whose chunks are all there.

    Every step gives the same files when it is repeated, so it may be interrupted too.

    Args:
        output_dir (`str` or `os.PathLike`):
            Folder of the dataset.
        split (`str`):
            Name of the split.
        ledger ([`Ledger`]):
            Its chunks.
        codec ([`CodecDescription`]):
            What made the units.
        has_pairs (`bool`):
            Whether the rows are preference pairs.

    Returns:
        [`SplitSummary`]

    Raises:
        ValueError: there is not a single row.
    """
    output_dir = Path(output_dir)
    records = [ledger.records[key] for key in sorted(ledger.records)]
    skipped = [item for record in records for item in record.skipped]
    report = output_dir / "skipped" / f"{split}.jsonl"
    atomic_write(report, "".join(map(_report_line, skipped)).encode())
    reasons = dict(Counter(str(item.reason) for item in skipped).most_common())
    if not any(record.num_rows for record in records):
        raise ValueError(f"Nothing could be tokenised: {reasons}. '{report}' has the details.")
    summary = SplitSummary(
        split=split,
        num_rows=sum(record.num_rows for record in records),
        num_units=sum(record.num_units for record in records),
        num_frames=sum(record.num_frames for record in records),
        seconds=sum(record.seconds for record in records),
        num_bytes=_write_shards(output_dir / "data", split, ledger),
        has_pairs=has_pairs,
        skipped=reasons,
    )
    atomic_write(job_folder(output_dir, split) / "summary.json", json.dumps(asdict(summary), indent=2).encode())
    publish_split(output_dir, split, codec)
    return summary


def publish_split(output_dir: str | os.PathLike, split: str, codec: CodecDescription) -> None:
    """Write the card of the splits that are finished, and remove what is no longer needed of one of them."""
    output_dir = Path(output_dir)
    names = sorted(folder.name for folder in (output_dir / ".tokenization").iterdir())
    summaries = [summary for name in names if (summary := read_summary(output_dir, name)) is not None]
    atomic_write(output_dir / "README.md", make_card(codec, summaries).content.encode())
    shutil.rmtree(job_folder(output_dir, split) / "chunks", ignore_errors=True)
    remove_unfinished(output_dir / "data", f"{split}-")
    remove_unfinished(output_dir / "skipped", f"{split}.")
    remove_unfinished(job_folder(output_dir, split), "")
    remove_unfinished(output_dir, "README.md")


def _write_shards(folder: Path, split: str, ledger: Ledger) -> int:
    """Write the rows of all chunks, and return their size in memory, in bytes."""
    groups = list(_group_chunks(ledger.records))
    num_bytes = 0
    for number, keys in enumerate(groups):
        rows = pa.concat_tables([ledger.read_rows(key) for key in keys])
        num_bytes += rows.nbytes
        atomic_write(folder / f"{split}-{number:05d}-of-{len(groups):05d}.parquet", to_parquet(rows))
    return num_bytes


def _group_chunks(records: dict[ChunkKey, ChunkRecord]) -> Iterator[list[ChunkKey]]:
    """Consecutive chunks with `SHARD_SECONDS` of audio, passing over those without a row."""
    group: list[ChunkKey] = []
    seconds = 0.0
    for key in sorted(records):
        if records[key].num_rows == 0:
            continue
        group.append(key)
        seconds += records[key].seconds
        if seconds >= SHARD_SECONDS:
            yield group
            group, seconds = [], 0.0
    if group:
        yield group


def _report_line(skipped: Skipped) -> str:
    return json.dumps(asdict(skipped), ensure_ascii=False) + "\n"
