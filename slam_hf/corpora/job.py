"""Tokenises recordings: the whole job, from a source to a dataset folder."""

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from ..encoding.codec_identity import CodecDescription, describe_codec
from ..encoding.job_state import claim_folder, job_name, make_settings
from ..encoding.ledger import Ledger
from ..encoding.progress import JobProgress
from ..encoding.reading import PieceRules
from ..encoding.resumable_job import ResumableJob
from ..encoding.source_arguments import SourceArguments
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..folder_lock import lock_folder
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processing_speech_lm import load_codec
from .dataset_card import SplitSummary
from .dataset_folder import check_vacant, job_folder, publish_split, read_summary, write_split


def tokenize_corpus(
    source: Source,
    codec: HubertUnitCodec,
    output_dir: str | os.PathLike,
    split: str = "train",
    rules: PieceRules | None = None,
    num_workers: int = 2,
) -> SplitSummary:
    r"""
    Tokenise recordings, in this process, into a dataset that `load_dataset(output_dir)` reads.

    Started again after it was interrupted, it continues with the chunks that are missing. The result is the same for
    any number of interruptions, and that of [`TokenizationJob`] on any executor.

    Args:
        source ([`Source`]):
            What to tokenise.
        codec ([`HubertUnitCodec`]):
            Gives the units, on the device that it is on.
        output_dir (`str` or `os.PathLike`):
            Path or URL of the dataset's folder, which may hold other splits made with the same codec.
        split (`str`, *optional*, defaults to `"train"`):
            Name of the split.
        rules ([`PieceRules`], *optional*):
            How recordings are cut, and which pieces are left out.
        num_workers (`int`, *optional*, defaults to 2):
            Worker processes that decode and resample ahead of the codec.

    Returns:
        [`SplitSummary`]

    Raises:
        ValueError: `output_dir` holds a tokenisation with other settings, or a damaged one; chunks are missing in the
            end; or nothing could be tokenised.
        FileExistsError: `output_dir` holds files that would be replaced, and that no tokenisation has written.
        FolderInUseError: another job is writing to `output_dir`.
        ChildProcessError: a worker process was killed.
        DiskFullError: no space is left. What is finished is kept.
    """
    rules, description, folder = rules or PieceRules(), describe_codec(codec), job_folder(output_dir, split)
    with lock_folder(output_dir):
        check_vacant(output_dir, split)
        settings = make_settings(source, description, rules)
        claim_folder(folder, settings)
        if read_summary(output_dir, split) is None:
            place = (f"{folder}/chunks", job_name(settings))
            with JobProgress(source.parts, Ledger(*place)):
                encode_parts(source, codec, rules, Ledger(*place), num_workers=num_workers)
            # A new ledger finds the folder as it is now: it may have been moved away.
            write_split(output_dir, split, Ledger(*place), source.parts, source.has_pairs)
        publish_split(output_dir, split, description)
        return read_summary(output_dir, split)


@dataclass(frozen=True)
class TokenizationJob(ResumableJob):
    r"""
    The job of [`tokenize_corpus`] on an executor, described by names and numbers so that any machine can run it.

    Args:
        source ([`SourceArguments`]):
            What to tokenise.
        codec (`str`):
            Folder or repository of a [`HubertUnitCodec`].
        output_dir (`str`):
            Path or URL of the dataset's folder.
        codec_revision (`str`, *optional*, defaults to `"main"`):
            Revision of the codec's repository.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Type of numbers that the codec's HuBERT computes with. `"bfloat16"` is faster on a GPU and changes the unit
            of 0.5 % of the frames (`hub_scripts/compare_units.py` counts them for a codec and recordings).
    """

    source: SourceArguments
    codec: str
    output_dir: str
    codec_revision: str = "main"
    dtype: str = "float32"
    split: str = "train"
    rules: PieceRules = field(default_factory=PieceRules)
    num_workers: int = 2

    title = "a tokenisation"
    progress = "Encoding"

    @property
    def folder(self) -> str:
        return job_folder(self.output_dir, self.split)

    def paths(self) -> list[str]:
        return [self.source.source, self.codec]

    def check_folder(self) -> None:
        check_vacant(self.output_dir, self.split)

    def load(self) -> None:
        self._codec()

    def settings(self, source: Source) -> dict[str, Any]:
        return make_settings(source, self._codec()[1], self.rules)

    def read_summary(self) -> SplitSummary | None:
        return read_summary(self.output_dir, self.split)

    def process(self, source: Source, rank: int, world_size: int) -> None:
        codec = self._codec()[0].to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        encode_parts(source, codec, self.rules, self.ledger(), rank, world_size, self.num_workers)

    def gather(self, source: Source) -> None:
        write_split(self.output_dir, self.split, self.ledger(), source.parts, source.has_pairs)

    def complete(self) -> None:
        publish_split(self.output_dir, self.split, self._codec()[1])

    def _codec(self) -> tuple[HubertUnitCodec, CodecDescription]:
        return _load(self.codec, self.codec_revision, self.dtype)


@lru_cache(maxsize=1)
def _load(codec: str, revision: str, dtype: str) -> tuple[HubertUnitCodec, CodecDescription]:
    loaded = load_codec(codec, revision)
    # The hash is that of the codec as it is published, which models and evaluations compare with theirs.
    description = replace(describe_codec(loaded), dtype=dtype)
    loaded.encoder.to(getattr(torch, dtype))
    return loaded, description
