import json
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, IterableDataset, concatenate_datasets
from safetensors.torch import load_file
from training_utils import BASE_CONFIG, make_trainer, random_sequences, tiny_speech_lm
from transformers import Trainer, TrainingArguments

from slam_hf.training.batches import BatchTrainer, StepSampler, divide_batch
from slam_hf.training.packing import PackingCollator


ROOT = Path(__file__).parent.parent


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
    assert ("The batch is 16, not" in printed) == (processes != 4)
    assert (f"{empty} more places" in printed) == (empty > 0)


@pytest.mark.parametrize("num_places", [4, 6])
def test_each_epoch_has_every_sequence_once_in_the_same_steps(num_places):
    def epoch(step, num_places):
        trainer = SimpleNamespace(
            args=SimpleNamespace(seed=0, data_seed=None), state=SimpleNamespace(global_step=step)
        )
        sampler = StepSampler(trainer, 10, 4, num_places, empty_row=10)
        indices = list(sampler)
        assert len(sampler) == len(indices) == 3 * num_places
        steps = [indices[start : start + num_places] for start in range(0, len(indices), num_places)]
        return [[index for index in step if index < 10] for step in steps]

    first, second = epoch(0, num_places), epoch(3, num_places)
    assert [len(step) for step in first] == [4, 4, 2]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(10))
    assert first != second
    assert (first, second) == (epoch(0, 4), epoch(5, 4))


def test_pairs_fill_the_last_batch_of_an_epoch():
    state = SimpleNamespace(global_step=0)
    trainer = SimpleNamespace(args=SimpleNamespace(seed=0, data_seed=None), state=state)
    indices = list(StepSampler(trainer, 5, 4, 4))
    assert sorted(indices[:5]) == list(range(5))
    assert indices[5:] == indices[:3]
    few = list(StepSampler(trainer, 2, 8, 8))
    assert few == 4 * few[:2]


def train(tmp_path, sequences: Dataset | IterableDataset, num_sequences: int | None, **training_args) -> Trainer:
    """Train the tiny model: with the stock trainer, where no number of sequences is given."""
    trainer_class = Trainer if num_sequences is None else partial(BatchTrainer, num_sequences)
    trainer = make_trainer(tmp_path, (), sequences, trainer_class=trainer_class, **{"max_steps": 4, **training_args})
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


