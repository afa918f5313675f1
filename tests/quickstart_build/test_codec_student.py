import numpy as np
import torch
from quickstart.codec import student


def test_student_makes_one_state_per_frame():
    config = student.student_config()
    assert np.prod(config.conv_stride) == 640
    model = student.Student((3,)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3 * 640)).shape == (1, 3, 256)
