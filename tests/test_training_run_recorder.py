import time
from datetime import datetime

import pytest
from datasets import Dataset, Features, IterableDataset, LargeList, Value
from loopback_hub import run_with_hub
from PIL import Image
from training_utils import CONTEXT_LENGTH, make_trainer
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import IntervalStrategy
from trl import ModelConfig

from slam_hf.hub.training_runs import describe_hardware, run_rows
from slam_hf.run_record import (
    CorpusRecord,
    Emissions,
    Hardware,
    Reference,
    RunRecord,
    read_run_records,
    save_run_records,
)
from slam_hf.training.arguments import CorpusConfig
from slam_hf.training.process_setup import put_before_reporters
from slam_hf.training.run_recorder import (
    RunRecorder,
    fingerprint_rows,
    read_emissions,
    record_corpus,
    save_records,
    save_training_curve,
)


VALIDATION = {"validation loss": "eval_loss"}


class Wait(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(0.1)


def train(output_dir, recorder: RunRecorder, resume: bool = False, **arguments):
    trainer = make_trainer(output_dir, [recorder, Wait()], **arguments)
    trainer.args.eval_strategy, trainer.eval_dataset = IntervalStrategy.STEPS, trainer.train_dataset
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_record_has_what_was_measured(tmp_path):
    recorder = RunRecorder()
    trainer = train(tmp_path, recorder, max_steps=4, eval_steps=2)
    corpus = (CorpusConfig(str(tmp_path)), Dataset.from_dict({"units": [[3, 1]]}))
    recipe = {"context_length": CONTEXT_LENGTH, "rope_theta": None, "cut_documents": False}
    model_args = ModelConfig(dtype="float32")
    recorder.records = RunRecorder.begin("pretraining", trainer.args, model_args, [corpus], recipe).records
    save_records(recorder, trainer, VALIDATION)

    [record] = read_run_records(tmp_path)
    assert (record.objective, record.base_model, record.corpora) == ("pretraining", None, [record_corpus(*corpus)])
    assert record.num_steps == 4
    assert record.num_tokens == trainer.state.num_input_tokens_seen
    assert record.padding == 1 - record.num_tokens / (4 * 4 * CONTEXT_LENGTH)
    assert 0.4 < record.seconds < 60
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert record.validation == {"validation loss": [losses[0], losses[-1]]}
    assert record.validation_steps == [2, 4]
    assert record.hardware.on_cpu
    assert record.hardware.count == 1
    assert record.recipe["batch_size"] == 4
    assert record.recipe["context_length"] == CONTEXT_LENGTH
    assert record.recipe["cut_documents"] is False
    assert record.recipe["lr_scheduler_type"] == "cosine_with_min_lr"
    assert record.recipe["seed"] == trainer.args.seed
    assert record.recipe["precision"] == "float32"
    assert record.recipe["weight_decay"] == 0.0
    assert "rope_theta" not in record.recipe
    assert record.packages.keys() >= {"slam-hf", "torch", "transformers"}
    assert record.emissions is None


def test_the_parts_of_an_interrupted_run_add_up(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 3, "eval_steps": 3}
    first, second = RunRecorder(), RunRecorder()
    train(tmp_path, first, max_steps=3, **saving)
    trainer = train(tmp_path, second, resume=True, max_steps=6, **saving)
    second.records = RunRecorder.begin("pretraining", trainer.args, ModelConfig(), [], {}).records
    save_records(second, trainer, VALIDATION)
    assert second.started_at == first.started_at
    assert 0.6 < read_run_records(tmp_path)[0].seconds < 60


def test_the_hardware_of_all_parts_of_a_run_is_recorded(tmp_path):
    one, two = Hardware("CPU", 1, on_cpu=True), Hardware("CPU", 2, on_cpu=True)
    saving = {"save_strategy": "steps", "save_steps": 1, "eval_steps": 5}
    for step, hardware in enumerate((two, one, two, two), start=1):
        recorder = RunRecorder([RunRecord("pretraining", hardware=hardware)])
        train(tmp_path, recorder, resume=step > 1, max_steps=step, **saving)
    (record,) = recorder.records
    assert (record.hardware, record.earlier_hardware) == (two, [one])
    assert describe_hardware(record) == "CPU, 2 processes; in another part of the run CPU, 1 process"
    save_run_records([record], tmp_path)
    assert read_run_records(tmp_path) == [record]


def test_reporters_know_all_parts_of_a_run_by_one_name(tmp_path):
    class Reporter(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.name = args.run_name

    def name(recorder, *, resume=False, **settings):
        reporter = Reporter()
        saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
        trainer = make_trainer(tmp_path / "run", [reporter, recorder], **saving | settings)
        put_before_reporters(trainer, recorder)
        trainer.train(resume_from_checkpoint=resume)
        return reporter.name

    first, second = RunRecorder(), RunRecorder()
    second.started_at += 60
    begun = datetime.fromtimestamp(first.started_at)
    assert name(first) == f"run-{begun:%Y-%m-%d-%H-%M-%S}"
    assert name(second, resume=True, max_steps=4) == f"run-{begun:%Y-%m-%d-%H-%M-%S}"
    assert name(RunRecorder(), run_name="mine") == "mine"


def test_a_run_is_not_continued_with_other_data(tmp_path):
    def recorder(fingerprint):
        recorder = RunRecorder()
        corpora = [CorpusRecord(Reference("corpus", is_local=True), fingerprint=fingerprint)]
        recorder.records = [RunRecord("pretraining", corpora=corpora)]
        return recorder

    saving = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path, [recorder("abc")], max_steps=2, **saving).train()
    make_trainer(tmp_path, [recorder("abc")], max_steps=4, **saving).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="The training data is not that of the checkpoint"):
        make_trainer(tmp_path, [recorder("def")], max_steps=6, **saving).train(resume_from_checkpoint=True)


