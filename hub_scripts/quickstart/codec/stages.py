"""The stages that make the codec: speech, the teacher's states, the student, its codebook and the vocoder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from slam_hf import HubertUnitCodec
from slam_hf.codec_training.kmeans import fit_codebook
from slam_hf.codec_training.vocoder_samples import word_error_rates
from slam_hf.codec_training.voice_recordings import prepare_recordings
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.judging.transcription import load_recogniser

from ..speech_bank import SpeechBank, with_pauses, write_rows
from ..stages import SCRIPTS, run_script
from . import speech, student, targets, teacher, whisper
from .card import codec_card
from .encoding import save_codec
from .measures import UNSEEN, measure_units
from .recordings import FOREIGN_SPEAKERS


STAGES = ("speech", "teacher", "targets", "student", "codebook", "vocoder", "resynthesis")

CLUSTER_COUNTS = (200, 500)
"""Numbers of teacher clusters that the student learns."""

NUM_UNITS = 500
"""Size of the published codebook, that of mHuBERT-25Hz: with more units, more of the phones is kept."""

STUDENT_MINUTES = 166.0
"""CPU time of training. The published student was trained in three runs (45, 55 and 66 minutes): the first without
`steel-sky` and formant shifts, the second without Kokoro's voices, both with batches of half the size."""

VOCODER_MINUTES = 134.0
"""Time of training. The published vocoder was trained without discriminators, in four runs (45, 35, 24 and 30
minutes): three on units of clean speech, with batches of half the size, each starting from the mean embedding of the
former units of each unit's frames; the last on today's data."""

VOCODER_HOURS = 2.0
"""Training speech of the vocoder."""

NUM_AUGMENTED = 2
"""Augmented versions of it. The vocoder learns to speak their units too in its own voice: recordings of other people
have units that clean speech of one voice never has. Each utterance is between pauses: noisy silence has units of its
own, at which the vocoder must be silent."""

NUM_RESYNTHESIZED = 40
"""Held-out sentences that are resynthesised and transcribed."""


