"""Makes preference pairs of a model's own continuations: the whole job, from prompts to a dataset folder."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

from ...atomic_write import atomic_write, remove_unfinished
from ...encoding.codec_identity import CodecDescription, describe_codec
from ...encoding.job_state import check_files, hash_content, load_summary, read_state, save_summary
from ...encoding.recordings import Skipped, SkipReason, count_reasons, list_reasons, skip_report
from ...encoding.resumable_job import ResumableJob
from ...encoding.source_arguments import SourceArguments
from ...encoding.sources import Source
from ...fingerprints import describe_model
from ...folders import open_folder
from ...judging.arguments import JudgeArguments, load_judge
from ...judging.continuations import describe_generation
from ...judging.judge import Judge
from ...judging.transcription import load_recogniser
from ...loading_utils import naming_damaged_files
from ...modeling_speech_lm import SpeechLMForCausalLM
from ...pipeline_audio_to_audio import AudioToAudioPipeline
from ..dataset_card import SplitSummary, read_card
from ..dataset_folder import check_vacant, group_chunks, write_card, write_shards
from ..schema import JUDGED_PREFERENCE_FEATURES
from .candidates import CANDIDATE_SCHEMA, CandidateMaker
from .prompts import open_corpus, select_prompts
from .selection import Thresholds, choose_pair


STATE = ".preferences"

PACKAGES = ("slam-hf", "torch", "transformers")
"""What continuations, transcripts and scores are computed with."""


@dataclass(frozen=True)
class PreferenceJob(ResumableJob):
    r"""
    Lets a model continue speech prompts, has what is heard in the continuations judged, and makes a preference pair of
    the best and the worst of each prompt. It is described by names and numbers, so that any machine can run it.

    The continuations, with texts and scores, are kept in `candidates/`. Run again with other thresholds, the job
    chooses among them again.

    Args:
        source ([`SourceArguments`]):
            The prompts: recordings, or with the layout `"units"` a tokenised corpus.
        model (`str`), asr_model (`str`):
            Folder or repository of the speech language model, and of the speech recogniser.
        judge ([`JudgeArguments`]):
            Who judges.
        output_dir (`str`):
            Path or URL of the dataset's folder.
        codec (`str`, *optional*):
            Folder or repository of the codec. Defaults to the model's own.
        split (`str`, *optional*, defaults to `"train"`):
            Name of the split to write.
        thresholds ([`Thresholds`], *optional*):
            What makes a continuation good or bad.
        num_prompts (`int`, *optional*):
            How many prompts to take, from the first. Defaults to all.
        prompt_seconds (`float`, *optional*, defaults to 3.0):
            Length of a prompt, which ends at the nearest end of a word where the times of words are known.
        num_samples (`int`, *optional*, defaults to 8):
            Continuations of each prompt.
        seed (`int`, *optional*, defaults to 0):
            Seed of the sampling. With the id of a prompt, it gives the seed of its continuations.
        batch_size (`int`, *optional*, defaults to 32):
            Continuations to sample together.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Type of the model's weights.
        options (`dict`, *optional*):
            Parameters of `generate()`. Defaults to those of the model and of the pipeline.
        save_audio (`bool`, *optional*, defaults to `False`):
            Whether to keep the audio, in `audio/`.
    """

    source: SourceArguments
    model: str
    asr_model: str
    judge: JudgeArguments
    output_dir: str
    codec: str | None = None
    split: str = "train"
    thresholds: Thresholds = field(default_factory=Thresholds)
    num_prompts: int | None = None
    prompt_seconds: float = 3.0
    num_samples: int = 8
    seed: int = 0
    batch_size: int = 32
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)
    save_audio: bool = False

    title = "preference pairs"
    progress = "Continuing"

    @property
    def folder(self) -> str:
        return f"{self.output_dir}/{STATE}/{self.split}"

    def paths(self) -> list[str]:
        judge = [self.judge.judge_prompt, *([self.judge.judge_model] if self.judge.judge_url is None else [])]
        paths = [self.source.source, self.model, self.asr_model, self.codec, *judge]
        return [path for path in paths if path is not None]

    def check_folder(self) -> None:
        check_vacant(self.output_dir, self.split, STATE, "choice of pairs")

    def load(self) -> None:
        self._models()

    def list_source(self) -> Source:
        source = self._open_corpus() if self.source.layout == "units" else super().list_source()
        return select_prompts(source, self.num_prompts)

    def open_source(self) -> Source:
        source = self._open_corpus() if self.source.layout == "units" else super().open_source()
        return select_prompts(source, self.num_prompts)

    def process(self, source: Source, rank: int, world_size: int) -> None:
        models = self._models()
        maker = CandidateMaker(
            models.speak,
            models.transcribe,
            models.judge,
            self.options,
            self.prompt_seconds,
            self.num_samples,
            self.seed,
            self.batch_size,
            f"{self.output_dir}/audio/{self.split}" if self.save_audio else None,
        )
        maker.make(source, self.ledger(), rank, world_size)

    def settings(self, source: Source) -> dict[str, Any]:
        made = self._models().description
        return {
            "source": source.identity,
            "codec": {name: made["codec"][name] for name in ("weights", "num_units", "dtype")},
            "models": {name: _without_path(made[name]) for name in ("model", "asr_model")},
            "judge": made["judge"] | {"model": _without_path(made["judge"]["model"])},
            "sampling": self._sampling(),
            "save_audio": self.save_audio,
        }

    def has_all_chunks(self) -> bool:
        return open_folder(self.folder).exists("candidates.json")

    def read_summary(self) -> SplitSummary | None:
        return load_summary(self.folder, SplitSummary)

    def gather(self, source: Source) -> None:
        """Write what the chunks hold, in shards, and what is known of it."""
        ledger = self.ledger()
        keys = ledger.finished(source.parts)
        records = [ledger.records[key] for key in keys]
        groups = group_chunks(ledger, keys)
        tables = (pa.concat_tables(ledger.read_rows(key).cast(CANDIDATE_SCHEMA) for key in group) for group in groups)
        state = {
            "files": write_shards(self.output_dir, f"candidates/{self.split}", tables, len(groups))[1],
            "skipped": [item.as_texts() for record in records for item in record.skipped],
            "seconds": sum(record.seconds for record in records),
            "num_units": sum(record.num_units for record in records),
            "made": self._models().description | self._sampling(),
        }
        atomic_write(f"{self.folder}/candidates.json", json.dumps(state, indent=2).encode())

    def complete(self) -> None:
        """Choose pairs among the candidates, unless these thresholds have, and write the card."""
        state = read_state(f"{self.folder}/candidates.json", ("files", "skipped", "seconds", "num_units", "made"))
        check_files(self.output_dir, state["files"], f"{self.folder}/candidates.json")
        summary = self.read_summary()
        if summary is None or summary.made["thresholds"] != asdict(self.thresholds):
            self._write_pairs(state)
        check_files(self.output_dir, self.read_summary().files, f"{self.folder}/summary.json")
        write_card(self.output_dir, STATE, CodecDescription(**self.read_summary().made["codec"]))
        self.ledger().remove()
        for folder in (self.folder, self.output_dir, *(f"{self.output_dir}/{name}" for name in _FOLDERS)):
            remove_unfinished(folder, "")

    def _open_corpus(self) -> Source:
        weights = read_card(self.source.source).get("codec_sha256")
        if isinstance(weights, str) and weights != self._models().description["codec"]["weights"]:
            raise ValueError(
                f"The units of '{self.source.source}' are of another codec than the model's. Units of one codec mean "
                "nothing in another: choose a corpus of the model's codec, or recordings."
            )
        return open_corpus(self.source)

    def _sampling(self) -> dict[str, Any]:
        names = ("prompt_seconds", "num_samples", "seed", "dtype")
        generation = describe_generation(self._models().speak, self.options)
        return {name: getattr(self, name) for name in names} | {"generation": generation}

    def _models(self) -> "_Models":
        return _load_models(self.model, self.codec, self.asr_model, self.dtype, astuple(self.judge))

    def _write_pairs(self, state: dict[str, Any]) -> None:
        """Choose pairs, and write the shards, the report of the other prompts, and the summary."""
        skipped = [Skipped(item["id"], SkipReason(item["reason"]), item["detail"]) for item in state["skipped"]]
        problems: Counter[str] = Counter()
        scores: list[float] = []
        tables = []
        for name in sorted(state["files"]):
            pairs = []
            for row in _read_rows(f"{self.output_dir}/{name}"):
                problems.update(item["problem"] or "judged" for item in row["continuations"])
                scores += [item["score"] for item in row["continuations"] if item["score"] is not None]
                pair = choose_pair(row["continuations"], self.thresholds)
                if isinstance(pair, SkipReason):
                    skipped.append(Skipped(row["id"], pair, _describe_scores(row["continuations"])))
                else:
                    pairs.append(_make_row(row, *pair))
            tables.append(pa.Table.from_pylist(pairs, schema=JUDGED_PREFERENCE_FEATURES.arrow_schema))
        report = f"skipped/{self.split}.jsonl"
        lines = skip_report(skipped)
        tables = [table for table in tables if len(table)]
        # Files of other thresholds are not those of a summary any more.
        files = open_folder(self.output_dir)
        for name in (f"{STATE}/{self.split}/summary.json", *files.glob(f"data/{self.split}-*.parquet")):
            if files.exists(name):
                files.rm_file(name)
        atomic_write(f"{self.output_dir}/{report}", lines)
        num_bytes, hashes = write_shards(self.output_dir, f"data/{self.split}", tables, len(tables))
        reasons = count_reasons(skipped)
        levels = {f"{share} %": float(np.quantile(scores, share / 100)) for share in (10, 50, 90) if scores}
        if not tables:
            raise ValueError(
                f"No pair could be made: {list_reasons(reasons)}. '{self.output_dir}/{report}' has the scores. Start "
                "the same command with other thresholds to choose again."
            )
        chosen_by = {
            "thresholds": asdict(self.thresholds),
            "continuations": dict(problems.most_common()),
            "scores": levels,
        }
        summary = SplitSummary(
            split=self.split,
            num_rows=sum(map(len, tables)),
            num_units=state["num_units"],
            num_frames=0,
            seconds=state["seconds"],
            num_bytes=num_bytes,
            has_pairs=True,
            skipped=reasons,
            files={report: hash_content(lines), **hashes},
            made=state["made"] | chosen_by,
        )
        save_summary(self.folder, summary)


_FOLDERS = ("candidates", "data", "skipped")


class _Models(NamedTuple):
    """The models of a job, and what a card says of them."""

    speak: AudioToAudioPipeline
    transcribe: AutomaticSpeechRecognitionPipeline
    judge: Judge
    description: dict[str, Any]


@lru_cache(maxsize=1)
def _load_models(model: str, codec: str | None, asr_model: str, dtype: str, judge: tuple[Any, ...]) -> _Models:
    if find_spec("nltk") is None:
        raise ImportError('Auto-BLEU needs NLTK: pip install "slam-hf[metrics]".')
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    with naming_damaged_files(model):
        speak = pipeline("audio-to-audio", model=model, codec=codec, device=device, dtype=torch.float32)
    if not isinstance(speak.model, SpeechLMForCausalLM):
        raise ValueError(f"'{model}' is a {type(speak.model).__name__}: expected a speech language model.")
    described = describe_model(speak.model, model)
    speak.model.to(getattr(torch, dtype))
    transcribe = load_recogniser(asr_model, device)
    loaded_judge = load_judge(JudgeArguments(*judge), device)
    description = {
        "model": described,
        "codec": asdict(describe_codec(speak.processor.audio_tokenizer)),
        "asr_model": describe_model(transcribe.model, asr_model),
        "judge": loaded_judge.description,
        "packages": {name: version(name) for name in PACKAGES},
    }
    return _Models(speak, transcribe, loaded_judge, description)


def _without_path(described: dict[str, Any]) -> dict[str, Any]:
    """A model as its weights describe it: its folder may have been renamed. Of a model at an endpoint, the name is all
    that is known."""
    return {name: value for name, value in described.items() if name != "name" or "weights" not in described}


def _read_rows(path: str) -> Iterator[dict[str, Any]]:
    folder, _, name = path.rpartition("/")
    content = pa.BufferReader(open_folder(folder).cat_file(name))
    for batch in pq.ParquetFile(content).iter_batches():
        yield from batch.to_pylist()


def _make_row(row: dict[str, Any], chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    """A preference pair, with its scores."""
    pair = {"id": row["id"], "prompt": row["prompt"], "prompt_text": row["prompt_text"]}
    for name, item in (("chosen", chosen), ("rejected", rejected)):
        pair |= {name: item["units"], f"{name}_text": item["text"]}
        pair |= {f"{name}_score": item["score"], f"{name}_auto_bleu": item["auto_bleu"]}
    return pair


def _describe_scores(continuations: Sequence[dict[str, Any]]) -> str:
    return ", ".join(item["problem"] or f"{item['score']:.3g}" for item in continuations)