def test_one_process_trains_as_the_stock_trainer_does(tmp_path):
    args = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 6}
    ours, stock = (train(tmp_path, random_sequences(20), count, **args) for count in (6, None))
    torch.testing.assert_close(ours.model.state_dict(), stock.model.state_dict(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_loss_of_an_evaluation_is_the_mean_over_its_tokens(tmp_path, batch_size, streaming):
    model, sequences = tiny_speech_lm().eval(), random_sequences(7)
    total, num_tokens = 0.0, 0
    for sequence in sequences:
        batch = PackingCollator(16)([sequence])
        count = (batch["labels"] != -100).sum().item()
        total, num_tokens = total + count * model(**batch).loss.item(), num_tokens + count
    held_out = sequences.to_iterable_dataset() if streaming else sequences
    trainer_class = partial(BatchTrainer, 8, eval_dataset={"a": held_out})
    trainer = make_trainer(tmp_path, model=model, trainer_class=trainer_class, per_device_eval_batch_size=batch_size)
    assert trainer.evaluate()["eval_a_loss"] == pytest.approx(total / num_tokens, abs=1e-6)


def test_an_evaluation_bears_batches_without_a_target_and_a_dataset_without_a_row(tmp_path):
    sequences = random_sequences(3)
    token = Dataset.from_list([{"input_ids": [1], "seq_lengths": [1]}], features=sequences.features)
    held_out = {"all": sequences, "more": concatenate_datasets([sequences, token]), "none": sequences.select([])}
    trainer_class = partial(BatchTrainer, 8, eval_dataset=held_out)
    losses = make_trainer(tmp_path, trainer_class=trainer_class, per_device_eval_batch_size=1).evaluate()
    assert losses["eval_more_loss"] == losses["eval_all_loss"]
    assert "eval_none_loss" not in losses


def test_a_stream_with_gaps_has_its_sequences_in_order(tmp_path):
    stream = random_sequences(20).to_iterable_dataset().repeat(None)
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, max_steps=1, use_cpu=True)
    trainer = BatchTrainer(3, stream, model=tiny_speech_lm(), args=args)
    filled = list(islice(trainer.train_dataset, 8))
    assert [len(row["input_ids"]) for row in filled[3::4]] == [0, 0]
    assert [row for row in filled if row["input_ids"]] == list(stream.take(6))


# Forks the processes of each stage of a run, which ends at a step, from one that has imported everything.
STAGES = """
import json, os, sys
from functools import partial
import torch.distributed
import transformers.trainer
from accelerate import debug_launcher
from slam_hf.command_line import parse_arguments
sys.path += ["hub_scripts", "tests"]
import pretrain
from launched_script import Disturb, take_cpus_for_gpus

class Stop(Disturb):
    last_step = None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.last_step:
            raise KeyboardInterrupt

def train(command, last_step):
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())
    if "ACCELERATE_USE_FSDP" in os.environ:
        del os.environ["ACCELERATE_USE_CPU"]
        take_cpus_for_gpus()
    Stop.last_step = last_step
    transformers.trainer.DEFAULT_CALLBACKS.append(Stop)
    classes = (pretrain.PretrainArguments,), (pretrain.TrainingArguments, pretrain.ModelArguments)
    try:
        pretrain.main(*parse_arguments(pretrain.__doc__, *classes, command))
    except KeyboardInterrupt:
        pass

if __name__ == "__main__":
    for command, last_step, num_processes in json.loads(sys.argv[1]):
        print(num_processes, "processes, until step", last_step, flush=True)
        debug_launcher(train, (command, last_step), num_processes)
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, dict]:
    """Settings of runs on corpora of two files each: one, two with weights, streamed ones and an interleaved one."""
    folder = tmp_path_factory.mktemp("corpora")
    generator = np.random.default_rng(0)
    times = [{"word": f" word{n}", "start_time": 0.2 * n, "end_time": 0.2 * (n + 1)} for n in range(4)]
    for name in ("one", "two"):
        for split, count in (("train-0", 40), ("train-1", 33), ("validation", 5)):
            units = generator.integers(50, size=(count, 10)).tolist()
            rows = {"units": units, "durations": [[2] * 10] * count, "aligned_text": [times] * count}
            Dataset.from_dict(rows).to_parquet(folder / name / f"{split}.parquet")
        (folder / name / "README.md").write_text("---\nframe_rate: 25\n---\n")
    one, two = ({"path": str(folder / name), "weight": weight} for weight, name in ((1, "one"), (3, "two")))
    return {
        "packed": {"datasets": [one["path"]]},
        "weighted": {"datasets": [one, two]},
        "streamed": {"datasets": [one, two], "streaming": True, "dataloader_num_workers": 2},
        "interleaved": {
            "datasets": [one, {**two, "modality": "interleaved"}],
            "text_tokenizer": "quickstart:tokenizer",
        },
        "sharded": {"datasets": [one["path"]], "use_cpu": False},
        "sharded adapters": {"datasets": [one["path"]], "use_cpu": False, "use_peft": True, "lora_dropout": 0.0},
    }


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("kind", ["packed", "weighted", "streamed", "interleaved", "sharded", "sharded adapters"])
def test_a_run_continues_on_other_numbers_of_processes(tmp_path, corpora, kind, capfd, monkeypatch, record_property):
    if "sharded" in kind:
        settings = yaml.safe_load((ROOT / "hub_scripts" / "accelerate_configs" / "fsdp.yaml").read_text())
        for name, value in {"accelerate_use_fsdp": True, **settings["fsdp_config"]}.items():
            monkeypatch.setenv(name.upper(), str(value))
    recipe = {"use_cpu": True, "base_config": BASE_CONFIG, "num_units": 50, "context_length": 24, **corpora[kind]}
    recipe |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
    recipe |= {"max_steps": 12, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "disable_tqdm": True}
    recipe |= {"dataloader_pin_memory": False, "resume_from_checkpoint": "latest"}
    recipe |= {"report_to": "none", "ddp_find_unused_parameters": False, "eval_strategy": "steps", "eval_steps": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    command = ["--config", str(tmp_path / "recipe.yaml"), "--output_dir"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Eight sequences in a step: three processes have twelve places for them.
    stages = [([*command, str(cut)], last_step, count) for count, last_step in ((2, 3), (1, 7), (3, 9), (2, None))]
    stages = json.dumps([([*command, str(whole)], None, 2), *stages])
    (tmp_path / "stages.py").write_text(STAGES)
    subprocess.run([sys.executable, tmp_path / "stages.py", stages], cwd=ROOT, check=True, timeout=280)
    printed = capfd.readouterr().out
    for step, before, after in ((2, 2, 1), (6, 1, 3), (8, 3, 2)):
        assert f"checkpoint-{step}' is of {before} process(es), and this run has {after}" in printed
    names = ("loss", "grad_norm", "learning_rate", "epoch", "num_input_tokens_seen")
    curves, held_out = [], []
    for folder in (whole, cut):
        logs = json.loads((folder / "checkpoint-12" / "trainer_state.json").read_text())["log_history"]
        curves.append([[log[name] for name in names] for log in logs if "loss" in log])
        held_out.append([log[name] for log in logs for name in log if name.startswith("eval") and "loss" in name])
    assert len(curves[0]) == 12
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert len(held_out[0]) >= 6
    np.testing.assert_allclose(held_out[1], held_out[0], rtol=1e-5)
    weights = [load_file(folder / "model.safetensors") for folder in (whole, cut)]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)
    record_property("attack", "pretraining: 1 run stopped and continued on another number of processes, 3 times")
