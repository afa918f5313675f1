"""The student: a small HuBERT at 25 Hz that learns to predict the teacher's clusters."""

import queue
import threading
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import HubertConfig, HubertModel

from ..speech_bank import HOP_LENGTH, SpeechBank
from .augmentation import augment, change_speed
from .timed_training import train_for


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

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.hubert(nn.functional.pad(waveforms, (PAD, PAD))).last_hidden_state

    def states(self, waveforms: torch.Tensor) -> torch.Tensor:
        """States of the last layer, before the norm that follows it, as the codec quantises them."""
        padded = nn.functional.pad(waveforms, (PAD, PAD))
        return self.hubert(padded, output_hidden_states=True).hidden_states[-1]


class Targets:
    """Clusters (one array per number of clusters) and scaled principal components of a bank's frames."""

    def __init__(self, path: Path, cluster_counts: tuple[int, ...]):
        arrays = np.load(path)
        self.labels = np.stack([arrays[f"labels_{count}"] for count in cluster_counts], axis=1)
        self.components = arrays["components"]


class CropSampler:
    r"""
    Random training crops of 4 s: utterances of one bank one after the other, at one speed, augmented.

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
        self.banks, self.targets = banks, targets
        self.rng = np.random.default_rng(seed)
        self.utterances = [
            [index for index in bank.indices(held_out=False) if bank.rows[index].num_frames >= 10] for bank in banks
        ]
        self.probabilities = np.array(shares) / sum(shares)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Waveforms `(16, 64000)`, labels `(16, 100, num_cluster_counts)` (-100: none), components `(16, 100, 64)`."""
        crops = [self._crop() for _ in range(BATCH_SIZE)]
        return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*crops, strict=True))

    def _crop(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = self.rng.choice(len(self.banks), p=self.probabilities)
        bank, targets = self.banks[chosen], self.targets[chosen]
        waveform = np.zeros(CROP_FRAMES * HOP_LENGTH, np.float32)
        labels = np.full((CROP_FRAMES, targets.labels.shape[1]), -100, np.int64)
        components = np.zeros((CROP_FRAMES, NUM_REGRESSED), np.float32)
        speed = self.rng.uniform(0.82, 1.22) if self.rng.random() < 0.6 else 1.0
        position = 0
        while position < CROP_FRAMES - 10:
            index = self.utterances[chosen][self.rng.integers(len(self.utterances[chosen]))]
            samples = change_speed(bank.waveform(index), speed)
            length = len(samples) // HOP_LENGTH
            skipped = int(self.rng.integers(0, max(1, length // 3))) if position == 0 else 0
            taken = min(length - skipped, CROP_FRAMES - position)
            start = position * HOP_LENGTH
            waveform[start : start + taken * HOP_LENGTH] = samples[
                skipped * HOP_LENGTH : (skipped + taken) * HOP_LENGTH
            ]
            sources = ((np.arange(skipped, skipped + taken) + 0.5) * speed).astype(int)
            sources = bank.frame_offsets[index] + np.minimum(sources, bank.rows[index].num_frames - 1)
            labels[position : position + taken] = targets.labels[sources]
            components[position : position + taken] = targets.components[sources]
            position += taken + int(self.rng.integers(0, 3))
        return augment(waveform, self.rng), labels, components


def train_student(
    sampler: CropSampler, cluster_counts: tuple[int, ...], minutes: float, checkpoint: Path, peak_rate: float = 1e-3
) -> dict[str, float]:
    r"""
    Train the student for a given CPU time.

    Args:
        sampler ([`CropSampler`]):
            The training data.
        cluster_counts (`tuple[int, ...]`):
            Numbers of clusters.
        minutes (`float`):
            CPU minutes to train.
        checkpoint (`Path`):
            File for the state. Training resumes from it if it exists.
        peak_rate (`float`, *optional*, defaults to 1e-3):
            Highest learning rate, after 200 steps of warm-up; it falls to 0 linearly in time.

    Returns:
        `dict`: steps, CPU minutes, the last loss and hours of audio seen.
    """
    torch.manual_seed(0)
    student = Student(cluster_counts)
    optimizer = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    batches = _prefetch(sampler)

    def compute_loss() -> torch.Tensor:
        waveforms, labels, components = batches.get()
        with torch.autocast("cpu", torch.bfloat16):
            states = student(waveforms)
        return _loss(student, states.float(), labels, components)

    def learning_rate(share: float, step: int) -> float:
        return peak_rate * min(1.0, (step + 1) / 200) * max(0.01, 1 - share)

    figures = train_for(minutes, student, optimizer, compute_loss, learning_rate, 1.0, checkpoint, BATCHES_PER_STEP)
    num_crops = figures["steps"] * BATCHES_PER_STEP * BATCH_SIZE
    return figures | {"audio_hours_seen": num_crops * CROP_FRAMES / 25 / 3600}


def load_student(checkpoint: Path, cluster_counts: tuple[int, ...]) -> Student:
    """The trained student, in evaluation mode."""
    student = Student(cluster_counts)
    student.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])  # noqa: TID251 (weights_only)
    return student.eval()


def _loss(student: Student, states: torch.Tensor, labels: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
    """Mean smoothed cross-entropy to the sets of clusters, and half the smooth L1 distance to the components."""
    known = labels[..., 0] >= 0
    regression = nn.functional.smooth_l1_loss(student.regression(states)[known], components[known])
    losses = [
        nn.functional.cross_entropy(head(states[known]), labels[known][:, index], label_smoothing=0.05)
        for index, head in enumerate(student.heads.values())
    ]
    return torch.stack(losses).mean() + 0.5 * regression


def _prefetch(sampler: CropSampler) -> queue.Queue:
    batches: queue.Queue = queue.Queue(4)

    def fill() -> None:
        while True:
            batches.put(sampler.batch())

    threading.Thread(target=fill, daemon=True).start()
    return batches
