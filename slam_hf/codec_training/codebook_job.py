"""Fits codebooks: from an encoder and recordings to codecs without a vocoder, in a job that can be killed."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.hf_argparser import HfArg

from ..atomic_write import atomic_write
from ..conversion import read_hubert, read_preprocessor
from ..encoding.codec_identity import describe_codec
from ..encoding.job_state import check_unclaimed, read_state
from ..encoding.ledger import Ledger
from ..encoding.reading import PieceRules
from ..encoding.recordings import SkipReason, count_reasons, list_reasons, skip_report
from ..encoding.resumable_job import ResumableJob
from ..encoding.segmentation import Segmentation
from ..encoding.source_arguments import VoiceSourceArguments
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..folders import open_folder
from ..hub.codec_card import render_codec_card
from ..hub.remote_code import export_remote_code
from ..hub.repository_files import CODEBOOK
from ..loading_utils import naming_damaged_files, resolve_quickstart
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processing_speech_lm import load_codec
from ..public_names import public_name
from ..unit_vocabulary import check_num_units
from .codebook_report import HeldOutUnits, plot_report, read_held_out
from .frame_sample import SampledStates, SamplePlan, SelectedPart, plan_sample, read_frames
from .kmeans import Codebook, fit_codebook
from .measures import perplexity


REPORT, PLOT, SKIPPED = "report.json", "report.png", "skipped.jsonl"

RULES = PieceRules(Segmentation(max_seconds=30.0))
"""Long recordings are cut at silences: the memory of an encoder grows with the square of the length."""


@dataclass(frozen=True)
class CodebookArguments:
    _argument_group_name = "which codebook, and where to"

    encoder: str = HfArg(help="Folder or Hub repository of an encoder, or of a codec whose encoder is taken.")
    output_dir: str = HfArg(help="Folder of the codec, or its URL, such as s3://.")
    layers: list[int] = HfArg(help="Layers of the encoder, counted from 1.")
    num_units: list[int] = HfArg(
        default_factory=lambda: [500], help="Numbers of units. Each layer gets a codebook of each."
    )
    encoder_revision: str = HfArg(default="main", help="Revision of the encoder's repository.")
    do_normalize: bool | None = HfArg(
        default=None,
        help="Normalise each clip. Default: as the encoder's preprocessor_config.json says.",
    )
    max_frames: int = HfArg(
        default=1_000_000,
        help="Maximum number of frames for k-means. A million of 768 values take 3 GB per layer.",
    )
    max_hours: float = HfArg(default=100.0, help="Maximum hours of recordings to encode.")
    frame_share: float | None = HfArg(
        default=None,
        help="Share of their frames to keep. Default: computed from the lengths, which a dataset does not have.",
    )
    num_held_out: int = HfArg(default=100, help="Number of held-out recordings to measure the units on.")
    iterations: int = HfArg(default=50, help="Maximum number of k-means iterations.")
    seed: int = HfArg(default=0, help="Seed of the sample and of the first centroids.")
    num_workers: int = HfArg(default=2, help="Number of processes that decode audio ahead of each encoder.")
    repo_id: str | None = HfArg(default=None, help="Repository name for the card. Default: the name of the folder.")
    license: str | None = HfArg(default=None, help="Licence for the card, as an identifier of the Hub, such as mit.")

    def __post_init__(self):
        for name in ("layers", "num_units"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must hold different numbers; got {', '.join(map(str, values)) or 'none'}.")
        for size in self.num_units:
            check_num_units(size)
        if self.iterations < 1 or self.num_held_out < 0 or not self.max_hours > 0:
            raise ValueError("`iterations` and `max_hours` must be positive, and `num_held_out` at least 0.")
        if self.frame_share is not None and not 0 < self.frame_share <= 1:
            raise ValueError(f"`frame_share` must be above 0 and at most 1; got {self.frame_share}.")


@dataclass(frozen=True)
class CodebookJob(ResumableJob):
    r"""
    Fits codebooks on the hidden states of an encoder: k-means for each layer and number of units, in one pass over the
    audio. Described by names and numbers, so that any machine can run it. The result does not depend on the division
    of the work or on interruptions.

    Args:
        source ([`VoiceSourceArguments`]):
            The recordings. Speakers are read for the comparison of voices, which needs texts that several of them say.
        args ([`CodebookArguments`]):
            Which codebooks of which encoder, and where to. With several layers or numbers of units, each codec is in a
            folder in `output_dir`.
        rules ([`PieceRules`], *optional*):
            How recordings are cut, and which pieces are left out.
    """

    source: VoiceSourceArguments
    args: CodebookArguments
    rules: PieceRules = field(default=RULES)

    title = "a codebook"
    progress = "Encoding"

    @property
    def output_dir(self) -> str:
        return self.args.output_dir

    @property
    def folder(self) -> str:
        return f"{self.output_dir}/.codebook/sample"

    def paths(self) -> list[str]:
        return [self.source.source, self.args.encoder]

    def check_folder(self) -> None:
        check_unclaimed(self.output_dir, ".codebook/sample", ("config.json", "README.md", REPORT))

    def load(self) -> None:
        self._codec()

    def list_source(self) -> Source:
        """List and probe the input, once for all tasks, and plan the sample. Returns the recordings that frames are
        taken of."""
        source, rate, args = super().list_source(), self._codec().frame_rate, self.args
        lengths, most = [part.seconds for part in source.parts], max(args.num_units)
        if args.max_frames < most:
            raise ValueError(f"`max_frames` is {args.max_frames:,}, and {most:,} units need at least as many frames.")
        if None not in lengths and sum(lengths) * rate < most:
            raise ValueError(
                f"The recordings have {sum(lengths):,.1f} s of audio, {sum(lengths) * rate:,.0f} frames, and {most:,} "
                "units need at least as many. Take more recordings, or fewer units."
            )
        limits = (args.max_frames, args.max_hours, args.frame_share, args.num_held_out, args.seed)
        return plan_sample(source, rate, *limits).training(source)

    def settings(self, source: Source) -> dict[str, Any]:
        described = asdict(describe_codec(self._codec()))
        return {
            "encoder": {key: described[key] for key in ("weights", "sampling_rate", "frame_rate")},
            "source": {**source.identity, "chunk_seconds": source.chunk_seconds},
            "rules": asdict(self.rules),
            "sample": asdict(self._plan(source)),
            "max_frames": self.args.max_frames,
            "layers": list(self.args.layers),
            "num_units": list(self.args.num_units),
            "iterations": self.args.iterations,
        }

    def read_summary(self) -> dict[str, Any] | None:
        """The report, or `None` while the job is not finished."""
        is_finished = open_folder(self.output_dir).exists(REPORT)
        return read_state(f"{self.output_dir}/{REPORT}", ["codebooks"]) if is_finished else None

    def process(self, source: Source, rank: int, world_size: int) -> None:
        """Keep the states of the sampled frames, and the audio of the held-out recordings."""
        codec, plan = self._codec().to(_device()), self._plan(source)
        share = (rank, world_size, self.args.num_workers)
        training, held_out = plan.training(source), plan.held_out(source)
        computation = SampledStates(tuple(self.args.layers), plan)
        encode_parts(training, codec, self.rules, self.ledger(), *share, computation=computation)
        encode_parts(held_out, codec, self.rules, self.ledger("held-out"), *share, keep_audio=True)

    def gather(self, source: Source) -> None:
        """Fit and measure the codebooks, and write the codecs."""
        plan, frames, held_out = self._plan(source), self.ledger(), self.ledger("held-out")
        keys = frames.finished(plan.training(source).parts)
        held_out_keys = held_out.finished(plan.held_out(source).parts)
        skipped = [item for key in keys for item in frames.records[key].skipped]
        skipped += [item for key in held_out_keys for item in held_out.records[key].skipped]
        skipped = list(dict.fromkeys(item for item in skipped if item.reason != SkipReason.NOT_SAMPLED))
        atomic_write(f"{self.output_dir}/{SKIPPED}", skip_report(skipped))
        report: dict[str, Any] = {
            "encoder": public_name(self.args.encoder),
            "seconds": sum(frames.records[key].seconds for key in keys),
            "num_frames": min(self.args.max_frames, sum(frames.records[key].num_units for key in keys)),
            "seed": self.args.seed,
            "skipped": count_reasons(skipped),
            "codebooks": [],
        }
        codebooks = self._fit(frames, keys, report)
        centroids = {choice: book.centroids for choice, book in codebooks.items()}
        units = HeldOutUnits(self._codec().to(_device()), centroids)
        num_rows = sum(held_out.records[key].num_rows for key in held_out_keys)
        for row in tqdm(read_held_out(held_out, held_out_keys), desc="Measuring", total=num_rows, delay=2.0):
            units.add(row)
        for entry in report["codebooks"]:
            entry["held_out"] = units.measure((entry["layer"], entry["num_units"]))
            self._write_codec(entry, codebooks[entry["layer"], entry["num_units"]], report)
        counts = {choice: book.counts for choice, book in codebooks.items()}
        if (picture := plot_report(report, counts)) is not None:
            atomic_write(f"{self.output_dir}/{PLOT}", picture)
        atomic_write(f"{self.output_dir}/{REPORT}", json.dumps(report, indent=2).encode() + b"\n")

    def complete(self) -> None:
        files = open_folder(self.folder)
        for name in ("chunks", "held-out", "codebooks"):
            if files.exists(name):
                files.rm(name, recursive=True)

    def codec_folder(self, layer: int, num_units: int) -> str:
        """Path or URL of the folder of a codec."""
        is_alone = len(self.args.layers) * len(self.args.num_units) == 1
        return self.output_dir if is_alone else f"{self.output_dir}/layer-{layer}-units-{num_units}"

    def _fit(self, ledger: Ledger, keys: Sequence[Any], report: dict[str, Any]) -> dict[tuple[int, int], Codebook]:
        """Fit each codebook, unless an earlier run has, and describe it in the report."""
        codebooks = {}
        folder = open_folder(self.folder)
        for layer in self.args.layers:
            frames = None
            for num_units in self.args.num_units:
                name = f"codebooks/layer-{layer}-units-{num_units}.safetensors"
                if not folder.exists(name):
                    frames = read_frames(ledger, keys, layer, self.args.max_frames) if frames is None else frames
                    desc = f"Layer {layer}, {num_units:,} units"
                    try:
                        book = fit_codebook(
                            frames, num_units, self.args.iterations, seed=self.args.seed, device=_device(), desc=desc
                        )
                    except ValueError as error:
                        left_out = f" Left out: {list_reasons(report['skipped'])}." if report["skipped"] else ""
                        raise ValueError(f"{desc}: {error}{left_out}") from None
                    variance = float(frames.var(dim=0, correction=0).sum(dtype=torch.float64))
                    numbers = torch.tensor([book.inertia, variance], dtype=torch.float64)
                    tensors = {"centroids": book.centroids, "counts": book.counts, "numbers": numbers}
                    atomic_write(f"{self.folder}/{name}", save(tensors))
                # Also what was just written is read: the report does not depend on an interruption.
                tensors = load(folder.cat_file(name))
                inertia, variance = tensors["numbers"].tolist()
                book = Codebook(tensors["centroids"], tensors["counts"], inertia)
                codebooks[layer, num_units] = book
                report["codebooks"].append(describe_codebook(layer, book, variance))
        return codebooks

    def _write_codec(self, entry: dict[str, Any], book: Codebook, report: dict[str, Any]) -> None:
        """Write the folder of a codec, each file at once."""
        folder = self.codec_folder(entry["layer"], entry["num_units"])
        encoder, options = _load_encoder(self.args.encoder, self.args.encoder_revision, self.args.do_normalize)
        with tempfile.TemporaryDirectory() as scratch:
            codec = HubertUnitCodec.from_parts(encoder, book.centroids, entry["layer"], **options)
            codec.save_pretrained(scratch)
            export_remote_code(scratch)
            figures = {key: report[key] for key in ("encoder", "seconds", "num_frames")} | entry
            (Path(scratch) / CODEBOOK).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
            repo_id = self.args.repo_id or os.path.basename(folder.rstrip("/"))
            render_codec_card(scratch, repo_id, license=self.args.license).save(Path(scratch) / "README.md")
            for path in sorted(Path(scratch).iterdir()):
                atomic_write(f"{folder}/{path.name}", path.read_bytes())

    def _codec(self) -> HubertUnitCodec:
        args = self.args
        return _load_codec(args.encoder, args.encoder_revision, args.do_normalize, tuple(args.layers))

    def _plan(self, source: Source) -> SamplePlan:
        """The plan that a listed source was made by, or that the job began with."""
        if isinstance(source.parts[0], SelectedPart):
            return source.parts[0].plan
        return SamplePlan(**read_state(f"{self.folder}/settings.json", ["sample"])["sample"])


def describe_codebook(layer: int, book: Codebook, variance: float) -> dict[str, Any]:
    """The figures of a codebook on the frames that it was fitted on, whose variance is that of all values together."""
    return {
        "layer": layer,
        "num_units": len(book.centroids),
        "inertia": book.inertia,
        "explained_variance": 1 - book.inertia / variance if variance else 0.0,
        "used": int((book.counts > 0).sum()),
        "perplexity": perplexity(book.counts.numpy()),
    }


def _device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@lru_cache(maxsize=1)
def _load_encoder(name: str, revision: str, do_normalize: bool | None) -> tuple[PreTrainedModel, dict[str, Any]]:
    """An encoder, and the arguments of [`HubertUnitCodec.from_parts`] that say how it takes audio."""
    path = resolve_quickstart(name)
    with naming_damaged_files(path):
        model_type = PreTrainedConfig.get_config_dict(path, revision=revision)[0].get("model_type")
    if model_type == "hubert_unit_codec":
        codec = load_codec(name, revision)
        preprocessor = {"sampling_rate": codec.sampling_rate, "do_normalize": codec.config.do_normalize}
        preprocessor["stride"] = codec.config.feature_stride
        encoder = codec.encoder
    else:
        encoder, preprocessor = read_hubert(path, revision), read_preprocessor(path, revision)
    if do_normalize is None:
        do_normalize = preprocessor.get("do_normalize", False)
    return encoder, {
        "sampling_rate": preprocessor.get("sampling_rate"),
        "do_normalize": do_normalize,
        "feature_stride": preprocessor.get("stride"),
    }


@lru_cache(maxsize=1)
def _load_codec(name: str, revision: str, do_normalize: bool | None, layers: tuple[int, ...]) -> HubertUnitCodec:
    """A codec with the encoder up to the last of some layers, and a codebook that means nothing."""
    encoder, options = _load_encoder(name, revision, do_normalize)
    if not all(1 <= layer <= encoder.config.num_hidden_layers for layer in layers):
        raise ValueError(
            f"`layers` must be from 1 to {encoder.config.num_hidden_layers}, the last of '{name}'; got "
            f"{', '.join(map(str, layers))}."
        )
    return HubertUnitCodec.from_parts(encoder, torch.zeros(1, encoder.config.hidden_size), max(layers), **options)
