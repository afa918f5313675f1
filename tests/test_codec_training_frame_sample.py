from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from slam_hf.codec_training.frame_sample import SampledStates, SamplePlan, plan_sample, read_frames
from slam_hf.encoding.ledger import Ledger
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.recordings import Recording, SkipReason
from slam_hf.encoding.sources import Source, file_source
from slam_hf.encoding.worker import encode_parts


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[Recording]:
    """30 recordings of 10 texts by three speakers, 0.4 to 0.8 s long."""
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    made = []
    for number in range(30):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(rng.integers(6_400, 12_800)), 16_000)
        made.append(Recording(f"{number}", str(path), text=f"text {number % 10}", speaker=f"{number // 10}"))
    return made


def sample(folder: Path, source: Source, codec, plan: SamplePlan, tasks: int = 1, max_frames: int = 10**9):
    training = plan.training(source)
    for rank in range(tasks):
        computation = SampledStates((1, 3), plan)
        encode_parts(training, codec, PieceRules(), Ledger(folder), rank, tasks, 0, computation=computation)
    ledger = Ledger(folder)
    ledger.refresh()
    return [read_frames(ledger, ledger.finished(training.parts), layer, max_frames) for layer in (1, 3)]


def selected(source: Source) -> list[Recording]:
    return [item for part in source.parts for row in part.read(0) for item in row if isinstance(item, Recording)]


def test_the_sample_does_not_depend_on_the_tasks(recordings, tiny_codec, tmp_path):
    source = file_source(recordings, chunk_seconds=3.0)
    assert len(source.parts) > 4
    plan = plan_sample(source, 25.0, max_frames=100, max_hours=100.0)
    samples = [sample(tmp_path / str(tasks), source, tiny_codec, plan, tasks, 60) for tasks in (1, 3, 7)]
    assert samples[0][0].shape == samples[0][1].shape == (60, 48)
    for other in samples[1:]:
        assert all(map(torch.equal, other, samples[0]))


def test_all_frames_are_the_states_of_the_training_recordings(recordings, tiny_codec, tmp_path):
    source = file_source(recordings, chunk_seconds=5.0)
    plan = SamplePlan(0.2, 0.7, 1.0)
    states = sample(tmp_path, source, tiny_codec, plan)
    training = selected(plan.training(source))
    assert 0 < len(training) < 30
    waveforms = [torch.from_numpy(soundfile.read(item.audio, dtype="float32")[0]) for item in training]
    expected = [tiny_codec.hidden_states(waveform[None], layers=[1, 3])[0] for waveform in waveforms]
    for layer in (0, 1):
        assert torch.equal(states[layer], torch.cat([frames[layer] for frames in expected]))


def test_fewer_frames_are_among_more_frames(recordings, tiny_codec, tmp_path):
    source = file_source(recordings)
    few, more = (
        sample(tmp_path / str(share), source, tiny_codec, SamplePlan(0.0, 1.0, share))[1] for share in (0.2, 0.6)
    )
    assert 0.1 < len(few) / len(more) < 0.5
    assert {tuple(row) for row in few.tolist()} <= {tuple(row) for row in more.tolist()}


def test_recordings_of_a_text_are_on_the_same_side(recordings):
    source = file_source(recordings)
    plan = plan_sample(source, 25.0, max_frames=10**6, max_hours=100.0)
    held_out, training = selected(plan.held_out(source)), selected(plan.training(source))
    assert len(held_out) == 3 and len({item.text for item in held_out}) == 1
    assert len(training) == 27 and held_out[0].text not in {item.text for item in training}
    assert plan.frame_share == 1.0


def test_a_limit_of_hours_encodes_some_recordings(recordings):
    source = file_source(recordings)
    hours = sum(part.seconds for part in source.parts) / 3600
    plan = plan_sample(source, 25.0, max_frames=100, max_hours=hours / 3)
    chosen = selected(plan.training(source))
    assert 9 <= len(chosen) <= 12
    assert plan.frame_share == pytest.approx(1.05 * 100 / (3600 * hours / 3 * 25), rel=0.05)
    reasons = {
        item.reason for part in plan.held_out(source).parts for [item] in part.read(0) if hasattr(item, "reason")
    }
    assert reasons == {SkipReason.NOT_SAMPLED}


def test_one_text_for_all_is_divided_by_ids(recordings):
    source = file_source([Recording(item.id, item.audio, text="the same") for item in recordings])
    plan = plan_sample(source, 25.0, max_frames=10**6, max_hours=100.0)
    assert len(selected(plan.held_out(source))) == 3
    assert len(selected(plan.training(source))) == 27


def test_a_single_recording_is_for_training(recordings):
    source = file_source(recordings[:1])
    plan = plan_sample(source, 25.0, max_frames=10**6, max_hours=100.0)
    assert (selected(plan.held_out(source)), len(selected(plan.training(source)))) == ([], 1)


def test_unknown_lengths_need_a_share(recordings):
    class Part:
        seconds = num_rows = None

    with pytest.raises(ValueError, match="lengths of the recordings are not known.*give `frame_share`"):
        plan_sample(Source([Part()], {}), 25.0, max_frames=100, max_hours=1.0)
    assert plan_sample(Source([Part()], {}), 25.0, 100, 1.0, frame_share=0.5).frame_share == 0.5
