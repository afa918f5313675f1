"""The stages that make the codec: speech, the teacher's states, the student, its codebook and the vocoder."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slam_hf import HubertUnitCodec

from ..speech_bank import SpeechBank
from . import speech, student, targets, teacher, vocoder_training, voice_sampler, whisper
from .card import codec_card
from .encoding import encode, encode_utterance, make_codec, round_to_half, save_codec, student_states
from .measures import word_error_rate
from .recordings import FOREIGN_SPEAKERS
from .resynthesis import resynthesize, save_examples
from .unit_evaluation import EVALUATED, evaluate_units, mfcc_frames, mfcc_units


STAGES = ("speech", "teacher", "targets", "student", "baselines", "codebook", "units", "vocoder", "resynthesis")

CLUSTER_COUNTS = (200, 500)
"""Numbers of teacher clusters that the student learns, and sizes of the codebooks that are compared."""

NUM_UNITS = 500
"""Size of the published codebook, that of mHuBERT-25Hz: with more units, more of the phones is kept."""

STUDENT_MINUTES = 166.0
VOCODER_MINUTES = 134.0
"""CPU time of training. The published student was trained in three runs (45, 55 and 66 minutes): the first without
`steel-sky` and formant shifts, the second without Kokoro's voices, both with batches of half the size. The vocoder was
trained in four (45, 35, 24 and 30): three on units of clean speech, with batches of half the size, each starting from
the mean embedding of the former units of each unit's frames; the last on today's data."""

VOCODER_HOURS = 2.0
"""Training speech of the vocoder."""

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
        for name in ("teacher", "targets", "units", "out"):
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
        books = {count: targets.fit_kmeans(sample_points, count) for count in CLUSTER_COUNTS}
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
        sampler = student.CropSampler([self.bank(name) for name in names], shares, training_targets, seed=0)
        return student.train_student(sampler, CLUSTER_COUNTS, STUDENT_MINUTES, self.work_dir / "student.pt")

    def baselines(self) -> dict[str, Any]:
        """Measure the units of MFCCs and of the teacher."""
        fitted = self._utterances_to_fit()
        cepstra = np.concatenate([mfcc_frames(bank.waveform(i)) for bank, indices in fitted for i in indices])
        banks = {name: self.bank(name) for name in EVALUATED}
        figures = {}
        for count in CLUSTER_COUNTS:
            figures[f"mfcc_{count}"] = evaluate_units(banks, partial(mfcc_units, targets.fit_kmeans(cepstra, count)))
            labels = {name: np.load(self.work_dir / "targets" / f"{name}.npz")[f"labels_{count}"] for name in banks}
            figures[f"teacher_{count}"] = evaluate_units(
                banks, lambda bank, index, labels=labels: labels[bank.voice][bank.frames(index)]
            )
        return figures

    def codebook(self) -> dict[str, Any]:
        """Cluster the student's states into codebooks, and measure their units."""
        model = student.load_student(self.work_dir / "student.pt", CLUSTER_COUNTS)
        round_to_half(model)
        states = np.concatenate([student_states(model, *utterances) for utterances in self._utterances_to_fit()])
        banks = {name: self.bank(name) for name in EVALUATED}
        figures = {"fitted_frames": len(states)}
        for count in CLUSTER_COUNTS:
            book = targets.fit_kmeans(states, count)
            np.save(self.work_dir / f"codebook-{count}.npy", book)
            figures[f"student_{count}"] = evaluate_units(banks, partial(encode_utterance, make_codec(model, book)))
        return figures

    def units(self) -> dict[str, Any]:
        """Encode the vocoder's training speech, clean and augmented."""
        bank = SpeechBank(self.speech_dir, "hibari", VOCODER_HOURS)
        versions = voice_sampler.encode_versions(self.encoder(), bank)
        np.save(self.work_dir / "units" / "hibari.npy", versions.astype(np.int16))
        return {"versions": len(versions), "hours": bank.hours}

    def vocoder(self) -> dict[str, Any]:
        """Train the vocoder and its duration predictor; save the codec."""
        bank = SpeechBank(self.speech_dir, "hibari", VOCODER_HOURS)
        units = np.load(self.work_dir / "units" / "hibari.npy")
        vocoder = vocoder_training.make_vocoder(NUM_UNITS)
        sampler = voice_sampler.VoiceSampler(bank, units, seed=1)
        figures = vocoder_training.train_generator(
            vocoder, sampler, VOCODER_MINUTES, self.work_dir / "vocoder.pt", peak_rate=1e-3, final_rate=1e-5
        )
        figures["duration_loss"] = vocoder_training.train_durations(vocoder, sampler.sequences())
        codec = self.encoder()
        codec = HubertUnitCodec.from_parts(codec.encoder, codec.codebook, layer=4, vocoder=vocoder)
        save_codec(codec, self.work_dir / "out" / "codec")
        return figures

    def resynthesis(self) -> dict[str, Any]:
        """Word error rates of Whisper base on the originals and on their resynthesis."""
        codec, folder = self.codec(), self.work_dir / "whisper-base"
        figures = {}
        for name in ("hibari", "audiobooks"):
            bank = self.bank(name)
            indices = bank.indices(held_out=True)[:NUM_RESYNTHESIZED]
            originals = [bank.waveform(index) for index in indices]
            units = [torch.from_numpy(encode(codec, waveform)) for waveform in originals]
            transcripts = {"original": whisper.transcribe(folder, originals)}
            for version in ("true_durations", "predicted_durations"):
                waveforms = [resynthesize(codec, sequence, version == "predicted_durations") for sequence in units]
                transcripts[version] = whisper.transcribe(folder, waveforms)
                examples = self.work_dir / "examples" / f"{name}_{version}"
                save_examples(examples, waveforms[:5], transcripts[version][:5])
            # The LibriSpeech clips come without text: there, the transcript of the original is the reference.
            known = zip(indices, transcripts["original"], strict=True)
            references = [bank.rows[index].text or transcript for index, transcript in known]
            figures[f"{name}_word_error_rates"] = {
                version: word_error_rate(references, hypotheses) for version, hypotheses in transcripts.items()
            }
        return figures

    def encoder(self) -> HubertUnitCodec:
        """The codec without a vocoder."""
        model = student.load_student(self.work_dir / "student.pt", CLUSTER_COUNTS)
        return make_codec(model, np.load(self.work_dir / f"codebook-{NUM_UNITS}.npy"))

    def codec(self) -> HubertUnitCodec:
        """The published codec, or the encoder alone before the vocoder is trained. Their units are the same."""
        folder = self.work_dir / "out" / "codec"
        return HubertUnitCodec.from_pretrained(folder) if (folder / "config.json").exists() else self.encoder()

    def bank(self, name: str) -> SpeechBank:
        """The part of a bank that the teacher listens to."""
        return SpeechBank(self.speech_dir, name, speech.TRAINING_HOURS.get(name, float("inf")))

    def _utterances_to_fit(self) -> list[tuple[SpeechBank, list[int]]]:
        """80 utterances of each English training bank, to fit codebooks on."""
        rng = np.random.default_rng(0)
        banks = [self.bank(name) for name in speech.TRAINING_HOURS if name not in FOREIGN_SPEAKERS]
        return [(bank, sorted(rng.permutation(bank.indices(held_out=False))[:80])) for bank in banks]

    def write_card(self, figures: dict[str, Any]) -> None:
        """Write the codec's card from what the stages measured."""
        codec = self.codec()
        sizes = [part.num_parameters() / 1e6 for part in (codec.encoder, codec.vocoder)]
        (self.work_dir / "out" / "codec" / "README.md").write_text(codec_card(figures, *sizes, NUM_UNITS))
