import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import train_vocoder
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import load_file, save

from slam_hf import HubertUnitCodec, load_audio
from slam_hf.codec_training import vocoder_samples
from slam_hf.codec_training.augmentation import Augmentation
from slam_hf.codec_training.vocoder_arguments import VocoderArguments
from slam_hf.codec_training.vocoder_checkpoints import list_checkpoints
from slam_hf.codec_training.vocoder_initialization import new_vocoder
from slam_hf.codec_training.voice_recordings import VoiceRecordings
from slam_hf.command_line import parse_arguments
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.run_record import read_run_records


TINY = {
    "unit_embed_dim": 8,
    "duration_hidden_dim": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [8, 8, 10],
    "upsample_kernel_sizes": [16, 16, 20],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_codec) -> Path:
    """A codec without a vocoder in `codec`, and recordings of anna, who is loud, and of ben, with a manifest."""
    folder = tmp_path_factory.mktemp("data")
    config = type(tiny_codec.config).from_dict({**tiny_codec.config.to_dict(), "vocoder_config": None})
    encoder = HubertUnitCodec(config)
    encoder.load_state_dict({k: v for k, v in tiny_codec.state_dict().items() if not k.startswith("vocoder.")})
    encoder.save_pretrained(folder / "codec")
    tiny_codec.save_pretrained(folder / "codec-with-vocoder")
    rows = []
    for number, speaker in enumerate(["anna", "ben"] * 3):
        waveform = load_audio(
            Path(__file__).parent / "fixtures" / "librispeech-clips" / f"audio{1 + number % 2}.flac", 16_000
        )
        path = folder / "speech" / speaker / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform[number * 16_000 : (number + 3) * 16_000], 16_000)
        rows.append({"path": str(path.relative_to(folder)), "speaker": speaker, "style": "loud", "text": "a b"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def _new_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train(data: Path, output_dir: Path, source: dict | None = None, **options) -> None:
    source = {"source": str(data / "manifest.jsonl"), "layout": "manifest", "speaker_column": "speaker"} | (
        source or {}
    )
    defaults = {"codec": str(data / "codec"), "vocoder_config": TINY, "max_steps": 4, "per_device_train_batch_size": 2}
    defaults |= {"crop_seconds": 0.4, "discriminator_width": 4, "logging_steps": 1, "eval_steps": 2, "save_steps": 2}
    defaults |= {"num_workers": 0, "use_cpu": True, "num_samples": 2, "stft_weight": 1.0}
    args = VocoderArguments(output_dir=str(output_dir), **defaults | options)
    train_vocoder.main(VoiceSourceArguments(**source), args)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(data, folder, {"style_column": "style"}, logging_steps=3)
    return folder


def read_logs(folder: Path) -> list[dict[str, float]]:
    """The logs in the last checkpoint, without the seconds."""
    with safe_open(list_checkpoints(folder / "checkpoints")[-1], framework="pt") as file:
        (progress,) = file.metadata().values()
    return [log | {"seconds": 0} for log in json.loads(progress)["logs"]]


def test_the_result_is_a_codec_with_the_voices(trained, data):
    codec = HubertUnitCodec.from_pretrained(trained)
    vocoder = codec.config.vocoder_config
    assert (vocoder.speaker_names, vocoder.style_names, vocoder.upsample_rates) == (
        ["anna", "ben"],
        ["loud"],
        [8, 8, 10],
    )
    encoder, before = codec.state_dict(), HubertUnitCodec.from_pretrained(data / "codec").state_dict()
    assert all(torch.equal(encoder[name], before[name]) for name in before)
    units = torch.tensor([[3, 7, 28]])
    anna, ben = (codec.decode(units, speaker_id=name).audio_values for name in ("anna", "ben"))
    assert anna.shape[-1] == codec.vocoder.predict_durations(units).sum() * 640
    assert not torch.equal(anna, ben)
    card = (trained / "README.md").read_text()
    assert "`anna`, `ben`" in card


def test_the_run_is_recorded(trained):
    (record,) = read_run_records(trained)
    assert (record.objective, record.num_steps, record.validation_steps) == ("vocoder training", 4, [0, 4])
    assert record.corpora[0].num_rows == 4
    assert record.recipe["batch_size"] == 2
    assert set(record.validation) == {
        "mel loss of held-out recordings",
        "error of their durations (frames a unit)",
    }
    first, last = record.validation["mel loss of held-out recordings"]
    assert last < first
    assert str(trained) not in (trained / "training_run.json").read_text()
    for step in (0, 2, 4):
        names = {path.name for path in (trained / "samples" / f"step-{step:09d}").iterdir()}
        assert names == {"0.flac", "0-durations.flac", "1.flac", "1-durations.flac", "mels.png"}
    original, made = (
        soundfile.read(trained / "samples" / name)[0] for name in ("0-original.flac", "step-000000004/0.flac")
    )
    assert len(original) == len(made) == 75 * 640


def test_an_interrupted_training_ends_with_the_same_weights_and_figures(trained, data, tmp_path, monkeypatch):
    shutil.copytree(trained / "recordings", tmp_path / "recordings")

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("slam_hf.codec_training.vocoder_trainer.adversarial_losses", count_down(3, fail))
        train(data, tmp_path, {"style_column": "style"}, logging_steps=3)
    assert [path.name[:14] for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-000000002"]
    assert not (tmp_path / "model.safetensors").exists()
    train(data, tmp_path, {"style_column": "style"}, logging_steps=3)
    assert read_logs(tmp_path) == read_logs(trained)
    expected, found = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    ours, theirs = (load_file(list_checkpoints(folder / "checkpoints")[-1]) for folder in (trained, tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def count_down(calls: int, function):
    """A function that calls the real one, and from the given call on another."""
    from slam_hf.codec_training.vocoder_losses import adversarial_losses

    remaining = [calls]

    def replacement(*args):
        remaining[0] -= 1
        return adversarial_losses(*args) if remaining[0] > 0 else function(*args)

    return replacement


def test_a_damaged_checkpoint_is_skipped(trained, data, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    train(data, tmp_path, {"style_column": "style"})
    out = capsys.readouterr().out
    assert f"Skipped: '{newest}' is damaged" in out
    assert "Continuing from step 2." in out
    expected, found = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_diverged_training_keeps_the_last_checkpoint(trained, data, tmp_path, monkeypatch):
    shutil.copytree(trained / "recordings", tmp_path / "recordings")

    def diverge(judgements):
        return torch.tensor(float("nan"), requires_grad=True), torch.tensor(0.0)

    monkeypatch.setattr("slam_hf.codec_training.vocoder_trainer.adversarial_losses", count_down(3, diverge))
    with pytest.raises(ValueError, match=r"diverged at step 3: the loss .*step-000000002-.*' is from before"):
        train(data, tmp_path, {"style_column": "style"})
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 1
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    train(data, tmp_path, {"style_column": "style"}, learning_rate=1e-4)  # continues more calmly
    assert (tmp_path / "model.safetensors").exists()


def test_other_settings_do_not_continue_a_training(trained, data):
    with pytest.raises(ValueError, match="begun with other settings.*\n  crop_seconds: was 0.4, is now 0.8"):
        train(data, trained, {"style_column": "style"}, crop_seconds=0.8)
    with pytest.raises(ValueError, match="begun with other settings.*\n  batch_size: was 2, is now 3$"):
        train(data, trained, {"style_column": "style"}, per_device_train_batch_size=3)


def test_a_training_of_another_version_is_not_called_damaged(trained, data, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "training" / "settings.json"
    now = json.loads(settings.read_text())
    earlier = {name: value for name, value in now.items() if name != "batch_size"} | {"per_device_train_batch_size": 2}
    settings.write_text(json.dumps(earlier))
    message = (
        "holds the training of a vocoder that another version of slam-hf has begun: its settings lack batch_size. "
    )
    with pytest.raises(ValueError, match=f"^'{settings.parent}' {message}Continue it with that version, or write to"):
        train(data, tmp_path, {"style_column": "style"})
    settings.write_text(json.dumps(now))
    for path in list_checkpoints(tmp_path / "checkpoints"):
        with safe_open(path, framework="pt") as file:
            metadata = {key: value.replace('"step"', '"steps"', 1) for key, value in file.metadata().items()}
        content = save(load_file(path), metadata)
        path.unlink()
        (path.parent / f"{path.name[:15]}{hashlib.sha256(content).hexdigest()[:16]}.safetensors").write_bytes(content)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match="/step-000000004-.*' is whole, but was written by another version"):
        train(data, tmp_path, {"style_column": "style"})


def test_a_trained_vocoder_can_be_continued_with_other_voices(trained, data, tmp_path):
    source = {"source": str(data / "speech" / "ben"), "layout": "folder", "speaker_column": "folder"}
    options = {"init_from": str(trained), "vocoder_config": None, "max_steps": 1, "learning_rate": 1e-9}
    train(data, tmp_path, source, **options, final_learning_rate=1e-9)
    before, after = (HubertUnitCodec.from_pretrained(folder) for folder in (trained, tmp_path))
    assert after.config.vocoder_config.speaker_names == ["ben"]
    units = torch.tensor([[3, 7, 28]])
    durations = torch.ones_like(units)
    expected = before.decode(units, durations, speaker_id="ben").audio_values
    torch.testing.assert_close(after.decode(units, durations).audio_values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ({"speaker_column": "who"}, {}, "no recordings for `layout manifest`.*no 'who', the column of the speaker"),
        ({"speaker_column": "speaker", "layout": "folder"}, {}, "`layout folder` has no columns"),
        (
            {},
            {"vocoder_config": TINY | {"upsample_rates": [8, 8, 5], "upsample_kernel_sizes": [16, 16, 11]}},
            r"makes 320 samples at 16,000 Hz of each unit .*a unit for 640 samples at 16,000 Hz, 25 a second",
        ),
        (
            {},
            {"crop_seconds": 9.0},
            "All 4 recordings for training are shorter than a crop of 225 frames: the longest has 75",
        ),
        ({}, {"vocoder_config": TINY | {"num_unit": 3}}, "unknown key 'num_unit'"),
        ({}, {"max_steps": None}, "Give one of `max_steps` and `max_train_hours`"),
        ({}, {"init_from": "nowhere/at/all", "vocoder_config": None}, "There is no folder 'nowhere/at/all'"),
    ],
)
def test_bad_input_is_refused(data, tmp_path, source, options, message):
    source = {"source": str(data / "speech")} | source if source.get("layout") == "folder" else source
    with pytest.raises((ValueError, OSError), match=message):
        train(data, tmp_path, source, **options)


def test_silence_is_not_trained_on(data, tmp_path):
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(16_000), 16_000)
    with pytest.raises(ValueError, match=r"None of the recordings can be encoded: 2 × silent. '.*skipped.jsonl'"):
        train(data, tmp_path / "out", {"source": str(tmp_path), "layout": "folder", "speaker_column": None})


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_other_files_are_not_replaced(data, tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=f"holds {name}, which this job has not written and would replace"):
        train(data, tmp_path)


def test_one_recording_is_not_enough(data, tmp_path):
    shutil.copy(data / "speech" / "ben" / "1.wav", tmp_path)
    with pytest.raises(ValueError, match="there is only one of each voice"):
        train(data, tmp_path / "out", {"source": str(tmp_path), "layout": "folder", "speaker_column": None})


def test_held_out_voices_must_be_known(data, tmp_path):
    source = {"source": str(data / "speech" / "anna"), "layout": "folder", "speaker_column": "folder"}
    with pytest.raises(ValueError, match="has the speaker 'ben', and those for training do not: they have 'anna'"):
        train(data, tmp_path, source, validation_source=str(data / "speech" / "ben"))


@pytest.mark.parametrize("recipe", ["vocoder", "vocoder-cpu"])
def test_recipes_are_read_and_changed_by_the_command_line(recipe, data):
    recipe = str(Path(train_vocoder.__file__).parent / "recipes" / f"{recipe}.yaml")
    options = ["--config", recipe, "--source", "a", "--codec", str(data / "codec"), "--output_dir", "b"]
    groups = (VoiceSourceArguments, VocoderArguments)
    source_args, args = parse_arguments("", groups, args=options, recipes=True)
    assert (source_args.source, args.output_dir, args.adam_beta1) == ("a", "b", 0.8)
    new_vocoder(HubertUnitCodec.from_pretrained(data / "codec"), args.vocoder_config or {}, [], [], 0)
    changed = ["--init_from", "c", "--max_train_hours", "2"]
    _, args = parse_arguments("", groups, args=options + changed, recipes=True)
    assert (args.init_from, args.vocoder_config, args.max_steps, args.max_train_hours) == ("c", None, None, 2.0)
    with pytest.raises(ValueError, match="There is no option --max_step. Did you mean --max_steps?"):
        parse_arguments("", groups, args=[*options, "--max_step", "2"], recipes=True)


def test_versions_of_the_recordings_are_trained_on(data, tmp_path):
    train(data, tmp_path, num_augmentations=2, max_steps=1)
    recordings = VoiceRecordings(tmp_path / "recordings" / "train" / "recordings.arrow")
    assert not list((tmp_path / "recordings" / "train").glob("chunks*"))
    codec = HubertUnitCodec.from_pretrained(data / "codec")
    for voice in (recordings[index] for index in range(len(recordings))):
        waveform, _ = soundfile.read(data / voice.id, dtype="float32")
        assert np.array_equal(voice.waveform(), waveform)
        for number, units in enumerate(voice.units):
            heard = Augmentation(number)(voice.id, waveform) if number else waveform
            assert codec.encode(torch.from_numpy(heard)[None]).audio_codes[0, 0].tolist() == units.tolist()


def test_the_word_error_rate_is_measured(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_vocoder, "load_recogniser", lambda name, device: name)
    monkeypatch.setattr(vocoder_samples, "transcribe_waveforms", lambda waveforms, *args: ["a c"] * len(waveforms))
    folder = tmp_path / "my codec (v1..2)"  # which is not a name on the Hub
    train(data, folder, max_steps=1, asr_model="asr")
    (record,) = read_run_records(folder)
    versions = ("recordings", "resynthesis", "predicted durations")
    assert record.measurements == {f"word error rate of {version} (%)": 50.0 for version in versions}
    assert "Word error rate, resynthesis: 50.0%." in capsys.readouterr().out
    assert "| word error rate of resynthesis (%) | 50 |" in (folder / "README.md").read_text()
    assert "# my-codec-v1-2\n" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_two_processes_train_one_vocoder(trained, data, tmp_path):
    shutil.copytree(trained / "recordings", tmp_path / "recordings")
    values = ["--source", data / "manifest.jsonl", "--layout", "manifest", "--speaker_column", "speaker"]
    values += ["--style_column", "style", "--codec", data / "codec", "--output_dir", tmp_path, "--max_steps", 4]
    values += ["--vocoder_config", json.dumps(TINY), "--per_device_train_batch_size", 1, "--crop_seconds", 0.4]
    values += ["--discriminator_width", 4, "--logging_steps", 1, "--eval_steps", 2, "--save_steps", 2]
    values += ["--num_workers", 0, "--use_cpu", "True", "--num_samples", 2, "--stft_weight", 1.0]
    launch = ["accelerate", "launch", "--quiet", "--multi_gpu", "--num_processes", "2", train_vocoder.__file__]
    subprocess.run([*launch, *map(str, values)], check=True)
    ours, theirs = (read_run_records(folder)[0].validation for folder in (tmp_path, trained))
    for name in ours:  # the same crops in each step; their order is another
        assert ours[name] == pytest.approx(theirs[name], rel=2e-2)
    train(data, tmp_path, {"style_column": "style"}, max_steps=5)  # one process, with the same batch
    assert read_run_records(tmp_path)[0].num_steps == 5
