"""The recordings that a vocoder learns from: encoded once, in a job that can be killed, and kept with their audio."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from accelerate import PartialState

from ..atomic_write import atomic_write
from ..encoding.codec_identity import describe_codec
from ..encoding.job_state import claim_folder, job_name, make_settings
from ..encoding.ledger import ChunkKey, Ledger
from ..encoding.piece_batches import SAMPLE_SCALE
from ..encoding.progress import JobProgress
from ..encoding.reading import PieceRules
from ..encoding.recordings import Skipped, count_reasons, list_reasons, skip_report
from ..encoding.source_arguments import VoiceSourceArguments
from ..encoding.source_file import open_source, prepare_source
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..modeling_hubert_unit_codec import HubertUnitCodec


JOB = "recordings for a vocoder"
RECORDINGS, SKIPPED = "recordings.arrow", "skipped.jsonl"

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "speaker": pa.string(),
        "style": pa.string(),
        "units": pa.list_(pa.list_(pa.uint16())),
        "audio": pa.binary(),
    }
)
"""`units` has the unit of each frame, once for each version of the recording that was encoded."""


@dataclass(frozen=True)
class Voice:
    """A piece of a recording: its 16-bit samples, the unit of each frame in each version that was encoded, of shape
    `(num_versions, num_frames)`, and who speaks what in which style."""

    id: str
    text: str | None
    speaker: str | None
    style: str | None
    units: np.ndarray
    samples: np.ndarray

    def waveform(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Samples `start` to `end`, between -1 and 1, float32."""
        return self.samples[start:end].astype(np.float32) / SAMPLE_SCALE


class VoiceRecordings:
    r"""
    The pieces in a file, which is mapped into memory: processes share it, and only what is read is loaded.

    Args:
        path (`str` or `os.PathLike`):
            The file.
    """

    def __init__(self, path: str | os.PathLike):
        reader = pa.ipc.open_file(pa.memory_map(os.fspath(path)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._rows = [(batch, row) for batch in self._batches for row in range(batch.num_rows)]
        self.num_frames = np.array([len(batch["units"][row][0]) for batch, row in self._rows])
        self.ids, self.speakers, self.styles = (
            [value for batch in self._batches for value in batch[name].to_pylist()]
            for name in ("id", "speaker", "style")
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Voice:
        batch, row = self._rows[index]
        texts = {name: batch[name][row].as_py() for name in ("id", "text", "speaker", "style")}
        units = np.stack([version.values.to_numpy() for version in batch["units"][row]])
        return Voice(units=units, samples=np.frombuffer(batch["audio"][row].as_buffer(), np.int16), **texts)


def prepare_recordings(
    folder: Path,
    args: VoiceSourceArguments,
    codec: HubertUnitCodec,
    rules: PieceRules,
    state: PartialState,
    augmentations: tuple[Callable[[str, np.ndarray], np.ndarray], ...] = (),
    num_workers: int = 2,
) -> VoiceRecordings:
    r"""
    Encode recordings and keep them with their audio. Called in each process of `accelerate launch`, it divides the
    work among them. Called again after an interruption, it continues with the chunks that are missing.

    Args:
        folder (`Path`):
            Folder for them, on a file system that all processes see.
        args ([`VoiceSourceArguments`]):
            The recordings.
        codec ([`HubertUnitCodec`]):
            Gives the units, on the device that it is on.
        rules ([`PieceRules`]):
            How recordings are cut, and which pieces are left out.
        state ([`~accelerate.PartialState`]):
            This process among the others.
        augmentations (`tuple` of functions, *optional*):
            Each gives a version of a piece, from its id and its waveform, that is encoded too.
        num_workers (`int`, *optional*, defaults to 2):
            Processes that decode ahead of each codec.

    Returns:
        [`VoiceRecordings`]

    Raises:
        ValueError: there are no recordings, none of them can be encoded, a column is missing, or the folder holds
            other recordings.
    """
    source_file, path = folder / "source.parquet", folder / RECORDINGS
    with state.main_process_first():
        source = prepare_source(source_file, args) if state.is_main_process else open_source(source_file)
    settings = make_settings(source, describe_codec(codec), rules) | {"num_augmentations": len(augmentations)}
    if state.is_main_process:
        claim_folder(folder, settings, JOB)
    state.wait_for_everyone()
    ledgers = []
    for version, transform in enumerate((None, *augmentations)):
        ledger = Ledger(folder / f"chunks-{version}", job_name(settings | {"version": version}))
        ledgers.append(ledger)
        if path.exists():
            continue
        desc = f"Encoding version {version}" if version else "Encoding"
        with JobProgress(source.parts, ledger, disable=not state.is_main_process, desc=desc):
            share = (state.process_index, state.num_processes)
            encode_ledger = Ledger(ledger.folder, ledger.job)
            encode_parts(source, codec, rules, encode_ledger, *share, num_workers, version == 0, transform)
    state.wait_for_everyone()
    if state.is_main_process:
        if not path.exists():
            _write_recordings(folder, source, ledgers)
        for ledger in ledgers:
            ledger.remove()
    state.wait_for_everyone()
    return VoiceRecordings(path)


def _write_recordings(folder: Path, source: Source, ledgers: list[Ledger]) -> None:
    """Put the chunks together in one file, and remove them."""
    keys, *_ = [ledger.finished(source.parts) for ledger in ledgers]  # `finished` also checks the other versions
    skipped: list[Skipped] = [item for key in keys for item in ledgers[0].records[key].skipped]
    atomic_write(folder / SKIPPED, skip_report(skipped))
    if not any(ledgers[0].records[key].num_rows for key in keys):
        reasons = list_reasons(count_reasons(skipped))
        raise ValueError(f"None of the recordings can be encoded: {reasons}. '{folder / SKIPPED}' has the details.")
    unfinished = folder / f".{RECORDINGS}"
    with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for key in keys:
            writer.write_table(_read_chunk(key, ledgers))
    os.replace(unfinished, folder / RECORDINGS)


def _read_chunk(key: ChunkKey, ledgers: list[Ledger]) -> pa.Table:
    tables = [ledger.read_rows(key) for ledger in ledgers]
    if not len(tables[0]):
        return _SCHEMA.empty_table()
    versions = [
        [
            np.repeat(units, durations)
            for units, durations in zip(*map(_arrays, (table["units"], table["durations"])), strict=True)
        ]
        for table in tables
    ]
    units = pa.array([list(rows) for rows in zip(*versions, strict=True)], _SCHEMA.field("units").type)
    return tables[0].set_column(tables[0].column_names.index("units"), "units", units).select(_SCHEMA.names)


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    return [row.values.to_numpy() for row in column]


def list_voices(recordings: VoiceRecordings, indices: Sequence[int]) -> tuple[list[str], list[str]]:
    """The names of the speakers and of the styles of some recordings, in order; none where they have none."""
    speakers, styles = (
        sorted({names[index] for index in indices} - {None}) for names in (recordings.speakers, recordings.styles)
    )
    return speakers, styles


def check_voices(
    recordings: VoiceRecordings, indices: Sequence[int], speakers: Sequence[str], styles: Sequence[str]
) -> None:
    """Raise a `ValueError` if a held-out recording has a speaker or a style that is not trained."""
    for index in indices:
        for kind, name, known in (
            ("speaker", recordings.speakers[index], speakers),
            ("style", recordings.styles[index], styles),
        ):
            if name is not None and name not in known:
                raise ValueError(
                    f"The held-out recording '{recordings.ids[index]}' has the {kind} {name!r}, and those for "
                    f"training do not: they have {', '.join(map(repr, known)) or 'none'}."
                )
