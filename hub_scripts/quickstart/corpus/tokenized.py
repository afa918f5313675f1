"""Makes rows of a tokenised corpus from texts: a voice reads them, and the codec encodes the speech."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torchaudio
from datasets import Features
from tqdm import tqdm

from slam_hf import HubertUnitCodec
from slam_hf.atomic_write import atomic_write
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES


if TYPE_CHECKING:
    from ..voices import Voice


PAUSE_SECONDS = 0.2
"""Silence between two sentences."""

PEAK = 0.7
"""Largest sample of each sentence."""

DOCUMENTS_PER_SHARD = 250
"""Documents that an interrupted build may have to read again."""


class Reader:
    r"""
    A voice and a codec that turn sentences into rows.

    Args:
        voice (`Voice`):
            Who reads.
        codec ([`HubertUnitCodec`]):
            Gives the units.
    """

    def __init__(self, voice: "Voice", codec: HubertUnitCodec):
        self.voice = voice
        self.codec = codec
        self.pause = np.zeros(round(PAUSE_SECONDS * codec.sampling_rate), np.float32)
        # The stories of a pair share their context.
        self.read = lru_cache(maxsize=100)(self._read)

    def row(self, id: str, sentences: Sequence[str], pause_after: bool = False) -> dict[str, Any]:
        """A row of a tokenised corpus: sentences read one after the other, with a pause after the last on request."""
        parts = [part for sentence in sentences for part in (self.read(sentence), self.pause)]
        waveform = torch.from_numpy(np.concatenate(parts if pause_after else parts[:-1]))
        units, durations = self.codec.deduplicate(self.codec.encode(waveform[None]).audio_codes[0, 0])
        return {
            "id": id,
            "units": units.tolist(),
            "durations": durations.tolist(),
            "num_frames": int(durations.sum()),
            "text": " ".join(sentences),
            "aligned_text": None,
        }

    def _read(self, sentence: str) -> np.ndarray:
        speech = self.voice(sentence, 1.0)
        samples = torch.from_numpy(np.asarray(speech.samples, dtype=np.float32))
        samples = torchaudio.functional.resample(samples, speech.sampling_rate, self.codec.sampling_rate).numpy()
        return samples * (PEAK / np.abs(samples).max())


def write_split(path: Path, documents: Sequence[Sequence[str]], reader: Reader, shards: Path) -> dict[str, float]:
    r"""
    Read documents and write them as one file of a tokenised corpus.

    Args:
        path (`Path`):
            The Parquet file, `<part>/<split>.parquet`.
        documents (sequence of sequences of `str`):
            Sentences of each document.
        reader (`Reader`):
            Who reads.
        shards (`Path`):
            Folder where documents are kept as they are read: an interrupted build continues from them.

    Returns:
        `dict`: what [`part_figures`] says of the file.
    """
    name = f"{path.parent.name}/{path.stem}"
    # Other texts have other shards.
    folder = shards / name / hashlib.sha256(repr(documents).encode()).hexdigest()[:16]
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(documents), DOCUMENTS_PER_SHARD), desc=name, unit="shard"):
        shard = folder / f"{start:06d}.parquet"
        if not shard.exists():
            piece = enumerate(documents[start : start + DOCUMENTS_PER_SHARD], start)
            write_rows(shard, [reader.row(f"{name}/{number:06d}", sentences) for number, sentences in piece])
        rows += read_rows(shard)
    write_rows(path, rows)
    return part_figures(path)


def write_rows(path: Path, rows: Iterable[dict[str, Any]], features: Features = UNIT_CORPUS_FEATURES) -> None:
    """Write the columns of rows that are features as Parquet, which is either complete or not there."""
    columns = [{name: row[name] for name in features} for row in rows]
    stream = pa.BufferOutputStream()
    table = pa.Table.from_pylist(columns, schema=features.arrow_schema)
    pq.write_table(table, stream, compression="zstd", compression_level=19)
    atomic_write(path, stream.getvalue().to_pybytes())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that [`write_rows`] wrote."""
    return pq.read_table(path).to_pylist()


def part_figures(path: Path) -> dict[str, float]:
    """Rows, hours, units and bytes of a file of a tokenised corpus."""
    rows = read_rows(path)
    return {
        "rows": len(rows),
        "hours": sum(row["num_frames"] for row in rows) / 25 / 3600,
        "units": sum(len(row["units"]) for row in rows),
        "bytes": path.stat().st_size,
    }
