"""A sample of the frames of a source, the same for any division of the work: which recordings, and which frames."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..encoding.ledger import ChunkKey, ChunkRecord, Ledger
from ..encoding.piece_batches import Batch, ChunkEnd
from ..encoding.recordings import Recording, Skipped, SkipReason
from ..encoding.sources import Part, Row, Source
from ..encoding.worker import waveforms
from ..modeling_hubert_unit_codec import HubertUnitCodec


EXCESS = 1.05
"""Frames that are kept, in relation to those that are wanted: what is left over is dropped at the end."""


@dataclass(frozen=True)
class SamplePlan:
    r"""
    Which recordings are held out, which are encoded, and which share of their frames is kept. A hash of its text, or
    of its id, gives each recording a number from 0 to 1: recordings of the same text are on the same side.

    Args:
        held_out_below (`float`):
            Recordings with smaller numbers are held out.
        train_below (`float`):
            Those from there to this number are encoded.
        frame_share (`float`):
            Share of their frames that is kept.
        seed (`int`, *optional*, defaults to 0):
            Seed of the numbers and of the frames.
        by_text (`bool`, *optional*, defaults to `True`):
            Whether the text, where there is one, gives the number.
    """

    held_out_below: float
    train_below: float
    frame_share: float
    seed: int = 0
    by_text: bool = True

    def held_out(self, source: Source) -> Source:
        """The source with its held-out recordings only."""
        return self._select(source, 0.0, self.held_out_below)

    def training(self, source: Source) -> Source:
        """The source with the recordings that frames are taken of."""
        return self._select(source, self.held_out_below, self.train_below)

    def _select(self, source: Source, low: float, high: float) -> Source:
        return replace(source, parts=[SelectedPart(part, self, low, high) for part in source.parts])


@dataclass(frozen=True)
class SelectedPart:
    """A part with the recordings whose numbers are in a range. The others count as left out."""

    part: Part
    plan: SamplePlan
    low: float
    high: float

    @property
    def seconds(self) -> float | None:
        return None if self.part.seconds is None else self.part.seconds * (min(self.high, 1.0) - self.low)

    @property
    def num_rows(self) -> int | None:
        return self.part.num_rows

    def read(self, start: int) -> Iterator[Row]:
        for row in self.part.read(start):
            yield [self._select(item) for item in row]

    def _select(self, item: Recording | Skipped) -> Recording | Skipped:
        if isinstance(item, Skipped) or self.low <= _number(self.plan.seed, item, self.plan.by_text) < self.high:
            return item
        return Skipped(item.id, SkipReason.NOT_SAMPLED, "")


def plan_sample(
    source: Source,
    frame_rate: float,
    max_frames: int,
    max_hours: float,
    frame_share: float | None = None,
    num_held_out: int = 100,
    seed: int = 0,
) -> SamplePlan:
    r"""
    Plan a sample of about `max_frames` frames, of at most about `max_hours` of recordings.

    Up to `num_held_out` recordings, and at most a tenth of all, are held out to measure the units on.

    Args:
        source ([`Source`]):
            The recordings.
        frame_rate (`float`):
            Frames per second.
        frame_share (`float`, *optional*):
            Share of the frames to keep. It follows from the lengths of the recordings, but not where these are not
            known, as in a dataset.

    Raises:
        ValueError: the lengths are not known, and there is no `frame_share`.
    """
    lengths = [part.seconds for part in source.parts]
    if None in lengths:
        if frame_share is None:
            raise ValueError(
                "The lengths of the recordings are not known before they are read: give `frame_share`, the share of "
                "their frames to keep (1 for all)."
            )
        counts = [part.num_rows for part in source.parts]
        share = 0.05 if None in counts else min(0.1, num_held_out / max(1, sum(counts)))
        return SamplePlan(share if num_held_out else 0.0, 1.0, frame_share, seed)
    recordings = [item for part in source.parts for row in part.read(0) for item in row if isinstance(item, Recording)]
    wanted = min(num_held_out, max(1, len(recordings) // 10)) if len(recordings) > 1 else 0
    for by_text in (True, False):
        numbers = np.sort([_number(seed, item, by_text) for item in recordings])
        if np.unique(numbers).size >= 2 * wanted:  # else few texts, each spoken by many
            break
    held_out_below = float(np.nextafter(numbers[wanted - 1], 1.0)) if wanted else 0.0
    training = numbers[numbers >= held_out_below]
    hours = sum(lengths) / 3600 * len(training) / max(1, len(numbers))
    kept = min(1.0, max_hours / hours) if hours else 1.0
    last = max(1, round(kept * len(training)))
    train_below = 1.0 if kept == 1.0 or last >= len(training) else float(training[last])
    num_frames = 3600 * hours * kept * frame_rate
    if frame_share is None:
        frame_share = min(1.0, EXCESS * max_frames / num_frames) if num_frames else 1.0
    return SamplePlan(held_out_below, train_below, frame_share, seed, by_text)


@dataclass(frozen=True)
class SampledStates:
    """Computes the states of some frames of each piece, in several layers: the rows of a chunk have, for each piece,
    the number that was drawn for each kept frame, and the states as float32."""

    layers: Sequence[int]
    plan: SamplePlan

    @torch.inference_mode()
    def start(self, codec: HubertUnitCodec, batch: Batch) -> Callable[[], list[Any]]:
        states = codec.hidden_states(waveforms(batch), layers=self.layers)
        kept = []
        for piece, frames in zip(batch, states, strict=True):
            key = [self.plan.seed, *piece.chunk, piece.position]
            draws = np.random.default_rng(key).random(frames.shape[1])
            (chosen,) = np.nonzero(draws < self.plan.frame_share)
            index = torch.from_numpy(chosen).to(frames.device)
            kept.append((frames.shape[1], draws[chosen], frames.index_select(1, index).float()))
        return lambda: [(count, draws, frames.cpu().numpy()) for count, draws, frames in kept]

    def make_rows(
        self, end: ChunkEnd, results: dict[int, Any], codec: HubertUnitCodec
    ) -> tuple[pa.Table, ChunkRecord]:
        rows, num_frames = [], 0
        for position, piece in enumerate(end.pieces):
            count, draws, states = results[position]
            num_frames += count
            row = {"id": piece.id, "draws": draws.tolist()}
            rows.append(
                row | {_column(layer): frames.tobytes() for layer, frames in zip(self.layers, states, strict=True)}
            )
        schema = {"id": pa.string(), "draws": pa.list_(pa.float64())}
        schema |= {_column(layer): pa.binary() for layer in self.layers}
        record = ChunkRecord(
            next_row=end.next_row,
            is_last=end.is_last,
            seconds=end.seconds,
            num_rows=len(rows),
            num_units=sum(len(row["draws"]) for row in rows),
            num_frames=num_frames,
            skipped=list(end.skipped),
        )
        return pa.Table.from_pylist(rows, schema=pa.schema(schema)), record


def read_frames(ledger: Ledger, keys: Sequence[ChunkKey], layer: int, max_frames: int) -> torch.FloatTensor:
    """The states of a layer in all chunks, of shape `(num_frames, hidden_size)`: of the frames that were kept, the
    `max_frames` with the smallest numbers, in the order of the source."""
    draws = [np.concatenate([[], *map(np.array, ledger.read_rows(key)["draws"].to_pylist())]) for key in keys]
    last = np.inf
    if sum(map(len, draws)) > max_frames:
        last = np.partition(np.concatenate(draws), max_frames)[max_frames]
    blocks = []
    for key, numbers in zip(keys, draws, strict=True):
        content = b"".join(ledger.read_rows(key)[_column(layer)].to_pylist())
        if len(numbers):
            blocks.append(np.frombuffer(content, np.float32).reshape(len(numbers), -1)[numbers < last])
    return torch.from_numpy(np.concatenate(blocks)) if blocks else torch.empty(0, 1)


def _column(layer: int) -> str:
    return f"layer_{layer}"


def _number(seed: int, recording: Recording, by_text: bool) -> float:
    """The number of a recording, from 0 to 1."""
    name = f"text {recording.text}" if by_text and recording.text else f"id {recording.id}"
    digest = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
