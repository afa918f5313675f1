"""The stages that make the corpus, the benchmarks and the preference pairs: voices read, and the codec encodes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slam_hf import HubertUnitCodec
from slam_hf.encoding.codec_identity import describe_codec

from .. import sentences
from ..stages import write_json
from ..voices import flite_phones, flite_voice, hibari_phones, hibari_voice
from . import cards
from .aligner import Aligner, train_aligner
from .benchmarks import write_preferences, write_sblimp, write_storycloze
from .stories import HEROES, SCENARIOS
from .text_tokenizer import save_text_tokenizer
from .texts import read_texts
from .tokenized import Reader, part_figures, read_rows, write_rows, write_split
from .word_times import align_rows, flite_bounds, hibari_bounds, sound_lead, word_errors


STAGES = ("sentences", "stories", "word_times", "tokenizer", "benchmarks", "preferences", "cards")

PARTS = ("sentences", "stories")
SPLITS = ("train", "validation")

ALIGNER_MINUTES = 5.0
"""CPU time of training the aligner, on the sentences of the training split. Stories are longer, and the time that CTC
takes grows with the square of the length."""


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
        self.work_dir, self.out = work_dir, work_dir / "out"
        self.shards = work_dir / "shards" / describe_codec(codec).weights[:16]
        self.texts = read_texts()

    def sentences(self) -> dict[str, Any]:
        """Read and encode the corpus's sentences."""
        return self._write_part("sentences")

    def stories(self) -> dict[str, Any]:
        """Read and encode the corpus's stories."""
        return self._write_part("stories")

    def word_times(self) -> dict[str, Any]:
        """Train the aligner, add times to the corpus's words, and measure their errors on the validation split."""
        files = self._corpus_files()
        torch.manual_seed(0)
        aligner = Aligner(self.codec.codebook, self.codec.frame_rate)
        training = read_rows(files["sentences/train"])
        figures = {"training": train_aligner(aligner, training, ALIGNER_MINUTES, self.work_dir / "aligner")}
        aligner.eval()
        voice, time_phones = hibari_voice(), hibari_phones()
        spoken = [(text, voice(text, 1.0)) for text in self.texts.sentences["validation"]]
        lead = sound_lead((speech.samples, speech.sampling_rate, time_phones(text)) for text, speech in spoken)
        figures |= {"lead_ms": 1000 * lead, "unaligned": {}}
        for name, path in files.items():
            rows, failures = align_rows(aligner, read_rows(path))
            write_rows(path, rows)
            figures["unaligned"][name] = dict(failures)
            part, split = name.split("/")
            if split == "validation":
                truths = [hibari_bounds(read, time_phones, lead) for read in self._documents(part, split)]
                figures[part] = word_errors(rows, truths)
        figures["flite-slt"] = self._flite_errors(aligner)
        write_json(self.work_dir / "word_times.json", figures)
        return figures

    def tokenizer(self) -> dict[str, Any]:
        """Train a text tokenizer on the texts of the corpus."""
        stories = [" ".join(story.sentences) for story in self.texts.stories["train"]]
        texts = [*self.texts.sentences["train"], *stories]
        return {"tokens": save_text_tokenizer(texts, self.out / "tokenizer")}

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
        files = self._corpus_files()
        figures = {name: part_figures(path) for name, path in files.items()}
        word_times = json.loads((self.work_dir / "word_times.json").read_text())
        sha256 = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()
        grammar = len(SCENARIOS), len(HEROES)
        card = cards.corpus_card(self._codec_metadata(), figures, sha256, *grammar, word_times)
        (folder / "README.md").write_text(card)
        return figures

    def _write_part(self, part: str) -> dict[str, Any]:
        reader = Reader(hibari_voice(), self.codec)
        folder = self.out / "corpus" / part
        documents = {split: self._documents(part, split) for split in SPLITS}
        return {s: write_split(folder / f"{s}.parquet", documents[s], reader, self.shards) for s in SPLITS}

    def _flite_errors(self, aligner: Aligner) -> dict[str, dict[str, float]]:
        """Errors on a voice that neither the codec nor the aligner has heard, whose phones have exact times."""
        held_out, _ = sentences.split_held_out(sentences.wordnet_sentences(), sentences.NUM_HELD_OUT)
        voice = flite_voice("slt")
        reader = Reader(voice, self.codec)
        rows, _ = align_rows(aligner, (reader.row(text, [text]) for text in held_out))
        truths = [flite_bounds(text, voice(text, 1.0).phones, flite_phones) for text in held_out]
        return word_errors(rows, truths)

    def _documents(self, part: str, split: str) -> list[Sequence[str]]:
        """The sentences of each row of a file of the corpus."""
        if part == "sentences":
            return [[text] for text in self.texts.sentences[split]]
        return [story.sentences for story in self.texts.stories[split]]

    def _corpus_files(self) -> dict[str, Path]:
        folder = self.out / "corpus"
        return {f"{part}/{split}": folder / part / f"{split}.parquet" for part in PARTS for split in SPLITS}

    def _codec_metadata(self) -> dict[str, Any]:
        described = describe_codec(self.codec)
        return {
            "codec": "quickstart:codec",
            "codec_sha256": described.weights,
            "frame_rate": described.frame_rate,
            "num_units": described.num_units,
        }
