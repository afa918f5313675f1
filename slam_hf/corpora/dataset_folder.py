"""The finished dataset: chunks put together as the shards that `load_dataset` reads, the skip report and the card."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

import pyarrow as pa

from ..atomic_write import atomic_write, remove_unfinished
from ..encoding.codec_identity import CodecDescription
from ..encoding.job_state import check_files, hash_content, load_summary, save_summary
from ..encoding.ledger import ChunkKey, Ledger, to_parquet
from ..encoding.recordings import Skipped, count_reasons, list_reasons, skip_report
from ..encoding.sources import Part, in_chunks
from ..folders import open_folder
from .dataset_card import SplitSummary, make_card
from .preference_pairs import pair_rows
from .schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES


SHARD_SECONDS = 100 * 3600.0
"""Audio in a shard: about 15 MB of Parquet at 25 frames a second."""


def job_folder(output_dir: str | os.PathLike, split: str) -> str:
    """Folder for the state of a split's tokenisation: hidden, so that it is not part of the dataset."""
    return f"{os.fspath(output_dir)}/.tokenization/{split}"


def read_summary(output_dir: str | os.PathLike, split: str) -> SplitSummary | None:
    """Summary of a split, or `None` while it is not finished."""
    return load_summary(job_folder(output_dir, split), SplitSummary)


def check_vacant(
    output_dir: str | os.PathLike, split: str, state: str = ".tokenization", job: str = "tokenisation"
) -> None:
    """Raise `FileExistsError` if a job would replace files that are not its own, and `ValueError` if `load_dataset`
    does not take the name of the split. `state` is the folder that jobs of this kind keep their state in."""
    if not re.fullmatch(r"\w+(\.\w+)*", split):
        raise ValueError(f"A split needs a name of letters and digits, such as 'train', not {split!r}.")
    files = open_folder(output_dir)
    foreign = []
    if not files.glob(f"{state}/*"):
        foreign += files.glob("README.md")
    if not files.exists(f"{state}/{split}"):
        foreign += [*sorted(files.glob(f"data/{split}-*")), *files.glob(f"skipped/{split}.jsonl")]
    if foreign:
        names = ", ".join(foreign[:3])
        raise FileExistsError(
            f"'{output_dir}' holds files that no {job} of '{split}' has written, and that this one would "
            f"replace or be mixed up with: {names}{', ...' if len(foreign) > 3 else ''}. Choose another folder, or "
            "move them away."
        )


def write_split(
    output_dir: str | os.PathLike,
    split: str,
    ledger: Ledger,
    parts: Sequence[Part],
    has_pairs: bool,
) -> SplitSummary:
    """Write the shards, the skip report and the summary of a split whose chunks are all there. Every step gives the
    same files when it is repeated, so it may be interrupted too. A `ValueError` says that chunks are missing, or that
    there is not a single row."""
    keys = ledger.finished(parts)
    records = [ledger.records[key] for key in keys]
    filled, skipped, num_rows = [], [], 0
    for key, record in zip(keys, records, strict=True):
        rows, left_out = record.num_rows, record.skipped
        if has_pairs:
            pairs, left_out = _read_pairs(ledger, key)
            rows = len(pairs)
        if rows:
            filled.append(key)
        num_rows += rows
        skipped += left_out
    output_dir = os.fspath(output_dir)
    report = f"{output_dir}/skipped/{split}.jsonl"
    lines = skip_report(skipped)
    atomic_write(report, lines)
    reasons = count_reasons(skipped)
    if not records:
        raise ValueError("There are no recordings in the source.")
    if not filled:
        raise ValueError(f"Nothing could be tokenised: {list_reasons(reasons)}. '{report}' has the details.")
    schema = (PREFERENCE_FEATURES if has_pairs else UNIT_CORPUS_FEATURES).arrow_schema
    groups = group_chunks(ledger, filled)
    shards = (
        pa.concat_tables(
            (_read_pairs(ledger, key)[0] if has_pairs else ledger.read_rows(key)).cast(schema) for key in group
        )
        for group in groups
    )
    num_bytes, hashes = write_shards(output_dir, f"data/{split}", shards, len(groups))
    summary = SplitSummary(
        split=split,
        num_rows=num_rows,
        num_units=sum(record.num_units for record in records),
        num_frames=sum(record.num_frames for record in records),
        seconds=sum(record.seconds for record in records),
        num_bytes=num_bytes,
        has_pairs=has_pairs,
        skipped=reasons,
        files={f"skipped/{split}.jsonl": hash_content(lines), **hashes},
    )
    save_summary(job_folder(output_dir, split), summary)
    return summary


def publish_split(output_dir: str | os.PathLike, split: str, codec: CodecDescription) -> None:
    """Write the card of all finished splits, and remove what this split no longer needs. A `ValueError` names a
    damaged file of the split."""
    files, output_dir = open_folder(output_dir), os.fspath(output_dir)
    state, written = f"{job_folder(output_dir, split)}/summary.json", read_summary(output_dir, split).files
    # The summary of an earlier version names no files.
    check_files(output_dir, {name: None for name in files.glob(f"data/{split}-*.parquet") if written} | written, state)
    write_card(output_dir, ".tokenization", codec)
    with suppress(OSError):  # there are none, or a task that came too late still writes one
        files.rm(f".tokenization/{split}/chunks", recursive=True)
    remove_unfinished(f"{output_dir}/data", f"{split}-")
    remove_unfinished(f"{output_dir}/skipped", f"{split}.")
    remove_unfinished(job_folder(output_dir, split), "")
    remove_unfinished(output_dir, "README.md")


def _read_pairs(ledger: Ledger, key: ChunkKey) -> tuple[pa.Table, list[Skipped]]:
    """The pairs of a chunk, and everything that is left out of it."""
    skipped = ledger.records[key].skipped
    pairs, incomplete = pair_rows(ledger.read_rows(key).to_pylist(), skipped)
    return pa.Table.from_pylist(pairs, schema=PREFERENCE_FEATURES.arrow_schema), [*skipped, *incomplete]


def write_card(output_dir: str, state: str, codec: CodecDescription) -> None:
    """Write the card of all finished splits. `state` is the folder that jobs of this kind keep their state in."""
    paths = sorted(open_folder(output_dir).glob(f"{state}/*/summary.json"))
    splits = [load_summary(f"{output_dir}/{os.path.dirname(path)}", SplitSummary) for path in paths]
    atomic_write(f"{output_dir}/README.md", make_card(codec, splits).content.encode())


def write_shards(
    output_dir: str, prefix: str, tables: Iterable[pa.Table], num_shards: int
) -> tuple[int, dict[str, str]]:
    """Write tables as `<prefix>-00000-of-00001.parquet` and so on. Returns their size in memory, in bytes, and the
    hash of each shard by its path."""
    num_bytes, hashes = 0, {}
    for number, rows in enumerate(tables):
        num_bytes += rows.nbytes
        content = to_parquet(rows)
        name = f"{prefix}-{number:05d}-of-{num_shards:05d}.parquet"
        atomic_write(f"{output_dir}/{name}", content)
        hashes[name] = hash_content(content)
    return num_bytes, hashes


def group_chunks(ledger: Ledger, keys: list[ChunkKey]) -> list[list[ChunkKey]]:
    """Consecutive chunks with `SHARD_SECONDS` of audio."""
    groups = in_chunks(keys, SHARD_SECONDS, lambda key: ledger.records[key].seconds)
    return [group for group, _ in groups if group]
