"""Adds texts and the times of words to recordings or to a tokenised corpus, on any executor."""

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from ...atomic_write import atomic_write, remove_unfinished
from ...encoding.codec_identity import update_with_tensors
from ...encoding.job_state import check_files, check_unclaimed, hash_content, load_summary, save_summary
from ...encoding.recordings import count_reasons, skip_report
from ...encoding.resumable_job import ResumableJob
from ...encoding.source_arguments import SourceArguments
from ...encoding.sources import Source
from ...folders import open_folder
from ...remote_files import local_path
from .aligners import CtcAligner, WhisperAligner
from .output import MANIFEST, list_shards, read_shard, write_card, write_corpus, write_manifest
from .recordings import Aligners, align_parts


@dataclass(frozen=True)
class AlignmentSummary:
    """How many rows an alignment gave, how many of them have words with times, and how many have none, by reason.
    `num_bytes` is the size of the aligned corpus in memory, and `files` has the SHA-256 of each file of the result."""

    num_rows: int
    num_aligned: int
    unaligned: dict[str, int]
    num_bytes: int = 0
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AlignmentJob(ResumableJob):
    r"""
    Aligns texts with recordings on an executor, described by names and numbers so that any machine can run it.

    Args:
        source ([`SourceArguments`]):
            The recordings.
        output_dir (`str`):
            Path or URL of the folder for the result: a manifest, `manifest.jsonl`, or a dataset.
        ctc_model (`str`, *optional*):
            Folder or repository of an `AutoModelForCTC` with its tokenizer, for recordings with a text.
        whisper_model (`str`, *optional*):
            Folder or repository of a Whisper, for recordings without one; without `ctc_model`, for all.
        ctc_revision, whisper_revision (`str`, *optional*, defaults to `"main"`):
            Their revisions.
        language (`str`, *optional*):
            The language of the speech. By default, Whisper finds out.
        corpus (`str`, *optional*):
            Path or URL of a dataset that the recordings were tokenised into. The result is this dataset with the
            words of each row, which may be a piece of a recording.
        split (`str`, *optional*, defaults to `"train"`):
            Split of the corpus.
    """

    source: SourceArguments
    output_dir: str
    ctc_model: str | None = None
    whisper_model: str | None = None
    ctc_revision: str = "main"
    whisper_revision: str = "main"
    language: str | None = None
    corpus: str | None = None
    split: str = "train"

    title = "an alignment"
    progress = "Aligning"

    @property
    def folder(self) -> str:
        return f"{self.output_dir}/.alignment/{'manifest' if self.corpus is None else self.split}"

    def paths(self) -> list[str]:
        paths = (self.source.source, self.ctc_model, self.whisper_model, self.corpus)
        return [path for path in paths if path is not None]

    def check_folder(self) -> None:
        if self.ctc_model is None and self.whisper_model is None:
            raise ValueError(
                "Pass `ctc_model` for recordings with a text, `whisper_model` for those without, or both."
            )
        if self.source.layout == "preference_pairs":
            raise ValueError("The recordings of preference pairs cannot be aligned: the pairs have no words.")
        if self.corpus is None and self.source.layout in ("dataset", "webdataset"):
            raise ValueError(
                f"A manifest names files of audio, and the recordings of a {self.source.layout} are inside of others. "
                "Tokenise them first, and pass the result as `corpus`."
            )
        if self.corpus is not None and not self._shards():
            raise ValueError(
                f"'{self.corpus}' has no split '{self.split}': there is no 'data/{self.split}-*.parquet'."
            )
        written = (MANIFEST,) if self.corpus is None else (f"data/{self.split}-*", ".tokenization")
        check_unclaimed(self.output_dir, self.folder.removeprefix(f"{self.output_dir}/"), written)

    def load(self) -> None:
        self._aligners()
        if self.read_summary() is None:
            for name in self._shards():
                read_shard(self.corpus, name)  # reports a damaged one before the work

    def settings(self, source: Source) -> dict[str, Any]:
        return {
            "source": {**source.identity, "chunk_seconds": source.chunk_seconds},
            "models": self._aligners()[1],
            "language": self.language,
            "corpus": {name: open_folder(self.corpus).size(name) for name in self._shards()},
        }

    def read_summary(self) -> AlignmentSummary | None:
        return load_summary(self.folder, AlignmentSummary)

    def process(self, source: Source, rank: int, world_size: int) -> None:
        align_parts(source, self._aligners()[0], self.ledger(), rank, world_size)

    def gather(self, source: Source) -> None:
        """Write the manifest or the dataset, and the summary."""
        ledger = self.ledger()
        keys = ledger.finished(source.parts)
        num_bytes = 0
        if self.corpus is None:
            num_aligned, unaligned = write_manifest(self.output_dir, self.audio_root, ledger, keys)
        else:
            num_aligned, unaligned, num_bytes = write_corpus(self.output_dir, self.corpus, self.split, ledger, keys)
        atomic_write(f"{self.output_dir}/{self._report}", skip_report(unaligned))
        files = open_folder(self.output_dir)
        names = (MANIFEST, self._report, f"skipped/{self.split}.jsonl", *self._shards())
        hashes = {name: hash_content(files.cat_file(name)) for name in names if files.exists(name)}
        num_rows = num_aligned + len(unaligned)
        summary = AlignmentSummary(num_rows, num_aligned, count_reasons(unaligned), num_bytes, hashes)
        save_summary(self.folder, summary)

    def complete(self) -> None:
        """Write the card, and remove what the job no longer needs."""
        files = self.read_summary().files
        check_files(self.output_dir, files, f"{self.folder}/summary.json")
        if self.corpus is not None:
            paths = sorted(open_folder(self.output_dir).glob(".alignment/*/summary.json"))
            splits = [path.split("/")[1] for path in paths]
            sizes = {split: replace(self, split=split).read_summary().num_bytes for split in splits}
            write_card(self.output_dir, self.corpus, sizes)
        self.ledger().remove()
        remove_unfinished(self.folder, "")
        for name in (*files, "README.md"):
            remove_unfinished(*os.path.split(f"{self.output_dir}/{name}"))

    @property
    def audio_root(self) -> str:
        """`str`: What the paths in the manifest are relative to."""
        root = self.source.audio_root or self.source.source
        if self.source.layout == "manifest" and self.source.audio_root is None:
            root = os.path.dirname(root)
        local = local_path(root)
        return root.rstrip("/") if local is None else os.path.realpath(local)

    @property
    def _report(self) -> str:
        return "unaligned.jsonl" if self.corpus is None else f"unaligned/{self.split}.jsonl"

    def _shards(self) -> list[str]:
        """The files of the corpus. A job without a corpus has none."""
        return [] if self.corpus is None else list_shards(self.corpus, self.split)

    def _aligners(self) -> tuple[Aligners, str]:
        return _load_aligners(
            self.ctc_model, self.ctc_revision, self.whisper_model, self.whisper_revision, self.language
        )


@lru_cache(maxsize=1)
def _load_aligners(
    ctc_model: str | None, ctc_revision: str, whisper_model: str | None, whisper_revision: str, language: str | None
) -> tuple[Aligners, str]:
    """The models, and a hash of what the words depend on."""
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    ctc = whisper = None
    hash = hashlib.sha256()
    if ctc_model is not None:
        ctc = CtcAligner.from_pretrained(ctc_model, ctc_revision, device)
        hash.update(json.dumps(ctc.tokenizer.get_vocab(), sort_keys=True).encode())
        update_with_tensors(hash, ctc.model.state_dict())
    if whisper_model is not None:
        whisper = WhisperAligner.from_pretrained(whisper_model, whisper_revision, device, language)
        hash.update(whisper.recognizer.model.generation_config.to_json_string().encode())
        update_with_tensors(hash, whisper.recognizer.model.state_dict())
    return Aligners(ctc, whisper), hash.hexdigest()
