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


def test_mask_with_a_hole_is_refused():
    with pytest.raises(ValueError, match="`padding_mask` of clip 1 has 0 before 1: pad on the right"):
        split_clips(torch.zeros(2, 3), torch.tensor([[1, 1, 0], [1, 0, 1]]), min_samples=1)


def test_units_lose_their_padding():
    rows = split_units(torch.tensor([[3, 0, -1], [4, 0, 2]], dtype=torch.int32), num_units=5)
    assert [row.tolist() for row in rows] == [[3, 0], [4, 0, 2]]
    assert {row.dtype for row in rows} == {torch.int64}


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
        (torch.tensor([[4, 5]]), r"integers of shape \(2, 2\)"),
        (torch.tensor([[4], [6]]), r"integers of shape \(2, 2\)"),
        (torch.tensor([[4.0, 5.0], [6.0, 0.0]]), r"integers of shape \(2, 2\)"),
        (torch.tensor([[4, 0], [6, 0]]), "Sequence 0 has a unit that lasts no frame"),
    ],
)
def test_durations_that_do_not_fit_are_refused(durations, message):
    with pytest.raises(ValueError, match=message):
        split_durations(durations, [torch.tensor([1, 2]), torch.tensor([3])])
