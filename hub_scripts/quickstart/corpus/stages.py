"""The stages that make the corpus, the benchmarks and the preference pairs: voices read, the codec gives the units."""

import hashlib
from pathlib import Path
from typing import Any

from slam_hf import HubertUnitCodec
from slam_hf.encoding.codec_identity import describe_codec

from ..voices import flite_voice, hibari_voice
from . import cards
from .benchmarks import write_preferences, write_sblimp, write_storycloze
from .stories import HEROES, SCENARIOS
from .texts import read_texts
from .tokenized import Reader, part_figures, write_split


STAGES = ("sentences", "stories", "benchmarks", "preferences", "cards")

PARTS = ("sentences", "stories")
SPLITS = ("train", "validation")


class CorpusStages:
    r"""
    Stages that make the corpus; each returns the figures that it measured.

    Args:
        work_dir (`Path`):
            Folder for everything that is made.
        codec ([`HubertUnitCodec`]):
            Gives the units.
    """

    def __init__(self, work_dir: Path, codec: HubertUnitCodec):
        self.codec = codec
        self.shards, self.out = work_dir / "shards" / describe_codec(codec).weights[:16], work_dir / "out"
        self.texts = read_texts()

    def sentences(self) -> dict[str, Any]:
        """Read and encode the corpus's sentences."""
        return self._write_part("sentences", {s: [[text] for text in self.texts.sentences[s]] for s in SPLITS})

    def stories(self) -> dict[str, Any]:
        """Read and encode the corpus's stories."""
        return self._write_part("stories", {s: [story.sentences for story in self.texts.stories[s]] for s in SPLITS})

    def benchmarks(self) -> dict[str, Any]:
        """Read and encode the benchmarks, none of whose sentences is in the corpus."""
        figures = self.texts.check_no_overlap()
        folder, hibari = self.out / "benchmarks", Reader(hibari_voice(), self.codec)
        readers = {"hibari": hibari, "flite-slt": Reader(flite_voice("slt"), self.codec)}
        pairs = {
            "sblimp": write_sblimp(folder / "sblimp", self.texts.pairs, readers),
            "phenomena": len({pair.type for pair in self.texts.pairs}),
            "voices": len(readers),
            "storycloze": write_storycloze(folder, self.texts.clozes, hibari),
        }
        (folder / "README.md").write_text(cards.benchmark_card(**pairs))
        return figures | pairs

    def preferences(self) -> dict[str, Any]:
        """Read and encode the preference pairs."""
        folder = self.out / "preferences"
        counts = write_preferences(folder, self.texts.preferences, Reader(hibari_voice(), self.codec))
        (folder / "README.md").write_text(cards.preference_card(self._codec_metadata(), counts))
        return counts

    def cards(self) -> dict[str, Any]:
        """Write the card of the corpus, whose parts are read by two jobs."""
        folder = self.out / "corpus"
        files = {f"{part}/{split}": folder / part / f"{split}.parquet" for part in PARTS for split in SPLITS}
        figures = {name: part_figures(path) for name, path in files.items()}
        sha256 = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()
        card = cards.corpus_card(self._codec_metadata(), figures, sha256, len(SCENARIOS), len(HEROES))
        (folder / "README.md").write_text(card)
        return figures

    def _write_part(self, part: str, documents: dict[str, list]) -> dict[str, Any]:
        reader = Reader(hibari_voice(), self.codec)
        folder = self.out / "corpus" / part
        return {s: write_split(folder / f"{s}.parquet", documents[s], reader, self.shards) for s in SPLITS}

    def _codec_metadata(self) -> dict[str, Any]:
        described = describe_codec(self.codec)
        return {
            "codec": "quickstart:codec",
            "codec_sha256": described.weights,
            "frame_rate": described.frame_rate,
            "num_units": described.num_units,
        }
