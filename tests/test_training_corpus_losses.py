import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from test_pretrain import TINY, launch
from training_utils import logged, make_trainer, random_sequences, tiny_speech_lm
from transformers import AutoModelForCausalLM

from slam_hf import HubertUnitTokenizer
from slam_hf.training.arguments import CorpusConfig, PretrainArguments
from slam_hf.training.batches import BatchTrainer
from slam_hf.training.corpus_losses import CorpusLosses, CorpusLossTrainer, name_losses, number_corpora
from slam_hf.training.data import load_corpora, mix_corpora, pack_corpus
from slam_hf.training.packing import PackingCollator


def names(*corpora: tuple) -> list[list[str]]:
    kinds = ("path", "name", "modality")
    return name_losses([CorpusConfig(**dict(zip(kinds, corpus, strict=False))) for corpus in corpora])


def test_corpora_are_called_by_their_configuration_or_the_end_of_their_path():
    assert names(("user/books",)) == [[]]
    assert names(("user/books",), ("user/stories", "long")) == [["loss_books"], ["loss_long"]]
    assert names(("user/books",), ("other/books",)) == [["loss_books"], ["loss_books_2"]]
    namesakes = names(("user/books",), ("other/books",), ("user/books_2",))
    assert namesakes == [["loss_books"], ["loss_books_2"], ["loss_books_2_2"]]


def test_speech_text_and_both_in_turn_have_losses_of_their_own():
    corpora = [("user/books", None, kind) for kind in ("speech", "text", "interleaved")]
    assert names(*corpora) == [["loss_speech"], ["loss_text"], ["loss_interleaved"]]
    assert names(*corpora, ("user/books", "old", "text"), ("user/books", "new", "text")) == [
        ["loss_speech"],
        ["loss_text", "loss_text_books"],
        ["loss_interleaved"],
        ["loss_text", "loss_text_old"],
        ["loss_text", "loss_text_new"],
    ]


def mean_losses(model, sequences: Dataset, losses: list[list[str]]) -> dict[str, float]:
    """The losses by the model's forward pass on one sequence at a time."""
    collate, totals = PackingCollator(max(map(len, sequences["input_ids"]))), {}
    for sequence in sequences:
        batch = collate([sequence])
        corpus, labels = batch.pop("corpus"), batch["labels"]
        with torch.no_grad():
            logits = model(**batch).logits
        loss = F.cross_entropy(logits[0, :-1].double(), labels[0, 1:], reduction="sum").item()
        for name in losses[corpus]:
            totals[name] = totals.get(name, 0) + np.array([loss, (labels[0, 1:] >= 0).sum()])
    return {name: loss / count for name, (loss, count) in totals.items()}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_logged_losses_are_those_of_the_tokens_of_each_corpus(tmp_path, accumulation):
    losses = names(("user/a",), ("user/b",), ("user/c", None, "text"), ("user/d", None, "text"))
    parts = random_sequences(32)
    parts = number_corpora([parts.select(range(4)), parts.select(range(4, 10)), parts.select(range(10, 32))])
    mixed = mix_corpora(parts, [None] * 3, seed=0)
    model = tiny_speech_lm(attention_dropout=0.0).eval()
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation}
    trainer = make_trainer(
        tmp_path,
        sequences=mixed,
        model=model,
        trainer_class=partial(CorpusLossTrainer, losses, num_sequences=2 * accumulation),
        learning_rate=0.0,
        lr_scheduler_type="constant",
        lr_scheduler_kwargs={},
        num_train_epochs=1,
        logging_steps=100,
        **batch,
    )
    trainer.args.logging_steps = trainer.state.logging_steps = 16 // accumulation  # all of the epoch
    trainer.train()
    expected = mean_losses(model, mixed, losses)
    assert expected.keys() == {"loss_speech", "loss_speech_a", "loss_speech_b", "loss_text", "loss_text_c"}
    assert {name: logged(trainer, name) for name in expected} == {
        name: [pytest.approx(value, abs=1e-6)] for name, value in expected.items()
    }
    assert logged(trainer, "loss_text_d") == []  # without a token since the last log


