"""Adds texts and the times of words to recordings or to a tokenised corpus: the whole job, on any executor."""

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from ..atomic_write import atomic_write, remove_unfinished
from ..encoding.codec_identity import update_with_tensors
from ..encoding.ledger import ChunkKey, Ledger, to_parquet
from ..encoding.progress import JobProgress
from ..encoding.reading import words_between
from ..encoding.recordings import Skipped, SkipReason
from ..encoding.settings import check_settings, claim_folder, job_name, read_state
from ..encoding.source_arguments import SourceArguments
from ..encoding.source_file import open_source, prepare_source
from ..encoding.sources import Source
from ..encoding.unit_rows import parse_piece_id
from ..execution.arguments import ExecutorArguments
from ..execution.steps import run_steps
from ..folder_lock import lock_folder
from ..folders import open_folder
from ..remote_files import local_path
from .dataset_folder import check_files, hash_content, read_job_summary, report_line
from .recording_alignment import Aligners, align_parts
from .schema import UNIT_CORPUS_FEATURES
from .word_aligners import TIME_DECIMALS, CtcAligner, WhisperAligner


MANIFEST = "manifest.jsonl"

JOB = "an alignment"

SETTINGS = ("source", "models", "language", "corpus")


@dataclass(frozen=True)
class AlignmentSummary:
    """What an alignment gave: rows, how many of them have words with times, and how many have none, by reason.
    `num_bytes` is the size of the aligned corpus in memory, and `files` has the SHA-256 of each file of the result."""

    num_rows: int
    num_aligned: int
    unaligned: dict[str, int]
    num_bytes: int = 0
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AlignmentJob:
    r"""
    Aligns texts with recordings: the steps of an executor, by names and numbers, which any machine can open.

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
            The language that Whisper hears. By default, it finds out.
        corpus (`str`, *optional*):
            Path or URL of a dataset that the recordings were tokenised into. The result is this dataset, with the
            words of the piece of a recording that a row has.
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

    def run(self, executor: ExecutorArguments) -> AlignmentSummary | None:
        """Align on an executor, or continue. `None` if jobs of Slurm will do it.

        Raises:
            ValueError: there is no model, the source or the folder does not fit, the job was begun with other
                recordings or models, or a file of the corpus or of a finished result is damaged.
            FileExistsError: `output_dir` holds files that no alignment has written.
            FolderInUseError: another job is writing to `output_dir`.
        """
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
        self._check_vacant()
        with lock_folder(self.output_dir):
            source = prepare_source(f"{self._folder}/source.parquet", self.source)
            claim_folder(self._folder, self._settings(source), JOB)
            if self.read_summary() is not None:
                self.finish(None, 0, 1)
                return self.read_summary()
            for name in self._shards():
                self._read_shard(name)  # a damaged one is found before the work, and not after it
            ledger = self._ledger()
            with JobProgress(source.parts, ledger, executor.executor == "slurm", desc="Aligning"):
                is_done = run_steps(self.align, self.finish, executor, f"{self._folder}/logs")
        return self.read_summary() if is_done else None

    def align(self, data: Any, rank: int, world_size: int) -> None:
        """Align what is missing of a task's share, on the accelerator of this process or else on the CPU."""
        source = open_source(f"{self._folder}/source.parquet")
        check_settings(self._folder, self._settings(source), JOB)
        if self.read_summary() is None:
            align_parts(source, self._aligners()[0], self._ledger(), rank, world_size)

    def finish(self, data: Any, rank: int, world_size: int) -> None:
        """Make the manifest or the dataset, once every recording was tried."""
        with lock_folder(self.output_dir):
            if self.read_summary() is None:
                self._write_result()
            else:
                check_files(self.output_dir, self.read_summary().files, f"{self._folder}/summary.json")
            self._write_card()
            files = open_folder(self._folder)
            if files.exists("chunks"):
                files.rm("chunks", recursive=True)
            remove_unfinished(self._folder, "")
            for name in (*self.read_summary().files, "README.md"):
                remove_unfinished(*os.path.split(f"{self.output_dir}/{name}"))

    def read_summary(self) -> AlignmentSummary | None:
        """What the alignment gave, or `None` while it is not finished."""
        return read_job_summary(self._folder, AlignmentSummary)

    @property
    def audio_root(self) -> str:
        """`str`: What the paths in the manifest are relative to."""
        root = self.source.audio_root or self.source.source
        if self.source.layout == "manifest" and self.source.audio_root is None:
            root = os.path.dirname(root)
        local = local_path(root)
        return root.rstrip("/") if local is None else os.path.realpath(local)

    @property
    def _folder(self) -> str:
        return f"{self.output_dir}/.alignment/{'manifest' if self.corpus is None else self.split}"

    @property
    def _report(self) -> str:
        return "unaligned.jsonl" if self.corpus is None else f"unaligned/{self.split}.jsonl"

    @property
    def _skipped(self) -> str:
        return f"skipped/{self.split}.jsonl"

    def _check_vacant(self) -> None:
        """Check that the folder is for this job, and that the corpus is there."""
        if self.corpus is not None and not self._shards():
            raise ValueError(
                f"'{self.corpus}' has no split '{self.split}': there is no 'data/{self.split}-*.parquet'."
            )
        files = open_folder(self.output_dir)
        if not files.exists(self._folder.removeprefix(f"{self.output_dir}/")):
            written = (MANIFEST,) if self.corpus is None else (f"data/{self.split}-*", ".tokenization")
            if foreign := [path for name in written for path in files.glob(name)]:
                raise FileExistsError(
                    f"'{self.output_dir}' holds files that no alignment has written, and that this one would replace "
                    f"or be mixed up with: {foreign[0]}. Choose another folder."
                )

    def _shards(self) -> list[str]:
        """The names of the corpus's files, of which a job without a corpus has none."""
        return [] if self.corpus is None else sorted(open_folder(self.corpus).glob(f"data/{self.split}-*.parquet"))

    def _read_shard(self, name: str) -> pa.Table:
        content = pa.BufferReader(open_folder(self.corpus).cat_file(name))
        try:
            table = pq.read_table(content, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"'{self.corpus}/{name}' is damaged: {str(error).splitlines()[0]}") from error
        if "id" not in table.column_names:
            raise ValueError(f"'{self.corpus}/{name}' is not a file of a tokenised corpus: it has no column `id`.")
        return table

    def _aligners(self) -> tuple[Aligners, str]:
        names = (self.ctc_model, self.ctc_revision, self.whisper_model, self.whisper_revision, self.language)
        return _load_aligners(*names)

    def _settings(self, source: Source) -> dict[str, Any]:
        """Everything that the words depend on."""
        return {
            "source": {**source.identity, "chunk_seconds": source.chunk_seconds},
            "models": self._aligners()[1],
            "language": self.language,
            "corpus": {name: open_folder(self.corpus).size(name) for name in self._shards()},
        }

    def _ledger(self) -> Ledger:
        return Ledger(f"{self._folder}/chunks", job_name(read_state(f"{self._folder}/settings.json", SETTINGS)))

    def _write_result(self) -> None:
        source = open_source(f"{self._folder}/source.parquet")
        ledger = self._ledger()
        ledger.refresh()
        keys = ledger.finished(source.parts)
        is_corpus = self.corpus is not None
        results, num_bytes = self._write_corpus(ledger, keys) if is_corpus else (self._write_manifest(ledger, keys), 0)
        unaligned = [item for item in results if item is not None]
        atomic_write(f"{self.output_dir}/{self._report}", "".join(map(report_line, unaligned)).encode())
        reasons = dict(Counter(str(item.reason) for item in unaligned).most_common())
        files, names = open_folder(self.output_dir), (MANIFEST, self._report, self._skipped, *self._shards())
        hashes = {name: hash_content(files.cat_file(name)) for name in names if files.exists(name)}
        summary = AlignmentSummary(len(results), len(results) - len(unaligned), reasons, num_bytes, hashes)
        atomic_write(f"{self._folder}/summary.json", json.dumps(asdict(summary), indent=2).encode())

    def _write_manifest(self, ledger: Ledger, keys: list[ChunkKey]) -> list[Skipped | None]:
        """Write the recordings with their words. Returns why each has none, or `None`."""
        results: list[Skipped | None] = []
        lines = []
        for key in keys:
            skipped, rows = ledger.records[key].skipped, ledger.read_rows(key).to_pylist()
            unaligned = {row["id"] for row in rows if row["aligned_text"] is None}
            for row in rows:
                row["path"] = _relative(row["path"], self.audio_root)
                lines.append(json.dumps(_present(row)) + "\n")
            results += [None] * (len(rows) - len(unaligned)) + skipped
        atomic_write(f"{self.output_dir}/{MANIFEST}", "".join(lines).encode())
        return results

    def _write_corpus(self, ledger: Ledger, keys: list[ChunkKey]) -> tuple[list[Skipped | None], int]:
        """Write the corpus with the words of each row. Returns why each row has none, or `None`, and its size in
        memory, in bytes."""
        words = _RecordedWords(ledger, keys)
        corpus = open_folder(self.corpus)
        results: list[Skipped | None] = []
        num_bytes = 0
        for name in self._shards():
            rows = []
            for row in self._read_shard(name).to_pylist():
                found = words.of(row["id"])
                results.append(found if isinstance(found, Skipped) else None)
                rows.append(row if isinstance(found, Skipped) else {**row, **found})
            aligned = pa.Table.from_pylist(rows, schema=UNIT_CORPUS_FEATURES.arrow_schema)
            num_bytes += aligned.nbytes
            atomic_write(f"{self.output_dir}/{name}", to_parquet(aligned))
        if corpus.exists(self._skipped):
            atomic_write(f"{self.output_dir}/{self._skipped}", corpus.cat_file(self._skipped))
        return results, num_bytes

    def _write_card(self) -> None:
        """Write the card of the corpus, with the sizes of the splits that are aligned."""
        if self.corpus is None or not open_folder(self.corpus).exists("README.md"):
            return
        content = open_folder(self.corpus).cat_file("README.md").decode()
        for path in sorted(open_folder(self.output_dir).glob(".alignment/*/summary.json")):
            split = path.split("/")[1]
            content = _with_size(content, split, replace(self, split=split).read_summary().num_bytes)
        atomic_write(f"{self.output_dir}/README.md", content.encode())


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