def test_the_records_of_the_base_model_come_first(tmp_path):
    base = tmp_path / "base"
    recorder = RunRecorder()
    trainer = train(tmp_path / "aligned", recorder, max_steps=1, eval_steps=1)
    trainer.model.save_pretrained(base)
    save_run_records([RunRecord("pretraining")], base)
    model_args = ModelConfig(model_name_or_path=str(base))
    recorder.records = RunRecorder.begin("preference alignment", trainer.args, model_args, [], {"beta": 0.1}).records
    save_records(recorder, trainer, VALIDATION)
    pretraining, alignment = read_run_records(tmp_path / "aligned")
    assert pretraining == RunRecord("pretraining")
    assert alignment.base_model == Reference("base", is_local=True)
    assert (alignment.padding, alignment.recipe["beta"]) == (None, 0.1)


@pytest.mark.parametrize(
    ("evaluations", "values", "printed", "row"),
    [
        (((0, 0.5), (4, 0.75)), [50, 75], "50.000 at first, 75.000", "50.000 (step 0) → 75.000 (step 4)"),
        (((4, 0.75),), [75, 75], "75.000", "75.000 (step 4)"),
    ],
    ids=["two evaluations", "one evaluation"],
)
def test_a_share_of_held_out_data_is_shown_in_percent(tmp_path, capsys, evaluations, values, printed, row):
    trainer = make_trainer(tmp_path)
    trainer.state.log_history = [{"step": step, "eval_accuracy": share} for step, share in evaluations]
    recorder = RunRecorder.begin("pretraining", trainer.args, ModelConfig(), [], {})
    save_records(recorder, trainer, {"accuracy (%)": "eval_accuracy"})
    (record,) = read_run_records(tmp_path)
    assert record.validation == {"accuracy (%)": values}
    assert capsys.readouterr().out == f"Accuracy (%): {printed} after training.\n"
    assert dict(run_rows(record))["accuracy (%)"] == row


def test_unreadable_records_of_the_base_model_are_named_before_training(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.model.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "training_run.json").write_text('[{"objective": 1}]')
    model_args = ModelConfig(model_name_or_path=str(tmp_path / "base"))
    with pytest.raises(ValueError, match="training_run.json' is not a record of training runs"):
        RunRecorder.begin("pretraining", trainer.args, model_args, [], {})


def test_a_fingerprint_depends_on_the_rows_and_not_on_their_storage():
    rows = [[3, 1], [], [2, 7, 4]]
    fingerprint, num_units = fingerprint_rows(Dataset.from_dict({"units": rows}))
    assert num_units == 5
    assert fingerprint_rows(Dataset.from_dict({"units": [[9], *rows]}).skip(1)) == (fingerprint, 5)
    assert fingerprint_rows(Dataset.from_dict({"units": rows[::-1]}).select([2, 1, 0])) == (fingerprint, 5)
    large = Dataset.from_dict({"units": rows}).cast(Features({"units": LargeList(Value("uint16"))}))
    assert fingerprint_rows(large) == (fingerprint, 5)
    for other in ([[3], [1], [2, 7, 4]], [[3, 1], [2, 7, 4], []], [[3, 1], [], [2, 7, 5]]):
        assert fingerprint_rows(Dataset.from_dict({"units": other}))[0] != fingerprint
    pairs = {"prompt": ["<Un3>"], "chosen": ["<Un1>"], "rejected": ["<Un2>"]}
    swapped = {"prompt": ["<Un3>"], "chosen": ["<Un2>"], "rejected": ["<Un1>"]}
    assert fingerprint_rows(Dataset.from_dict(pairs))[1] is None
    assert fingerprint_rows(Dataset.from_dict(pairs)) != fingerprint_rows(Dataset.from_dict(swapped))


