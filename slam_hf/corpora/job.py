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
from ..encoding.source_file import open_source, prepare_source
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..execution.arguments import ExecutorArguments
from ..execution.steps import choose_executor, run_steps
from ..folder_lock import lock_folder
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processing_speech_lm import load_codec
from .dataset_card import SplitSummary
from .dataset_folder import check_vacant, finish_split, job_folder, publish_split, read_summary


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
class TokenizationJob:
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

    def run(self, executor: ExecutorArguments) -> SplitSummary | None:
        """Tokenise on an executor. Returns `None` if the work was submitted to Slurm. The errors are those of
        [`tokenize_corpus`] and [`run_steps`]; a `ValueError` also says that the input has changed since the start."""
        executor.check_reach(self.source.source, self.codec)
        with lock_folder(self.output_dir):
            check_vacant(self.output_dir, self.split)
            if read_summary(self.output_dir, self.split) is None:
                choose_executor(executor, f"{job_folder(self.output_dir, self.split)}/logs")
            _load(self.codec, self.codec_revision, self.dtype)  # it takes less time than the list to find it missing
            corpus = self._open(prepare_source(self._source_file, self.source))
            corpus.begin()
            if corpus.is_finished():
                return corpus.finish()
            with JobProgress(corpus.source.parts, corpus.ledger(), disable=executor.executor == "slurm"):
                is_done = run_steps(self.encode, self.finish, executor, f"{corpus.folder}/logs")
        return read_summary(self.output_dir, self.split) if is_done else None

    def encode(self, data: Any, rank: int, world_size: int) -> None:
        """Encode what is missing of a task's share, on the accelerator of this process or else on the CPU."""
        corpus = self._open(open_source(self._source_file))
        check_settings(corpus.folder, corpus.settings)
        if corpus.is_finished():
            return
        codec = _load(self.codec, self.codec_revision, self.dtype)[0]
        codec.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        encode_parts(corpus.source, codec, self.rules, corpus.ledger(), rank, world_size, self.num_workers)

    def finish(self, data: Any, rank: int, world_size: int) -> None:
        """Make the dataset, once every row is encoded."""
        with lock_folder(self.output_dir):
            corpus = self._open(open_source(self._source_file))
            check_settings(corpus.folder, corpus.settings)  # chunks of another codec would count as damaged
            corpus.finish()

    @property
    def _source_file(self) -> str:
        return f"{job_folder(self.output_dir, self.split)}/source.parquet"

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
