"""Tokenises recordings: the whole job, from a source to a dataset folder."""

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from ..encoding.codec_identity import CodecDescription, describe_codec
from ..encoding.ledger import Ledger
from ..encoding.progress import JobProgress
from ..encoding.reading import PieceRules
from ..encoding.settings import check_settings, claim_folder, job_name, make_settings
from ..encoding.source_arguments import SourceArguments
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..folder_lock import lock_folder
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processing_speech_lm import load_codec
from .dataset_card import SplitSummary
from .dataset_folder import check_vacant, finish_split, job_folder, publish_split, read_summary
from .resumable_job import ResumableJob


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
    corpus = _Corpus(source, describe_codec(codec), rules or PieceRules(), os.fspath(output_dir), split)
    with lock_folder(output_dir):
        corpus.begin()
        if not corpus.is_finished():
            with JobProgress(source.parts, corpus.ledger()):
                encode_parts(source, codec, corpus.rules, corpus.ledger(), num_workers=num_workers)
        return corpus.finish()


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
        _load(self.codec, self.codec_revision, self.dtype)

    def settings(self, source: Source) -> dict[str, Any]:
        return self._open(source).settings

    def ledger(self, source: Source) -> Ledger:
        return self._open(source).ledger()

    def read_summary(self) -> SplitSummary | None:
        return read_summary(self.output_dir, self.split)

    def process(self, source: Source, rank: int, world_size: int) -> None:
        codec = _load(self.codec, self.codec_revision, self.dtype)[0]
        codec.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        encode_parts(source, codec, self.rules, self.ledger(source), rank, world_size, self.num_workers)

    def finish(self, data: Any, rank: int, world_size: int) -> None:
        with lock_folder(self.output_dir):
            source = self.open_source()
            check_settings(self.folder, self.settings(source))  # chunks of another codec would count as damaged
            self._open(source).finish()

    def _open(self, source: Source) -> "_Corpus":
        description = _load(self.codec, self.codec_revision, self.dtype)[1]
        return _Corpus(source, description, self.rules, self.output_dir, self.split)


@lru_cache(maxsize=1)
def _load(codec: str, revision: str, dtype: str) -> tuple[HubertUnitCodec, CodecDescription]:
    loaded = load_codec(codec, revision)
    # The hash is that of the codec as it is published, which models and evaluations compare with theirs.
    description = replace(describe_codec(loaded), dtype=dtype)
    loaded.encoder.to(getattr(torch, dtype))
    return loaded, description


@dataclass(frozen=True)
class _Corpus:
    """A split that is being tokenised, and what its rows depend on."""

    source: Source
    codec: CodecDescription
    rules: PieceRules
    output_dir: str
    split: str

    @property
    def folder(self) -> str:
        return job_folder(self.output_dir, self.split)

    @property
    def settings(self) -> dict[str, Any]:
        return make_settings(self.source, self.codec, self.rules)

    def ledger(self) -> Ledger:
        """A new ledger, which finds the folder as it is now: it may have been moved away."""
        return Ledger(f"{self.folder}/chunks", job_name(self.settings))

    def begin(self) -> None:
        check_vacant(self.output_dir, self.split)
        claim_folder(self.folder, self.settings)

    def is_finished(self) -> bool:
        return read_summary(self.output_dir, self.split) is not None

    def finish(self) -> SplitSummary:
        if self.is_finished():
            publish_split(self.output_dir, self.split, self.codec)
        else:
            parts, has_pairs = self.source.parts, self.source.has_pairs
            finish_split(self.output_dir, self.split, self.ledger(), parts, self.codec, has_pairs)
        return read_summary(self.output_dir, self.split)
