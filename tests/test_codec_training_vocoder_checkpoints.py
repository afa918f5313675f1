import pytest
import torch

from slam_hf.codec_training.vocoder_checkpoints import Progress, list_checkpoints, load_checkpoint, save_checkpoint


def test_a_lack_of_memory_is_not_blamed_on_the_version_of_a_checkpoint(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path, Progress(step=1), {"model": model}, {})
    (checkpoint,) = list_checkpoints(tmp_path)

    def load_state_dict(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model, "load_state_dict", load_state_dict)
    with pytest.raises(torch.OutOfMemoryError):
        load_checkpoint(checkpoint, {"model": model}, {})
