import numpy as np
import pytest
import torch

from slam_hf.codec_training.voice_crops import VoiceCrops, hold_out, make_loader
from slam_hf.codec_training.voice_recordings import Voice


class Recordings(list):
    """Recordings in memory: recording `n` has units and samples that tell where they come from."""

    def __init__(self, lengths, speakers=None):
        super().__init__(
            Voice(
                id=str(number),
                text=None,
                speaker=None if speakers is None else speakers[number],
                style=None,
                units=np.stack([100 * number + np.arange(length), 50 + 100 * number + np.arange(length)]),
                samples=np.repeat(1000 * number + np.arange(length), 4).astype(np.int16),
            )
            for number, length in enumerate(lengths)
        )
        self.num_frames = np.array(lengths)
        self.ids, self.speakers = [voice.id for voice in self], [voice.speaker for voice in self]
        self.styles = [None] * len(self)


def make_crops(lengths=(9, 3, 5), frames=4, speakers=("a", "b", "a"), **options):
    recordings = Recordings(lengths, speakers)
    return VoiceCrops(recordings, range(len(lengths)), frames, 4, 0, ["a", "b"], [], **options)


def test_a_crop_has_the_units_and_the_samples_of_the_same_frames():
    crops = make_crops()
    starts = set()
    for number in range(200):
        row = crops[number]
        recording, start = divmod(round(row["waveforms"][0].item() * 2**15), 1000)
        starts.add((recording, start))
        version = row["units"][0].item() - 100 * recording - start
        assert version in (0, 50)
        assert row["units"].tolist() == [100 * recording + start + version + frame for frame in range(4)]
        assert (row["waveforms"] * 2**15).round().tolist() == np.repeat(
            1000 * recording + start + np.arange(4), 4
        ).tolist()
        assert row["speakers"] == 0
        assert row["durations"].sum() == len(crops.recordings[recording].units[0])
    # Every crop of the recordings that are long enough, and the second one is not.
    assert starts == {(0, start) for start in range(6)} | {(2, start) for start in range(2)}
    assert crops.num_too_short == 1


def test_recordings_must_be_as_long_as_a_crop():
    with pytest.raises(
        ValueError, match="All 3 recordings for training are shorter than a crop of 10 frames: the longest has 9"
    ):
        make_crops(frames=10)


def test_the_order_depends_on_neither_interruptions_nor_processes():
    crops = make_crops()

    def batches(first, process, num_processes, size, count):
        loader = iter(make_loader(crops, size, first, process, num_processes, num_workers=0))
        return [next(loader)["units"].tolist() for _ in range(count)]

    whole = batches(0, 0, 1, 4, 5)
    assert batches(3, 0, 1, 4, 2) == whole[3:]
    first, second = (batches(0, process, 2, 2, 5) for process in range(2))
    assert [ours + theirs for ours, theirs in zip(first, second, strict=True)] == whole
    assert len({str(batch) for batch in whole}) == 5


def test_durations_are_padded_with_zeros():
    crops = make_crops(lengths=(9, 4, 5), speakers=("a", "b", "a"))
    batch = next(iter(make_loader(crops, 8, 0, 0, 1, num_workers=0)))
    assert batch["runs"].shape == batch["durations"].shape == (8, 9)
    assert set(batch["durations"].sum(dim=1).tolist()) <= {4, 5, 9}
    assert batch["speakers"].dtype == torch.long


def test_each_voice_with_several_recordings_is_held_out():
    speakers = ["a"] * 50 + ["b"] * 4 + ["c"]
    recordings = Recordings([9] * 55, speakers)
    train, held_out = hold_out(recordings, 0.1, 64)
    assert sorted(speakers[index] for index in held_out) == ["a"] * 5 + ["b"]
    assert sorted(train + held_out) == list(range(55))
    assert {speakers[index] for index in hold_out(recordings, 0.1, 2)[1]} == {"a", "b"}
    assert hold_out(recordings, 0.1, 64)[1] == held_out
    with pytest.raises(ValueError, match=r"only one of each voice \(2 in all\)"):
        hold_out(Recordings([9, 9], ["a", "b"]), 0.5, 64)


def test_all_recordings_but_one_of_a_voice_may_be_held_out():
    train, held_out = hold_out(Recordings([9] * 3), 1.0, 64)
    assert (len(train), len(held_out)) == (1, 2)
