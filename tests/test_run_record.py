import json

import pytest
from huggingface_hub.constants import HF_HUB_OFFLINE

from slam_hf.run_record import (
    RUN_RECORD_NAME,
    CorpusRecord,
    Emissions,
    Hardware,
    Reference,
    RunRecord,
    count_training_tokens,
    read_run_records,
    read_training_tokens,
    save_run_records,
)


RECORD = RunRecord(
    objective="pretraining",
    base_model=Reference("org/text-lm", "0123abc"),
    corpora=[CorpusRecord(Reference("my-corpus", is_local=True), split="train", num_rows=2, num_units=455)],
    recipe={"batch_size": 4, "lr_scheduler_kwargs": {"min_lr": 5e-05}},
    hardware=Hardware("AMD EPYC", 2, on_cpu=True),
    num_steps=20,
    num_tokens=9180,
    emissions=Emissions(0.5, 0.1, ["Canada"], 60.0),
    validation={"loss": [6.0, 5.0]},
    validation_steps=[0, 20],
)


def test_records_are_read_as_they_were_written(tmp_path):
    save_run_records([RECORD, RunRecord("preference alignment")], tmp_path)
    assert read_run_records(tmp_path) == [RECORD, RunRecord("preference alignment")]
    assert [path.name for path in tmp_path.iterdir()] == [RUN_RECORD_NAME]
    assert json.loads((tmp_path / RUN_RECORD_NAME).read_text())[0]["base_model"]["revision"] == "0123abc"


def test_a_model_without_records_has_an_empty_list(tmp_path):
    assert HF_HUB_OFFLINE
    assert read_run_records(tmp_path) == []


def test_fields_of_other_versions_are_left_out(tmp_path):
    save_run_records([RECORD], tmp_path)
    path = tmp_path / RUN_RECORD_NAME
    [record] = json.loads(path.read_text())
    for part in (record, record["base_model"], record["corpora"][0], record["hardware"], record["emissions"]):
        part["unknown"] = 1
    path.write_text(json.dumps([record]))
    assert read_run_records(tmp_path) == [RECORD]


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "[1]",
        '{"objective": "pretraining"}',
        "[{}]",
        '[{"objective": "pretraining", "seconds": "long"}]',
        '[{"objective": "pretraining", "corpora": [1]}]',
        '[{"objective": "pretraining", "hardware": {"device": 1, "count": 1}}]',
        '[{"objective": "pretraining", "validation": {"loss": [1.0]}, "validation_steps": [0, 1]}]',
        '[{"objective": "pretraining", "validation": {"loss": [1.0, 2.0]}}]',
        '[{"objective": "pretraining", "tokens_per_second": 9.0}]',
    ],
)
def test_what_is_not_a_record_is_named(tmp_path, content):
    (tmp_path / RUN_RECORD_NAME).write_text(content)
    with pytest.raises(ValueError, match="training_run.json' is not a record of training runs"):
        read_run_records(tmp_path)


def test_training_tokens_are_those_of_all_runs():
    assert count_training_tokens([RECORD, RECORD]) == 2 * 9180
    assert count_training_tokens([RECORD, RunRecord("preference alignment")]) is None
    assert count_training_tokens([]) is None


def test_training_tokens_of_a_checkpoint_are_those_of_earlier_runs_and_of_its_own_until_then(tmp_path):
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"num_input_tokens_seen": 500}')
    assert read_training_tokens(checkpoint) is None
    save_run_records([RECORD], tmp_path)
    assert (read_training_tokens(checkpoint), read_training_tokens(tmp_path)) == (500, 9180)
    save_run_records([RECORD, RECORD], tmp_path)
    assert read_training_tokens(checkpoint) == 9180 + 500
    save_run_records([RunRecord("pretraining"), RECORD], tmp_path)
    assert read_training_tokens(checkpoint) is None
    (checkpoint / "trainer_state.json").write_text("[]")
    with pytest.raises(ValueError, match=r"trainer_state.json' is not the state of a trainer: TypeError"):
        read_training_tokens(checkpoint)


def test_a_folder_is_named_without_its_path(tmp_path, monkeypatch):
    (tmp_path / "user" / "corpus").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "user" / "corpus", "user/corpus", "user/../user/corpus/", "/nowhere/corpus"):
        assert Reference.to(path, "main") == Reference("corpus", is_local=True)
    assert Reference.to("org/corpus", "main") == Reference("org/corpus", "main")


@pytest.mark.parametrize(
    ("reference", "is_on_hub"),
    [
        (Reference("org/corpus"), True),
        (Reference("corpus", is_local=True), False),
        (Reference("Libri-Light", url="https://example.org"), False),
    ],
)
def test_only_what_is_on_the_hub_has_an_id(reference, is_on_hub):
    assert reference.is_on_hub is is_on_hub
