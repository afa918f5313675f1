"""The student: a small HuBERT at 25 Hz that learns to predict the teacher's clusters."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model
from torch import nn
from transformers import HubertConfig, HubertModel, Trainer, TrainingArguments

from slam_hf.codec_training.augmentation import Augmentation

from ..speech_bank import HOP_LENGTH, SpeechBank
from ..timed_training import TIMED, train_for


CROP_FRAMES = 100
BATCH_SIZE = 16
BATCHES_PER_STEP = 2
NUM_REGRESSED = 64
PAD = 40
"""Zeros on both sides of a waveform, in samples: `n` samples then give `n // 640` frames."""


def student_config() -> HubertConfig:
    """3.5 million parameters; the strides multiply to 640 samples, 25 frames a second."""
    return HubertConfig(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        conv_dim=(32, 64, 96, 128, 128, 128, 128, 128),
        conv_kernel=(10, 3, 3, 3, 3, 2, 2, 2),
        conv_stride=(5, 2, 2, 2, 2, 2, 2, 2),
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=16,
        do_stable_layer_norm=True,
        hidden_dropout=0.05,
        attention_dropout=0.05,
        activation_dropout=0.05,
        feat_proj_dropout=0.05,
        final_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
    )


class Student(nn.Module):
    """HuBERT with a linear classifier for each number of clusters, and a linear map to the principal components."""

    def __init__(self, cluster_counts: tuple[int, ...]):
        super().__init__()
        self.hubert = HubertModel(student_config())
        width = self.hubert.config.hidden_size
        self.heads = nn.ModuleDict({str(count): nn.Linear(width, count) for count in cluster_counts})
        self.regression = nn.Linear(width, NUM_REGRESSED)

    def forward(
        self, waveforms: torch.Tensor, labels: torch.Tensor, components: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Mean smoothed cross-entropy to the sets of clusters, and half the smooth L1 distance to the components.

        Waveforms have shape `(batch, num_samples)`, labels `(batch, num_frames, num_cluster_counts)`, with -100 where
        there are none, and components `(batch, num_frames, 64)`.
        """
        with torch.autocast("cpu", torch.bfloat16):
            states = self.hubert(nn.functional.pad(waveforms, (PAD, PAD))).last_hidden_state
        known = labels[..., 0] >= 0
        states = states.float()[known]
        losses = [
            nn.functional.cross_entropy(head(states), labels[known][:, index], label_smoothing=0.05)
            for index, head in enumerate(self.heads.values())
        ]
        regression = nn.functional.smooth_l1_loss(self.regression(states), components[known])
        return {"loss": torch.stack(losses).mean() + 0.5 * regression}


class Targets:
    """Clusters (one array per number of clusters) and scaled principal components of a bank's frames."""

    def __init__(self, path: Path, cluster_counts: tuple[int, ...]):
        arrays = np.load(path)
        self.labels = np.stack([arrays[f"labels_{count}"] for count in cluster_counts], axis=1)
        self.components = arrays["components"]


class Crops(torch.utils.data.IterableDataset):
    r"""
    Random training crops of 4 s: utterances of one bank one after the other, at one speed, augmented.

    Each is a waveform `(64000,)`, labels `(100, num_cluster_counts)` (-100: none) and components `(100, 64)`.

    Args:
        banks (`list[SpeechBank]`):
            Where utterances come from.
        shares (`list[float]`):
            How often each bank is drawn, relative to the others.
        targets (`list[Targets]`):
            The targets of each bank.
        seed (`int`):
            Seed of the draws.
    """

    def __init__(self, banks: list[SpeechBank], shares: list[float], targets: list[Targets], seed: int):
        self.banks, self.targets, self.seed = banks, targets, seed
        self.utterances = [
            [index for index in bank.indices(held_out=False) if bank.num_frames(index) >= 10] for bank in banks
        ]
        self.probabilities = np.array(shares) / sum(shares)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        while True:
            yield self._crop(rng)

    def _crop(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = rng.choice(len(self.banks), p=self.probabilities)
        bank, targets = self.banks[chosen], self.targets[chosen]
        waveform = np.zeros(CROP_FRAMES * HOP_LENGTH, np.float32)
        labels = np.full((CROP_FRAMES, targets.labels.shape[1]), -100, np.int64)
        components = np.zeros((CROP_FRAMES, NUM_REGRESSED), np.float32)
        speed = rng.uniform(0.82, 1.22) if rng.random() < 0.6 else 1.0
        position = 0
        while position < CROP_FRAMES - 10:
            index = self.utterances[chosen][rng.integers(len(self.utterances[chosen]))]
            samples = change_speed(bank.waveform(index), speed)
            length = len(samples) // HOP_LENGTH
            skipped = int(rng.integers(0, max(1, length // 3))) if position == 0 else 0
            taken = min(length - skipped, CROP_FRAMES - position)
            start = position * HOP_LENGTH
            waveform[start : start + taken * HOP_LENGTH] = samples[
                skipped * HOP_LENGTH : (skipped + taken) * HOP_LENGTH
            ]
            sources = ((np.arange(skipped, skipped + taken) + 0.5) * speed).astype(int)
            sources = bank.frame_offsets[index] + np.minimum(sources, bank.num_frames(index) - 1)
            labels[position : position + taken] = targets.labels[sources]
            components[position : position + taken] = targets.components[sources]
            position += taken + int(rng.integers(0, 3))
        waveform = Augmentation(int(rng.integers(2**31)))("crop", waveform)
        return {"waveforms": waveform, "labels": labels, "components": components}


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Play a waveform `speed` times as fast: its tempo, pitch and formants change together."""
    if speed == 1.0:
        return waveform
    positions = np.arange(0, len(waveform) - 1, speed)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)


def train_student(crops: Crops, cluster_counts: tuple[int, ...], minutes: float, folder: Path) -> dict[str, float]:
    """Train the student for a given number of CPU minutes, or continue its training. Returns the figures of
    [`train_for`] and the hours of audio that it has heard."""
    args = TrainingArguments(
        str(folder),
        **TIMED,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=BATCHES_PER_STEP,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0.02,
        adam_beta2=0.98,
        weight_decay=0.01,
        dataloader_num_workers=1,
    )
    torch.manual_seed(0)
    figures = train_for(Trainer(Student(cluster_counts), args, train_dataset=crops), minutes)
    num_crops = figures["steps"] * BATCHES_PER_STEP * BATCH_SIZE
    return figures | {"audio_hours_heard": num_crops * CROP_FRAMES / 25 / 3600}


def load_student(folder: Path, cluster_counts: tuple[int, ...]) -> Student:
    """The trained student."""
    student = Student(cluster_counts)
    load_model(student, folder / "model.safetensors")
    return student
