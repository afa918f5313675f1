import pytest
from training_utils import make_trainer
from transformers import TrainingArguments

from slam_hf.training.checkpoints import checkpoint_to_resume, is_complete


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    """The folder of a run of one process that saved at steps 2, 4, ... 10."""
    folder = tmp_path_factory.mktemp("run")
    make_trainer(folder, max_steps=10, save_strategy="steps", save_steps=2).train()
    return folder


def resume(output_dir, value="latest"):
    return checkpoint_to_resume(TrainingArguments(output_dir=str(output_dir), resume_from_checkpoint=value))


def test_latest_is_the_last_step(output_dir):
    assert resume(output_dir) == str(output_dir / "checkpoint-10")


@pytest.mark.parametrize("file", ["trainer_state.json", "rng_state.pth"])
def test_a_checkpoint_that_lacks_a_file_is_passed_over(output_dir, file):
    hidden = output_dir / "checkpoint-10" / file
    hidden.rename(output_dir / file)
    try:
        assert resume(output_dir) == str(output_dir / "checkpoint-8")
    finally:
        (output_dir / file).rename(hidden)


def test_a_checkpoint_whose_state_was_cut_short_is_passed_over(output_dir):
    path = output_dir / "checkpoint-10" / "trainer_state.json"
    state = path.read_text()
    path.write_text(state[: len(state) // 2])
    try:
        assert resume(output_dir) == str(output_dir / "checkpoint-8")
    finally:
        path.write_text(state)


def test_several_processes_have_a_random_state_each(output_dir, tmp_path):
    for name in ("trainer_state.json", "rng_state_0.pth"):
        (tmp_path / name).write_text("{}")
    assert not is_complete(tmp_path, world_size=2)
    (tmp_path / "rng_state_1.pth").write_text("")
    assert is_complete(tmp_path, world_size=2)


def test_a_run_does_not_begin_anew_with_other_processes(output_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="checkpoint-10 has the random states of 1 processes, and this run has 2"):
        resume(output_dir)
    assert resume(output_dir, str(output_dir / "checkpoint-8")) == str(output_dir / "checkpoint-8")

    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    for name in ("trainer_state.json", "rng_state_0.pth"):
        (checkpoint / name).write_text("{}")
    assert resume(tmp_path) is None  # cut short
    (checkpoint / "rng_state_1.pth").write_text("")
    assert resume(tmp_path) == str(checkpoint)
    monkeypatch.setattr(TrainingArguments, "world_size", 4)
    with pytest.raises(ValueError, match="Start 2, or give `resume_from_checkpoint: "):
        resume(tmp_path)


def test_without_a_checkpoint_a_run_begins(tmp_path):
    assert resume(tmp_path) is None
    assert resume(tmp_path / "nothing here") is None


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resume(tmp_path, "some/checkpoint-3") == "some/checkpoint-3"
    assert resume(tmp_path, None) is None