def test_the_trained_weights_stay_the_same(tmp_path):
    sequences = random_sequences(20)
    plain = make_trainer(tmp_path, sequences=sequences, trainer_class=partial(BatchTrainer, 4), max_steps=5)
    plain.train()
    by_corpus = partial(CorpusLossTrainer, [["loss_a"], ["loss_b"]], num_sequences=4)
    (mixed,) = number_corpora([sequences])
    trainer = make_trainer(tmp_path, sequences=mixed, trainer_class=by_corpus, max_steps=5)
    trainer.train()
    assert logged(trainer, "loss") == logged(plain, "loss")
    assert logged(trainer, "loss_a") == pytest.approx(logged(plain, "loss"), abs=1e-6)
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight, plain.model.state_dict()[name], rtol=0, atol=0)


def test_processes_are_added_up():
    losses = CorpusLosses([["loss_a"], ["loss_b"]])
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 3]])
    losses.add(torch.tensor([0]), logits, labels)
    of_another = torch.tensor([[1.0, 2], [6.0, 3]], dtype=torch.float64)
    (total, other) = losses.take(SimpleNamespace(reduce=lambda sums: sums + of_another)).values()
    assert (total, other) == (pytest.approx((2 * np.log(4) + 1) / 4, abs=1e-6), 2.0)
    assert losses.take(SimpleNamespace(reduce=lambda sums: sums)) == {}


@pytest.mark.parametrize("streaming", [False, True])
def test_the_number_of_a_corpus_does_not_change_the_order(tmp_path, streaming):
    paths = [tmp_path / name for name in ("a", "b")]
    for start, path in enumerate(paths):
        Dataset.from_dict({"units": [[2 * i + start] * 3 for i in range(40)]}).to_parquet(path / "train.parquet")
    datasets = [{"path": str(path), "weight": 1} for path in paths]
    args = PretrainArguments(datasets=datasets, context_length=8, streaming=streaming, validation_documents=1)
    tokenizer = HubertUnitTokenizer(num_units=500)
    packed = [pack_corpus(documents, args, tokenizer) for documents in load_corpora(args, tokenizer)[0]]
    plain = mix_corpora(packed, [1, 1], seed=0)
    numbered = mix_corpora(number_corpora(packed), [1, 1], seed=0)
    assert isinstance(numbered, IterableDataset) == streaming
    rows = list(numbered.take(60))
    assert [row["input_ids"] for row in rows] == [row["input_ids"] for row in plain.take(60)]
    assert [row["corpus"] for row in rows] == [max(row["input_ids"]) % 2 for row in rows]


@pytest.mark.slow
def test_losses_are_exact_in_several_processes(tmp_path):
    generator = np.random.default_rng(0)
    for name, count in (("one", 48), ("two", 80)):
        for split, rows in (("train", count), ("validation", 2)):
            units = generator.integers(500, size=(rows, 13)).tolist()
            Dataset.from_dict({"units": units}).to_parquet(tmp_path / name / f"{split}.parquet")
    arguments = ["--datasets", *(str(tmp_path / name) for name in ("one", "two")), "--learning_rate", "0"]
    arguments += ["--lr_scheduler_type", "constant", "--lr_scheduler_kwargs", "{}"]
    arguments += ["--base_config", TINY[1].replace("0.1", "0.0"), "--context_length", "30", "--max_steps", "4"]
    arguments += ["--gradient_accumulation_steps", "2", "--logging_steps", "4", "--save_strategy", "steps"]
    arguments += ["--save_steps", "4", "--eval_strategy", "no"]
    assert launch(tmp_path / "run", *arguments, processes=2) == 0
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())
    (log,) = [log for log in state["log_history"] if "loss_one" in log]

    args, tokenizer = PretrainArguments(datasets=arguments[1:3], context_length=30), HubertUnitTokenizer(num_units=500)
    packed = [pack_corpus(documents, args, tokenizer) for documents in load_corpora(args, tokenizer)[0]]
    sequences = mix_corpora(number_corpora(packed), [None, None], seed=0)
    assert len(sequences) == 64  # an epoch of four steps
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run").eval()
    expected = mean_losses(model, sequences, [["loss_one"], ["loss_two"]])
    assert {name: log[name] for name in expected} == {
        name: pytest.approx(loss, abs=1e-6) for name, loss in expected.items()
    }