def _relative(path: str | None, root: str) -> str | None:
    """The path of a file as a manifest has it: relative to the root, or its URL."""
    return path if path is None or local_path(path) is None else os.path.relpath(os.path.realpath(path), root)


def _present(row: dict[str, Any]) -> dict[str, Any]:
    """What a line of a manifest says: no values that are missing anyway."""
    return {name: value for name, value in row.items() if value is not None and not (name == "offset" and value == 0)}


class _Place(NamedTuple):
    """Where a recording is in the ledger, and which part of its file it is."""

    id: str
    offset: float
    end: float
    key: ChunkKey
    row: int


class _RecordedWords:
    """The words of recordings, and of pieces of them, by the ids of rows of a corpus."""

    def __init__(self, ledger: Ledger, keys: list[ChunkKey]):
        self._ledger = ledger
        self._places: defaultdict[str, list[_Place]] = defaultdict(list)
        for key in keys:
            rows = ledger.read_rows(key).select(["id", "offset", "duration"]).to_pylist()
            for number, row in enumerate(rows):
                end = math.inf if row["duration"] is None else row["offset"] + row["duration"]
                place = _Place(row["id"], row["offset"], end, key, number)
                self._places[parse_piece_id(row["id"])[0]].append(place)
        # The rows of a corpus are in the order of the recordings.
        self._read = lru_cache(maxsize=16)(lambda key: ledger.read_rows(key).to_pylist())

    def of(self, id: str) -> dict[str, Any] | Skipped:
        """`text` and `aligned_text` of a row, or why it has none."""
        source, start, end = parse_piece_id(id)
        places = [place for place in self._places[source] if place.id == id] or [
            place for place in self._places[source] if place.offset <= start < place.end
        ]
        if not places:
            return Skipped(id, SkipReason.NO_RECORDING, "no such recording in the source")
        place = places[0]
        row = self._read(place.key)[place.row]
        if row["aligned_text"] is None:
            failure = next(item for item in self._ledger.records[place.key].skipped if item.id == place.id)
            return Skipped(id, failure.reason, failure.detail)
        if place.id == id:
            return {"text": row["text"], "aligned_text": row["aligned_text"]}
        return _cut(id, row["aligned_text"], start - place.offset, math.inf if end is None else end - place.offset)


def _cut(id: str, words: list[dict[str, Any]], start: float, end: float) -> dict[str, Any] | Skipped:
    """The words of a piece, with times within it."""
    within = words_between(words, start, end)
    if not within:
        return Skipped(id, SkipReason.NO_TEXT, "no word in this piece")
    for word in within:
        word["start_time"] = round(max(0.0, word["start_time"]), TIME_DECIMALS)
        word["end_time"] = round(min(end - start, word["end_time"]), TIME_DECIMALS)
    within[0]["word"] = within[0]["word"].lstrip()
    return {"text": "".join(word["word"] for word in within), "aligned_text": within}


def _with_size(content: str, split: str, num_bytes: int) -> str:
    """The card of a dataset, one of whose splits has another size."""
    card = DatasetCard(content)
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    for info in infos.values():
        if info.splits is not None and split in info.splits:
            info.splits[split].num_bytes = num_bytes
            info.dataset_size = sum(item.num_bytes for item in info.splits.values())
    infos.to_dataset_card_data(card.data)
    return str(card)