class CodecStages:
    r"""
    Stages that make the codec; each returns the figures that it measured.

    Args:
        work_dir (`Path`):
            Folder for everything that is made.
        librispeech (`Path`):
            Folder of LibriSpeech clips, which only the evaluation hears.
    """

    def __init__(self, work_dir: Path, librispeech: Path):
        self.work_dir, self.librispeech = work_dir, librispeech
        self.speech_dir = work_dir / "speech"
        for name in ("teacher", "targets", "out"):
            (work_dir / name).mkdir(parents=True, exist_ok=True)

    def speech(self) -> dict[str, Any]:
        """Synthesise and collect speech."""
        for name in speech.BANKS:
            speech.fill_bank(self.speech_dir, name, self.librispeech)
        return {"hours": {name: SpeechBank(self.speech_dir, name).hours for name in speech.BANKS}}

    def teacher(self) -> dict[str, Any]:
        """Compute the teacher's states of the training speech."""
        folder = whisper.convert_whisper(self.work_dir / "whisper-base")
        for name in speech.BANKS:
            path = self.work_dir / "teacher" / f"{name}.npz"
            if not path.exists():
                states, positions = teacher.extract_states(folder, self.bank(name))
                temporary = path.with_suffix(".tmp.npz")
                np.savez(temporary, states=states, positions=positions)
                temporary.rename(path)
        return {"hours": sum(self.bank(name).hours for name in speech.BANKS)}

    def targets(self) -> dict[str, Any]:
        """Cluster the teacher's states."""
        states, positions = {}, {}
        for name in speech.BANKS:
            arrays = np.load(self.work_dir / "teacher" / f"{name}.npz")
            states[name], positions[name] = arrays["states"].astype(np.float32), arrays["positions"]
        training = list(speech.TRAINING_HOURS)
        means = teacher.position_means([states[name] for name in training], [positions[name] for name in training])
        for name in speech.BANKS:
            states[name] = targets.remove_speakers(states[name] - means[positions[name]], self.bank(name).speakers())
        learnt = np.concatenate([states[name][self.bank(name).training_frames()] for name in training])
        scale = learnt.std(0) + 1e-3
        sample = np.random.default_rng(0).permutation(len(learnt))[:120_000]
        directions = targets.principal_components(learnt[sample] / scale)
        points = {name: np.ascontiguousarray((states[name] / scale) @ directions) for name in speech.BANKS}
        sample_points = np.ascontiguousarray((learnt[sample] / scale) @ directions)
        books = {count: fit_codebook(torch.from_numpy(sample_points), count).centroids for count in CLUSTER_COUNTS}
        spread = sample_points[:, : student.NUM_REGRESSED].std(0)
        for name in speech.BANKS:
            labels = {f"labels_{count}": targets.assign(points[name], book) for count, book in books.items()}
            components = (points[name][:, : student.NUM_REGRESSED] / spread).astype(np.float32)
            np.savez(self.work_dir / "targets" / f"{name}.npz", components=components, **labels)
        return {"training_hours": len(learnt) / 25 / 3600}

    def student(self) -> dict[str, Any]:
        """Train the student on the clusters."""
        names = list(speech.TRAINING_HOURS)
        training_targets = [
            student.Targets(self.work_dir / "targets" / f"{name}.npz", CLUSTER_COUNTS) for name in names
        ]
        shares = [speech.TRAINING_SHARES[name] for name in names]
        crops = student.Crops([self.bank(name) for name in names], shares, training_targets, seed=0)
        return student.train_student(crops, CLUSTER_COUNTS, STUDENT_MINUTES, self.work_dir / "student")

    def codebook(self) -> dict[str, Any]:
        """Fit the codebook on the student's states, and measure its units and those of the teacher."""
        model = student.load_student(self.work_dir / "student", CLUSTER_COUNTS)
        model.hubert.half().float().save_pretrained(self.work_dir / "encoder")  # float16, in which it is published
        run_script(
            "fit_codebook.py",
            encoder=self.work_dir / "encoder",
            layers=model.hubert.config.num_hidden_layers,
            num_units=NUM_UNITS,
            source=write_rows(self.speech_dir / "codebook.jsonl", self._rows_to_fit()),
            layout="manifest",
            output_dir=self.work_dir / "codebook",
        )
        banks, codec = [self.bank(name) for name in UNSEEN], self.codec()
        units = [[encode(codec, bank.waveform(index)) for index in bank.indices(held_out=True)] for bank in banks]
        labels = [np.load(self.work_dir / "targets" / f"{name}.npz")[f"labels_{NUM_UNITS}"] for name in UNSEEN]
        of_teacher = [
            [row[bank.frames(index)] for index in bank.indices(held_out=True)]
            for bank, row in zip(banks, labels, strict=True)
        ]
        return {"student": measure_units(banks, units), "teacher": measure_units(banks, of_teacher)}

    def vocoder(self) -> dict[str, Any]:
        """Train the vocoder on the units of one voice, clean and augmented, and save the codec."""
        bank = SpeechBank(self.speech_dir, "hibari", VOCODER_HOURS)
        rows = {held_out: [with_pauses(bank.rows[i]) for i in bank.indices(held_out)] for held_out in (False, True)}
        folder = self.work_dir / "vocoder"
        run_script(
            "train_vocoder.py",
            config=SCRIPTS / "recipes" / "vocoder-cpu.yaml",
            source=write_rows(self.speech_dir / "vocoder.jsonl", rows[False]),
            validation_source=write_rows(self.speech_dir / "vocoder-validation.jsonl", rows[True]),
            layout="manifest",
            codec=self.work_dir / "codebook",
            output_dir=folder,
            num_augmentations=NUM_AUGMENTED,
            max_train_hours=VOCODER_MINUTES / 60,
        )
        save_codec(HubertUnitCodec.from_pretrained(folder), self.work_dir / "out" / "codec")
        return {"run": json.loads((folder / "training_run.json").read_text())}

    def resynthesis(self) -> dict[str, Any]:
        """Word error rates of Whisper base on the originals and on their resynthesis."""
        codec = self.codec()
        recogniser = load_recogniser(str(self.work_dir / "whisper-base"), codec.device)
        figures = {}
        for name in ("hibari", "audiobooks"):
            bank = self.bank(name)
            rows = [bank.rows[index] for index in bank.indices(held_out=True)[:NUM_RESYNTHESIZED]]
            source = str(write_rows(self.speech_dir / f"resynthesis-{name}.jsonl", rows))
            recordings = prepare_recordings(
                self.work_dir / "resynthesis" / name,
                VoiceSourceArguments(source, "manifest"),
                codec,
                PieceRules(),
                PartialState(),
            )
            figures[name] = word_error_rates(codec, recordings, range(len(recordings)), recogniser)
        return figures

    def codec(self) -> HubertUnitCodec:
        """The published codec, or the one without a vocoder before that is trained. Their units are the same."""
        folder = self.work_dir / "out" / "codec"
        return HubertUnitCodec.from_pretrained(folder if folder.exists() else self.work_dir / "codebook")

    def bank(self, name: str) -> SpeechBank:
        """The part of a bank that the teacher listens to."""
        return SpeechBank(self.speech_dir, name, speech.TRAINING_HOURS.get(name, float("inf")))

    def _rows_to_fit(self) -> Iterator[dict[str, Any]]:
        """80 utterances of each English training bank, to fit the codebook on."""
        rng = np.random.default_rng(0)
        for name in speech.TRAINING_HOURS:
            if name not in FOREIGN_SPEAKERS:
                bank = self.bank(name)
                chosen = sorted(rng.permutation(bank.indices(held_out=False))[:80])
                yield from (bank.rows[index] for index in chosen)

    def write_card(self, figures: dict[str, Any]) -> None:
        """Write the codec's card from what the stages measured."""
        codec = self.codec()
        sizes = [part.num_parameters() / 1e6 for part in (codec.encoder, codec.vocoder)]
        (self.work_dir / "out" / "codec" / "README.md").write_text(codec_card(figures, *sizes, NUM_UNITS))


def encode(codec: HubertUnitCodec, waveform: np.ndarray) -> np.ndarray:
    """The unit of each frame of a waveform at 16 kHz."""
    return codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0].numpy()
