"""What is heard of a model while it is trained, in a real store of trackio, W&B and TensorBoard where installed."""

from uuid import uuid4

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from training_utils import logged, make_trainer, tiny_speech_lm
from transformers import EncodecFeatureExtractor, TrainerState

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.continuation_samples import ContinuationSamples, check_samples, choose_prompt


@pytest.fixture(scope="module")
def processor(tiny_codec) -> SpeechLMProcessor:
    return SpeechLMProcessor(
        EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000), HubertUnitTokenizer(num_units=50), tiny_codec
    )


def train(output_dir, processor=None, pause=lambda: None, **settings):
    """A run of six steps with dropout, which is heard twice if there is a processor."""
    model = tiny_speech_lm(attention_dropout=0.5)
    trainer = make_trainer(output_dir, model=model, max_steps=6, **settings)
    if processor is not None:
        trainer.add_callback(ContinuationSamples(trainer, processor, np.arange(40), every=3, pause=pause))
    trainer.train()
    return trainer


def test_the_prompt_goes_on_in_its_document():
    def prompt(*lengths: int) -> list[int]:
        return list(choose_prompt(Dataset.from_dict({"units": [[i] * length for i, length in enumerate(lengths)]})))

    assert prompt(30, 130, 140) == [1] * 60
    assert prompt(30, 41, 20) == [1] * 21
    assert prompt(1) == [0]


def test_training_is_the_same_with_samples(tmp_path, processor):
    pauses = []
    silent, heard = train(tmp_path / "silent"), train(tmp_path / "heard", processor, lambda: pauses.append(None))
    assert len(pauses) == 2
    assert logged(heard, "loss") == logged(silent, "loss")
    for name, weight in heard.model.state_dict().items():
        torch.testing.assert_close(weight, silent.model.state_dict()[name], rtol=0, atol=0)
    audio = {path.name: soundfile.read(path) for path in (tmp_path / "heard" / "continuations").iterdir()}
    assert audio.keys() == {"step-3.wav", "step-6.wav"}
    rate = processor.audio_tokenizer.sampling_rate
    assert {rate for _, rate in audio.values()} == {rate}
    # At least fifty units follow the forty of the prompt, each one frame or more.
    assert all(len(samples) >= 90 / 25 * rate for samples, _ in audio.values())


def test_training_goes_on_where_samples_cannot_be_written(tmp_path, processor, capsys):
    (tmp_path / "continuations").write_text("in the way")
    trainer = train(tmp_path, processor)
    assert trainer.state.global_step == 6 and trainer.model.training
    path = tmp_path / "continuations" / "step-3.wav"
    assert f"There is no continuation of step 3: Error opening {str(path)!r}" in capsys.readouterr().out


def test_one_process_writes_what_all_make_of_parts_of_a_model(tmp_path, processor, monkeypatch):
    trainer = make_trainer(tmp_path)
    samples = ContinuationSamples(trainer, processor, np.arange(40), every=3, pause=lambda: None)
    trainer.is_fsdp_enabled, generated, generate = True, [], trainer.model.generate
    monkeypatch.setattr(trainer.model, "generate", lambda **kwargs: generated.append(1) or generate(**kwargs))
    state = TrainerState(global_step=3, is_world_process_zero=False)
    samples.on_step_end(trainer.args, state, trainer.control, trainer.model)
    assert generated == [1] and list(tmp_path.iterdir()) == []


def test_trackio_has_the_samples_and_the_logs(tmp_path, processor):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    run = {"project": "test", "run_name": uuid4().hex}  # the store may have those of earlier tests
    trainer = train(tmp_path, processor, report_to="trackio", **run)
    trainer.log({"eval_loss": 1.5})  # after the training, whose run it belongs to
    import trackio

    trackio.finish()
    rows = SQLiteStorage.get_logs(run["project"], run["run_name"])
    assert [row["train/loss"] for row in rows if "train/loss" in row] == pytest.approx(logged(trainer, "loss"))
    assert [row["eval/loss"] for row in rows if "eval/loss" in row] == [1.5]
    heard = {row["train/global_step"]: row["samples/continuation"] for row in rows if "samples/continuation" in row}
    assert heard.keys() == {3, 6}
    for step, audio in heard.items():
        stored, rate = soundfile.read(MEDIA_DIR / audio["file_path"], dtype="int16")
        written, written_rate = soundfile.read(tmp_path / "continuations" / f"step-{step}.wav", dtype="int16")
        assert audio["_type"] == "trackio.audio" and rate == written_rate
        np.testing.assert_array_equal(stored, written)


def test_tensorboard_has_the_samples(tmp_path, processor, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    train(tmp_path, processor, report_to="tensorboard")
    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    clips = events.Audio("samples/continuation")
    assert [clip.step for clip in clips] == [3, 6]
    assert {clip.sample_rate for clip in clips} == {processor.audio_tokenizer.sampling_rate}
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_wandb_has_the_samples(tmp_path, processor, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train(tmp_path, processor, report_to="wandb", project="test")
    wandb.finish()
    clips = tmp_path.glob("wandb/offline-run-*/files/media/audio/samples/continuation_*.wav")
    assert len(list(clips)) == 2


def test_what_cannot_be_heard_is_said_before_training(tmp_path, processor):
    args = PretrainArguments(sample_steps=3, datasets=[str(tmp_path)])
    check_samples(args, processor)
    mute = SpeechLMProcessor(processor.feature_extractor, processor.tokenizer)
    with pytest.raises(ValueError, match="`sample_steps` needs a codec that speaks: name a `codec` with a vocoder"):
        check_samples(args, mute)
    args.sample_steps = None
    check_samples(args, mute)
    datasets = [{"path": str(tmp_path), "modality": "text"}]
    args = PretrainArguments(sample_steps=3, datasets=datasets, text_tokenizer="tokenizer")
    with pytest.raises(ValueError, match="needs speech to continue, and all corpora are text"):
        check_samples(args, processor)
    assert PretrainArguments(sample_steps=-1).sample_steps is None


def test_weights_in_parts_of_other_kinds_are_refused(tmp_path, processor, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.is_deepspeed_enabled = True
    with pytest.raises(ValueError, match="works with DDP and FSDP2"):
        ContinuationSamples(trainer, processor, np.arange(40), 3, print)
