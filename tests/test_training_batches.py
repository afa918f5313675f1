from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from training_utils import random_sequences, tiny_speech_lm
from transformers import TrainingArguments

from slam_hf.training.batches import BatchTrainer, StepSampler, divide_batch
from slam_hf.training.packing import PackingCollator


@pytest.mark.parametrize(
    ("processes", "divided"),
    [(1, (4, 4)), (2, (4, 2)), (3, (3, 2)), (4, (4, 1)), (8, (2, 1)), (16, (1, 1)), (32, (1, 1))],
)
def test_a_batch_is_divided_among_any_number_of_processes(processes, divided, monkeypatch, capsys):
    monkeypatch.setattr(TrainingArguments, "world_size", processes)
    args = TrainingArguments(per_device_train_batch_size=4, gradient_accumulation_steps=1, use_cpu=True)
    divide_batch(args, 16)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == divided
    empty = divided[0] * divided[1] * processes - 16
    printed = capsys.readouterr().out
    assert ("The batch is 16 sequences, not" in printed) == (processes != 4)
    assert (f"{empty} more places" in printed) == (empty > 0)


@pytest.mark.parametrize("num_places", [4, 6])
def test_each_epoch_has_every_sequence_once_in_the_same_steps(num_places):
    def epoch(step, num_places):
        trainer = SimpleNamespace(
            train_dataset=range(10 + 1),
            num_sequences=4,
            num_places=num_places,
            args=SimpleNamespace(seed=0, data_seed=None),
            state=SimpleNamespace(global_step=step),
        )
        indices = list(StepSampler(trainer))
        assert len(StepSampler(trainer)) == len(indices) == 3 * num_places
        steps = [indices[start : start + num_places] for start in range(0, len(indices), num_places)]
        return [[index for index in step if index < 10] for step in steps]

    first, second = epoch(0, num_places), epoch(3, num_places)
    assert [len(step) for step in first] == [4, 4, 2]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(10))
    assert first != second
    assert (first, second) == (epoch(0, 4), epoch(5, 4))


def train(tmp_path, sequences: Dataset | IterableDataset, num_sequences: int, **training_args):
    args = {"max_steps": 4, "logging_steps": 1, "learning_rate": 1e-2, "save_strategy": "no", **training_args}
    args = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **args,
    )
    trainer = BatchTrainer(
        num_sequences, sequences, model=tiny_speech_lm(), args=args, data_collator=PackingCollator(16)
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_places_change_nothing(tmp_path, streaming):
    sequences = random_sequences(20)
    if streaming:
        sequences = sequences.to_iterable_dataset().repeat(None)
    full = train(tmp_path, sequences, 6, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    gaps = train(tmp_path, sequences, 6, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    assert (full.num_places, gaps.num_places) == (6, 12)
    losses = [[log["loss"] for log in trainer.state.log_history if "loss" in log] for trainer in (full, gaps)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert full.state.epoch == gaps.state.epoch
    torch.testing.assert_close(full.model.state_dict(), gaps.model.state_dict(), atol=1e-5, rtol=0)


def test_a_stream_with_gaps_has_its_sequences_in_order(tmp_path):
    stream = random_sequences(20).to_iterable_dataset().repeat(None)
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, max_steps=1, use_cpu=True)
    trainer = BatchTrainer(3, stream, model=tiny_speech_lm(), args=args)
    filled = list(islice(trainer.train_dataset, 8))
    assert [len(row["input_ids"]) for row in filled[3::4]] == [0, 0]
    assert [row for row in filled if row["input_ids"]] == list(stream.take(6))
