from itertools import pairwise

import numpy as np
import pytest

from slam_hf.encoding.segmentation import Segmentation, cut_segments


RATE, FRAME_RATE = 16_000, 25.0
SAMPLES_PER_FRAME = 640


def cut(waveform, rule, block=RATE * 30, sampling_rate=RATE):
    blocks = [waveform[i : i + block] for i in range(0, len(waveform), block)]
    return list(cut_segments(blocks, sampling_rate, FRAME_RATE, rule))


def positions(segments):
    return [(segment.first_frame, segment.keep_from, segment.keep_to) for segment in segments]


def noise(seconds, sampling_rate=RATE):
    return np.random.default_rng(0).standard_normal(int(seconds * sampling_rate)).astype(np.float32)


def test_a_recording_of_the_longest_length_stays_whole():
    waveform = noise(4)

    (segment,) = cut(waveform, Segmentation(max_seconds=4.0))

    assert positions([segment]) == [(0, 0, None)]
    np.testing.assert_array_equal(segment.waveform, waveform)


@pytest.mark.parametrize("pause_frame", [55, 80, 97])
def test_a_cut_falls_into_the_middle_of_a_pause(pause_frame):
    waveform = noise(5)
    pause = slice((pause_frame - 4) * SAMPLES_PER_FRAME, (pause_frame + 4) * SAMPLES_PER_FRAME)
    waveform[pause] *= 0.01

    segments = cut(waveform, Segmentation(max_seconds=4.0))

    (_, _, cut_frame), _ = positions(segments)
    assert pause_frame - 1 <= cut_frame <= pause_frame + 1
    np.testing.assert_array_equal(np.concatenate([segment.waveform for segment in segments]), waveform)


def test_pieces_of_a_recording_without_a_pause_are_no_longer_than_allowed_and_no_shorter_than_half():
    waveform = noise(60)

    segments = cut(waveform, Segmentation(max_seconds=4.0), block=7777)

    lengths = [len(segment.waveform) / RATE for segment in segments]
    assert max(lengths) <= 4.0
    assert min(lengths[:-1]) >= 2.0
    assert all(segment.keep_to == following.first_frame for segment, following in pairwise(segments))
    np.testing.assert_array_equal(np.concatenate([segment.waveform for segment in segments]), waveform)


@pytest.mark.parametrize("block", [1, 640, 100_000])
def test_the_cuts_do_not_depend_on_how_the_recording_is_read(block):
    waveform = noise(1.5)

    segments = cut(waveform, Segmentation(max_seconds=1.0), block=block)

    assert positions(segments) == positions(cut(waveform, Segmentation(max_seconds=1.0)))


@pytest.mark.parametrize(
    ("overlap", "expected", "starts"),
    [
        ({}, [(0, 0, 100), (100, 100, 200), (200, 200, None)], (4, 8)),
        ({"overlap_seconds": 1.0}, [(0, 0, 100), (75, 75, 175), (150, 150, None)], (3, 6)),
        ({"overlap_seconds": 1.0, "overlap": "context"}, [(0, 0, 87), (75, 87, 162), (150, 162, None)], (3, 6)),
    ],
    ids=["follow each other", "repeat their overlap", "keep each frame once"],
)
def test_fixed_pieces(overlap, expected, starts):
    waveform = noise(10)

    segments = cut(waveform, Segmentation(max_seconds=4.0, cut="fixed", **overlap))

    assert positions(segments) == expected
    for segment, start in zip(segments, (0, *starts), strict=True):
        np.testing.assert_array_equal(segment.waveform, waveform[start * RATE : (start + 4) * RATE])


def test_frames_begin_at_whole_samples_of_any_sampling_rate():
    waveform = noise(10, sampling_rate=11_025)

    segments = cut(waveform, Segmentation(max_seconds=3.0), sampling_rate=11_025)

    starts = np.cumsum([0] + [len(segment.waveform) for segment in segments[:-1]])
    assert starts.tolist() == [segment.first_frame * 441 for segment in segments]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cut": "vad"}, "`cut` must be 'silence' or 'fixed', got 'vad'"),
        ({"overlap": "mean"}, "`overlap` must be 'repeat' or 'context', got 'mean'"),
        ({"max_seconds": 0.5}, "`max_seconds` must be at least 1 and finite, got 0.5"),
        ({"max_seconds": float("nan")}, "`max_seconds` must be at least 1 and finite, got nan"),
        ({"max_seconds": float("inf")}, "`max_seconds` must be at least 1 and finite, got inf"),
        ({"cut": "fixed", "overlap_seconds": 21.0}, "from 0 to half of `max_seconds`, got 21.0"),
        ({"overlap_seconds": 1.0}, "Pieces that end at silences do not overlap"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(**arguments)
