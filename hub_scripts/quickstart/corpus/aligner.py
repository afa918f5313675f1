"""The aligner of the corpus: a small CTC network from units to letters, and the times of words that it gives.

The network sees the centroids of the units, which are the codec's quantised states. So it takes any recording that
`codec.encode` has encoded, and the corpus, which keeps only units, without any audio.
"""

import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from slam_hf.corpora.alignment.forced_alignment import align_words
from slam_hf.corpora.alignment.word_times import UnalignableError, split_words, timed_words
from slam_hf.encoding.length_groups import group_by_length
from slam_hf.encoding.recordings import SkipReason

from ..timed_training import TIMED, train_for


LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BLANK, DELIMITER, NUM_TOKENS = 0, 1, len(LETTERS) + 2

OUTPUTS_PER_FRAME = 2
"""In places there are more letters than the codec's 25 frames a second: the network has an output for each 20 ms."""

WIDTH = 160
KERNEL_SIZE = 5
NUM_LAYERS = 3
"""A letter is decided from the 0.5 s around it. A wider view would let the network write letters late or early."""

BATCH_FRAMES = 5_000
WARMUP_SHARE = 0.1


class Aligner(nn.Module):
    r"""
    Scores of letters from units.

    Args:
        centroids (`torch.FloatTensor` of shape `(num_units, state_size)`):
            The codebook of the codec.
        frame_rate (`float`):
            Frames of the codec in a second.
    """

    def __init__(self, centroids: torch.Tensor, frame_rate: float):
        super().__init__()
        self.frame_rate = frame_rate
        self.register_buffer("centroids", nn.functional.layer_norm(centroids, centroids.shape[1:]))
        self.projection = nn.Linear(centroids.shape[1], WIDTH)
        convolutions = [nn.Conv1d(WIDTH, WIDTH, KERNEL_SIZE, padding="same") for _ in range(NUM_LAYERS)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(NUM_LAYERS)])
        self.upsampling = nn.Linear(WIDTH, WIDTH * OUTPUTS_PER_FRAME)
        self.norm = nn.LayerNorm(WIDTH)
        self.letters = nn.Linear(WIDTH, NUM_TOKENS)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Units of shape `(batch, num_frames)` to log-probabilities of shape `(batch, 2 * num_frames, num_tokens)`."""
        states = nn.functional.embedding(frames, self.projection(self.centroids))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            states = states + nn.functional.gelu(convolution(norm(states).mT)).mT
        states = nn.functional.gelu(self.upsampling(states)).unflatten(2, (OUTPUTS_PER_FRAME, WIDTH)).flatten(1, 2)
        return self.letters(self.norm(states)).log_softmax(-1)

    @torch.inference_mode()
    def align(self, units: Sequence[int], durations: Sequence[int], text: str) -> list[dict[str, Any]]:
        """The words of a text with their times in an utterance, given as units and their durations in frames.
        [`UnalignableError`] says why the text cannot be aligned."""
        words = split_words(text)
        letters = [to_letters(word) for word in words]
        if not words:
            raise UnalignableError(SkipReason.NO_TEXT, "no letters and digits")
        if unknown := [word for word, of_word in zip(words, letters, strict=True) if not of_word]:
            raise UnalignableError(SkipReason.UNKNOWN_CHARACTERS, unknown[0])
        log_probabilities = self(torch.from_numpy(repeat_units(units, durations))[None])[0]
        seconds = 1 / (self.frame_rate * OUTPUTS_PER_FRAME)
        spans = align_words(log_probabilities, letters, BLANK, DELIMITER)
        return timed_words(words, [(start * seconds, end * seconds) for start, end in spans])


def to_letters(text: str) -> list[int]:
    """Ids of the letters of a text and, between words, of the delimiter."""
    words = ("".join(re.findall(f"[{LETTERS}]", word)) for word in text.lower().split())
    return [DELIMITER if letter == " " else LETTERS.index(letter) + 2 for letter in " ".join(filter(None, words))]


def repeat_units(units: Sequence[int], durations: Sequence[int]) -> np.ndarray:
    """The unit of each frame."""
    return np.repeat(np.asarray(units, np.int64), durations)


class Batches(torch.utils.data.IterableDataset):
    """Batches of utterances of similar lengths, in another order in each pass, from rows of a tokenised corpus with
    text: the units of each frame, and as labels the letters and how many frames and letters there are."""

    def __init__(self, rows: Sequence[dict[str, Any]]):
        utterances = [(repeat_units(r["units"], r["durations"]), to_letters(r["text"])) for r in rows]
        groups = group_by_length([len(units) for units, _ in utterances], BATCH_FRAMES)
        self.batches = [[utterances[position] for position in group] for group in groups]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        while True:
            for position in rng.permutation(len(self.batches)):
                frames, letters = zip(*self.batches[position], strict=True)
                yield {
                    "frames": nn.utils.rnn.pad_sequence([torch.from_numpy(units) for units in frames], True),
                    "labels": (
                        torch.tensor([letter for of_row in letters for letter in of_row]),
                        torch.tensor([len(units) for units in frames]),
                        torch.tensor([len(of_row) for of_row in letters]),
                    ),
                }


def ctc_loss(outputs: torch.Tensor, labels: tuple[torch.Tensor, ...], **_: Any) -> torch.Tensor:
    """The loss in nats per letter, of log-probabilities and the labels of [`Batches`]."""
    letters, num_frames, num_letters = labels
    lengths = num_frames * OUTPUTS_PER_FRAME
    loss = nn.functional.ctc_loss(
        outputs.transpose(0, 1), letters, lengths, num_letters, BLANK, "sum", zero_infinity=True
    )
    return loss / len(letters)


def train_aligner(aligner: Aligner, rows: Sequence[dict[str, Any]], minutes: float, folder: Path) -> dict[str, float]:
    r"""
    Train an aligner, or continue a training.

    Args:
        aligner (`Aligner`):
            Trained in place.
        rows (sequence of `dict`):
            Rows of a tokenised corpus with text.
        minutes (`float`):
            CPU minutes to train.
        folder (`Path`):
            Folder for checkpoints and the model.

    Returns:
        `dict`: the figures of [`train_for`]; the loss is in nats per letter.
    """
    args = TrainingArguments(
        str(folder),
        **TIMED,
        per_device_train_batch_size=1,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP_SHARE,
        weight_decay=0.01,
    )
    trainer = Trainer(
        aligner, args, data_collator=itemgetter(0), train_dataset=Batches(rows), compute_loss_func=ctc_loss
    )
    return train_for(trainer, minutes)
