import numpy as np
import pytest
import torch

from slam_hf.padding_utils import split_clips, split_durations, split_units


def test_clips_lose_their_padding():
    batch = torch.arange(12.0).reshape(2, 1, 6)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    clips = split_clips(batch, mask, min_samples=2)
    assert [clip.tolist() for clip in clips] == [[0, 1, 2, 3], [6, 7, 8, 9, 10, 11]]


def test_without_a_mask_all_is_audio():
    clips = split_clips(torch.zeros(2, 5), None, min_samples=5)
    assert [len(clip) for clip in clips] == [5, 5]


def test_what_stands_in_the_padding_does_not_matter():
    batch = torch.tensor([[0.5, 0.25, torch.nan]])
    (clip,) = split_clips(batch, torch.tensor([[True, True, False]]), min_samples=1)
    assert clip.tolist() == [0.5, 0.25]


def test_a_list_of_clips_needs_no_padding():
    clips = [torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.5, 0.0])]
    assert [clip.tolist() for clip in split_clips(clips, None, min_samples=2)] == [[0.5, 0.25], [1.0, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "A list of clips holds tensors"),
        ([torch.zeros(1, 3)], "A list of clips holds tensors"),
        ([0.5, 0.25], "A list of clips holds tensors"),
        (["a.wav"], "`input_values` must hold numbers, in a tensor, an array or lists"),
        ([np.zeros(3, np.int16)], "must be floating point samples .* got torch.int16"),
        (
            [torch.zeros(3), torch.zeros(3, dtype=torch.int16)],
            "must be floating point samples .* got torch.int16",
        ),
        ([torch.zeros(3), torch.zeros(1)], "Clip 1 has 1 samples; a single frame takes 2"),
        ([torch.zeros(3), torch.tensor([0.0, torch.inf, -torch.inf])], "Clip 1 holds NaN or infinite samples"),
        ([torch.full((3,), torch.finfo(torch.float32).max), torch.tensor([0, torch.nan])], "Clip 1 holds NaN"),
    ],
)
def test_a_bad_clip_of_a_list_is_named(clips, message):
    with pytest.raises(ValueError, match=message):
        split_clips(clips, None, min_samples=2)


def test_a_list_of_clips_takes_no_mask():
    with pytest.raises(ValueError, match="takes no `padding_mask`"):
        split_clips([torch.zeros(3)], torch.ones(1, 3), min_samples=2)


@pytest.mark.parametrize(
    "clips",
    [
        [[0.5, 0.25], [1.0, 0.5]],
        (np.array([0.5, 0.25]), torch.tensor([1.0, 0.5])),
        np.array([[0.25, 0.5], [0.5, 1.0]], np.float32)[:, ::-1],
        np.frombuffer(np.array([0.5, 0.25, 1.0, 0.5], np.float32).tobytes(), np.float32).reshape(2, 1, 2),
    ],
)
def test_clips_are_tensors_arrays_or_lists(clips, recwarn):
    assert [clip.tolist() for clip in split_clips(clips, None, min_samples=2)] == [[0.5, 0.25], [1.0, 0.5]]
    assert not recwarn.list


def test_a_mask_may_be_an_array():
    (clip,) = split_clips(np.ones((1, 3), np.float32), np.array([[1, 1, 0]]), min_samples=1)
    assert clip.tolist() == [1, 1]


def test_mask_with_a_hole_is_refused():
    with pytest.raises(ValueError, match="`padding_mask` of clip 1 has 0 before 1: pad on the right"):
        split_clips(torch.zeros(2, 3), torch.tensor([[1, 1, 0], [1, 0, 1]]), min_samples=1)


def test_units_lose_their_padding():
    rows = split_units(torch.tensor([[3, 0, -1], [4, 0, 2]], dtype=torch.int32), num_units=5)
    assert [row.tolist() for row in rows] == [[3, 0], [4, 0, 2]]
    assert {row.dtype for row in rows} == {torch.int64}


@pytest.mark.parametrize(
    "units",
    [
        [[3, 0], (4, 0, 2)],
        [np.array([3, 0], np.uint16), torch.tensor([4, 0, 2], dtype=torch.int16)],
        np.array([[3, 0, -1], [4, 0, 2]], np.int8),
    ],
)
def test_units_and_durations_are_tensors_arrays_or_lists(units):
    rows = split_units(units, num_units=5)
    assert [row.tolist() for row in rows] == [[3, 0], [4, 0, 2]]
    durations = [np.array([4, 5], np.uint16), [1, 2, 3]]
    assert [row.tolist() for row in split_durations(durations, rows)] == [[4, 5], [1, 2, 3]]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([3, 0], r"must have shape .*, got \(2,\)"),
        ([], r"must have shape .*, got \(0,\)"),
        ([[3], []], "Sequence 1 has no units"),
        ([[3.0]], "must be integers, got torch.float32"),
        ([[True]], "must be integers, got torch.bool"),
        ("<Un3>", "must hold numbers, in a tensor, an array or lists"),
        (["<Un3>"], "must hold numbers, in a tensor, an array or lists"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"must be of one codebook, got shape \(1, 2, 3\)"),
    ],
)
def test_bad_sequences_are_refused(units, message):
    with pytest.raises(ValueError, match=message):
        split_units(units, num_units=5)


@pytest.mark.parametrize("unit", [5, -2])
def test_what_is_no_unit_is_refused(unit):
    with pytest.raises(ValueError, match="Sequence 0 must hold units from 0 to 4"):
        split_units(torch.tensor([[1, unit]]), num_units=5)


def test_durations_lose_their_padding():
    sequences = [torch.tensor([1, 2]), torch.tensor([3])]
    rows = split_durations(torch.tensor([[4, 5, 0], [6, 0, 0]]), sequences)
    assert [row.tolist() for row in rows] == [[4, 5], [6]]


@pytest.mark.parametrize(
    ("durations", "message"),
    [
        (torch.tensor([[4, 5]]), r"`durations` must be integers of shape \(2, 2\)"),
        (torch.tensor([[4], [6]]), r"`durations` must be integers of shape \(2, 2\)"),
        (torch.tensor([[4.0, 5.0], [6.0, 0.0]]), "`durations` must be integers, got torch.float32"),
        (torch.tensor([[4, 0], [6, 0]]), "Sequence 0 has a unit that lasts no frame"),
    ],
)
def test_durations_that_do_not_fit_are_refused(durations, message):
    with pytest.raises(ValueError, match=message):
        split_durations(durations, [torch.tensor([1, 2]), torch.tensor([3])])
