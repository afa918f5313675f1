"""Logs the training loss of each corpus of a mixture, and of speech, text and both in turn."""

from collections import Counter
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from .arguments import CorpusConfig
from .batches import BatchTrainer
from .packing import IGNORE_INDEX, AnyDataset


def number_corpora(corpora: list[AnyDataset]) -> list[AnyDataset]:
    """Add the column `corpus` to the packed sequences of each corpus: its place among the corpora of the run."""
    numbered = []
    for number, sequences in enumerate(corpora):
        if isinstance(sequences, Dataset):
            numbered.append(sequences.add_column("corpus", np.full(len(sequences), number)))
        else:
            numbered.append(sequences.map(_add_number, fn_kwargs={"number": number}))
    return numbered


def _add_number(sequence: dict[str, list[int]], number: int) -> dict[str, int]:
    return {"corpus": number}


def name_losses(corpora: list[CorpusConfig]) -> list[list[str]]:
    """
    For each corpus, the names in the logs of the losses that its tokens belong to: `loss_{corpus}` where there are
    several corpora, and `loss_{modality}` where there are several modalities. A corpus is called by its configuration,
    or else by the end of its path, behind its modality if there are several; namesakes are numbered.
    """
    by_modality = Counter(corpus.modality for corpus in corpora)
    if len(corpora) == 1:
        return [[]]
    names, taken = [], set()
    for corpus in corpora:
        parts = [corpus.name or Path(corpus.path).name]
        if len(by_modality) > 1:
            parts.insert(0, corpus.modality)
        name = "_".join(["loss", *parts])
        numbered = (f"{name}_{number}" for number in count(2))
        name = next(one for one in chain([name], numbered) if one not in taken)
        taken.add(name)
        losses = [] if len(by_modality) == 1 else [f"loss_{corpus.modality}"]
        if len(by_modality) == 1 or by_modality[corpus.modality] > 1:
            losses.append(name)
        names.append(losses)
    return names


class CorpusLosses:
    r"""
    Sums up the losses of tokens by corpus, without another pass through the model.

    Args:
        names (`list[list[str]]`):
            The losses that each corpus belongs to, as of [`name_losses`].
    """

    def __init__(self, names: list[list[str]]):
        self.names = names
        self.sums: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, corpus: torch.LongTensor, logits: torch.Tensor, labels: torch.LongTensor) -> None:
        r"""
        Add the sequences of a batch.

        Args:
            corpus (`torch.LongTensor` of shape `(batch,)`):
                The corpus of each sequence.
            logits (`torch.Tensor` of shape `(batch, length, vocab_size)`):
                The logits.
            labels (`torch.LongTensor` of shape `(batch, length)`):
                Targets, not shifted; -100 is ignored.
        """
        if self.sums is None:
            exact = torch.float32 if logits.device.type == "mps" else torch.float64
            self.sums = torch.zeros(len(self.names), 2, dtype=exact, device=logits.device)
        # Row by row: a vocabulary of text makes gigabytes of float32 logits.
        losses = [
            F.cross_entropy(row[:-1].float(), targets[1:], ignore_index=IGNORE_INDEX, reduction="sum")
            for row, targets in zip(logits, labels, strict=True)
        ]
        counts = (labels[:, 1:] != IGNORE_INDEX).sum(dim=1)
        self.sums.index_add_(0, corpus, torch.stack([torch.stack(losses), counts], dim=1).to(self.sums.dtype))

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The mean loss per token of each corpus that has been seen since the last call, over all processes."""
        totals: dict[str, np.ndarray] = {}
        if self.sums is not None:
            for names, sums in zip(self.names, accelerator.reduce(self.sums).tolist(), strict=True):
                for name in names:
                    totals[name] = totals.get(name, 0) + np.array(sums)
            self.sums.zero_()
        return {name: float(loss / count) for name, (loss, count) in totals.items() if count > 0}


class CorpusLossTrainer(BatchTrainer):
    r"""
    A [`BatchTrainer`] that logs the loss of each corpus beside that of all.

    Args:
        loss_names (`list[list[str]]`):
            The losses that each corpus belongs to, as of [`name_losses`]. Sequences have their corpus in a column, as
            from [`number_corpora`].
        trainer_args:
            The arguments of the [`BatchTrainer`].
    """

    def __init__(self, loss_names: list[list[str]], **trainer_args: Any):
        super().__init__(**trainer_args)
        self.corpus_losses = CorpusLosses(loss_names)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        corpus, labels = inputs.pop("corpus", None), inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if corpus is not None and any(self.corpus_losses.names):
            self.corpus_losses.add(corpus, outputs["logits"], labels)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # of training: the same log in all processes
            logs.update(self.corpus_losses.take(self.accelerator))
        super().log(logs, start_time)
