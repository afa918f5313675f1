import numpy as np
import torch
from quickstart import speech_bank
from quickstart.codec import student
from safetensors.torch import save_model


def test_student_makes_one_state_per_frame_and_is_not_taught_where_there_is_no_target(tmp_path):
    assert np.prod(student.student_config().conv_stride) == 640
    torch.manual_seed(0)
    model = student.Student((3,)).eval()
    waveforms, components = torch.randn(1, 4 * 640), torch.zeros(1, 4, student.NUM_REGRESSED)
    labels = torch.tensor([[[0], [2], [-100], [-100]]])
    with torch.no_grad():
        loss = model(waveforms, labels, components)["loss"]
        components[:, 2:] = 9.0
        assert torch.equal(model(waveforms, labels, components)["loss"], loss)
        components[:, 1] = 9.0
        assert model(waveforms, labels, components)["loss"] > loss
    save_model(model, tmp_path / "model.safetensors")
    loaded = student.load_student(tmp_path, (3,))
    assert torch.equal(loaded.regression.weight, model.regression.weight)


def test_crops_have_the_targets_of_what_is_heard_at_any_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(student.Augmentation, "__call__", lambda self, id, waveform: waveform)
    lengths = (50, 40, 60)
    # The level of the waveform tells which share of the utterance has passed.
    ramps = [speech_bank.Utterance(np.arange(1, 640 * n + 1), 16_000, "", n == 40, "a") for n in lengths]
    speech_bank.write_bank(tmp_path, "a", ramps)
    bank = speech_bank.SpeechBank(tmp_path, "a")
    frames = np.arange(bank.frame_offsets[-1])
    np.savez(tmp_path / "targets.npz", labels_9=frames, components=np.repeat(frames[:, None], 64, axis=1))
    crops = iter(student.Crops([bank], [1], [student.Targets(tmp_path / "targets.npz", (9,))], seed=0))
    for _ in range(10):
        crop = next(crops)
        waveform, labels = crop["waveforms"].reshape(100, 640), crop["labels"][:, 0]
        known = labels >= 0
        assert known.sum() > 80 and np.abs(waveform[~known]).max(initial=0) == 0
        np.testing.assert_array_equal(crop["components"][known], np.repeat(labels[known, None], 64, axis=1))
        utterances = np.searchsorted(bank.frame_offsets, labels[known], side="right") - 1
        assert set(utterances) <= {0, 2}
        heard = waveform[known, 320] / 0.7 * np.array(lengths)[utterances]
        assert np.abs(bank.frame_offsets[utterances] + heard - (labels[known] + 0.5)).max() < 1


def test_speed_changes_length():
    waveform = np.arange(100, dtype=np.float32)
    np.testing.assert_allclose(student.change_speed(waveform, 2.0), np.arange(0, 99, 2))
    assert student.change_speed(waveform, 1.0) is waveform
