import datasets
from training_utils import make_trainer
from transformers import ProgressCallback
from transformers.utils import logging

from slam_hf.training.progress import hide_small_bars, show_one_bar


def test_a_training_has_one_bar_with_a_name(tmp_path, capsys):
    hide_small_bars()
    try:
        trainer = make_trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
        trainer.args.disable_tqdm = False
        trainer.add_callback(ProgressCallback)
        show_one_bar(trainer)
        trainer.train()
        trainer.evaluate(trainer.train_dataset)
        trainer.train_dataset.map(lambda row: {"length": len(row["input_ids"])})
    finally:
        datasets.enable_progress_bars()
        logging.enable_progress_bar()
    shown = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "%|" in line]
    assert shown
    assert all(line.startswith("training: ") for line in shown)


def test_a_trainer_without_a_bar_gets_none(tmp_path, capsys):
    trainer = make_trainer(tmp_path, max_steps=1)
    show_one_bar(trainer)
    trainer.train()
    assert "%|" not in capsys.readouterr().err