def test_a_fingerprint_depends_on_the_times_of_words():
    def rows(word: str, end: float) -> Dataset:
        words = [{"word": word, "start_time": 0.0, "end_time": end}]
        return Dataset.from_dict({"units": [[3, 1]], "durations": [[2, 2]], "aligned_text": [words]})

    fingerprint, num_units = fingerprint_rows(rows("a", 0.1))
    assert num_units == 2
    assert fingerprint_rows(rows("a", 0.1))[0] == fingerprint
    assert fingerprint not in (fingerprint_rows(rows("b", 0.1))[0], fingerprint_rows(rows("a", 0.12))[0])
    assert fingerprint_rows(Dataset.from_dict({"text": ["a text"]}))[1] is None


def test_a_local_corpus_is_named_by_its_card(tmp_path):
    folder = tmp_path / "my-corpus"
    folder.mkdir()
    rows = Dataset.from_dict({"units": [[3, 1], [2]]})
    corpus = CorpusConfig(str(folder), split="train", weight=2.0)
    record = record_corpus(corpus, rows)
    assert (record.source, record.codec) == (Reference("my-corpus", is_local=True), None)
    assert (record.split, record.weight, record.num_rows, record.num_units) == ("train", 2.0, 2, 3)
    (folder / "README.md").write_text("---\npretty_name: My corpus\ncodec: org/codec\n---\n")
    record = record_corpus(corpus, rows)
    assert (record.source, record.codec) == (Reference("My corpus", is_local=True), "org/codec")
    (folder / "README.md").write_text("---\npretty_name: [1]\ncodec: [2]\n---\n")
    record = record_corpus(corpus, rows)
    assert (record.source, record.codec) == (Reference("my-corpus", is_local=True), None)


def test_the_size_of_a_stream_is_not_known(tmp_path):
    record = record_corpus(CorpusConfig(str(tmp_path)), IterableDataset.from_generator(lambda: iter([])))
    assert (record.num_rows, record.num_units, record.fingerprint) == (None, None, None)


def test_files_read_by_a_builder_are_local():
    rows = Dataset.from_dict({"units": [[1]]})
    assert record_corpus(CorpusConfig("parquet", data_files="a.parquet"), rows).source.is_local


def test_a_corpus_of_the_hub_has_its_commit(tmp_path):
    script = """
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi
from slam_hf.training.arguments import CorpusConfig
from slam_hf.hub.training_runs import run_rows
from slam_hf.run_record import Reference
from slam_hf.training.run_recorder import record_corpus

Dataset.from_dict({"units": [[3, 1], [2]]}).push_to_hub("user/units")
commit = HfApi().dataset_info("user/units").sha
record = record_corpus(CorpusConfig("user/units"), load_dataset("user/units", split="train"))
assert record.source == Reference("user/units", commit), record
assert record.num_units == 3
print("recorded")
"""
    assert run_with_hub(script, tmp_path).split()[-1] == "recorded"


def test_only_the_energy_of_the_run_is_counted(tmp_path):
    start = datetime(2026, 1, 1, 12).timestamp()
    (tmp_path / "emissions.csv").write_text(
        "timestamp,duration,emissions,energy_consumed,country_name\n"
        "2026-01-01T11:00:00,99,9,9,France\n"
        "2026-01-01T13:00:00,60,0.5,1.25,Canada\n"
        "2026-01-01T14:00:00,30,0.25,0.5,Canada\n"
    )
    assert read_emissions(tmp_path, start) == Emissions(1.75, 0.75, ["Canada"], 90.0)
    assert read_emissions(tmp_path, datetime(2026, 1, 2).timestamp()) is None
    assert read_emissions(tmp_path / "elsewhere", start) is None


def test_no_energy_is_measured_without_codecarbon(tmp_path, monkeypatch):
    from slam_hf.training import run_recorder

    args = make_trainer(tmp_path).args
    monkeypatch.setattr(run_recorder, "is_codecarbon_available", lambda: False)
    assert run_recorder.energy_callbacks(args) == []
    monkeypatch.setattr(run_recorder, "is_codecarbon_available", lambda: True)
    monkeypatch.setattr(run_recorder, "CodeCarbonCallback", lambda: "callback")
    assert run_recorder.energy_callbacks(args) == ["callback"]
    args.report_to = ["codecarbon"]
    assert run_recorder.energy_callbacks(args) == []


STATE = TrainerState(
    log_history=[
        {"step": 0, "eval_loss": 6.2},
        {"step": 10, "loss": 6.0, "learning_rate": 1e-3},
        {"step": 20, "loss": 5.0, "learning_rate": 5e-4},
        {"step": 20, "eval_loss": 5.5},
    ]
)


def test_the_curve_is_a_picture(tmp_path):
    save_training_curve(STATE, tmp_path / "curve.png")
    picture = Image.open(tmp_path / "curve.png")
    assert picture.size == (1200, 675)
    assert len(picture.getcolors(2**20)) > 2
