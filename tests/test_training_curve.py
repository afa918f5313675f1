from PIL import Image
from transformers import TrainerState

from slam_hf.training.curve import save_training_curve


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
