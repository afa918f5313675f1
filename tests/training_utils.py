"""A training run of a second, for tests of what goes on in one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from slam_hf import HubertUnitTokenizer, SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.training.packing import PackingCollator


CONTEXT_LENGTH = 16
BATCH_SIZE = 4

BASE_CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def tiny_speech_lm(**base_config) -> SpeechLMForCausalLM:
    """A speech language model of 50 units with random weights, always the same."""
    torch.manual_seed(0)
    return SpeechLMForCausalLM(SpeechLMConfig(base_config=BASE_CONFIG | base_config, vocab_size=52))


def random_sequences(count: int) -> Dataset:
    """Packed sequences of two documents each, between 10 and 16 tokens long."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 9, size=(count, 2))
    ids = [generator.integers(2, 52, size=total).tolist() for total in lengths.sum(axis=1)]
    return Dataset.from_dict({"input_ids": ids, "seq_lengths": lengths.tolist()})


def make_trainer(
    output_dir: Path,
    callbacks: Sequence[TrainerCallback] = (),
    sequences: Dataset | IterableDataset | None = None,
    model: SpeechLMForCausalLM | None = None,
    trainer_class: Callable[..., Trainer] = Trainer,
    **training_args,
) -> Trainer:
    """A trainer, the stock one by default, on packed sequences, with the learning-rate schedule of the Slam recipe."""
    settings = {
        "per_device_train_batch_size": BATCH_SIZE,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-4},
        "warmup_steps": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        **training_args,
    }
    trainer = trainer_class(
        model=model or tiny_speech_lm(),
        args=TrainingArguments(
            output_dir=str(output_dir),
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            include_num_input_tokens_seen="non_padding",
            **settings,
        ),
        data_collator=PackingCollator(CONTEXT_LENGTH),
        train_dataset=sequences or random_sequences(20),
        processing_class=HubertUnitTokenizer(num_units=50),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer: Trainer, name: str) -> list[float]:
    """What the trainer logged under a name, step by step."""
    return [log[name] for log in trainer.state.log_history if name in log and "loss" in log]
