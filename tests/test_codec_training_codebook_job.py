import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, HubertModel, Wav2Vec2FeatureExtractor, WhisperConfig

from slam_hf.codec_training import codebook_job
from slam_hf.codec_training.codebook_job import CodebookArguments, CodebookJob
from slam_hf.encoding.source_arguments import VoiceSourceArguments
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.hub.codec_card import render_codec_card


ENCODER = str(Path(__file__).parent / "fixtures" / "hubert-25hz")
LOCAL = ExecutorArguments()


def write_corpus(folder: Path, count: int = 24, **bad: np.ndarray) -> VoiceSourceArguments:
    """Recordings of 8 texts by three speakers, with the times of two words each, and bad ones."""
    rng, lines = np.random.default_rng(0), []
    waveforms = {f"{number}.wav": 0.1 * rng.standard_normal(rng.integers(9_600, 16_000)) for number in range(count)}
    for number, (name, waveform) in enumerate({**waveforms, **bad}.items()):
        soundfile.write(folder / name, waveform, 16_000, subtype="FLOAT")
        words = [
            {"word": f"w{number % 2}", "start_time": 0.0, "end_time": 0.2},
            {"word": "x", "start_time": 0.2, "end_time": 0.5},
        ]
        row = {"path": name, "text": f"text {number % 8}", "who": f"s{number // 8}", "aligned_text": words}
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return VoiceSourceArguments(str(folder / "rows.jsonl"), layout="manifest", speaker_column="who", chunk_seconds=5.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> VoiceSourceArguments:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def job(corpus, tmp_path) -> CodebookJob:
    return make_job(corpus, tmp_path / "out", [2], [16])


def make_job(source: VoiceSourceArguments, folder: Path, layers: list[int], num_units: list[int]) -> CodebookJob:
    return CodebookJob(source, CodebookArguments(ENCODER, str(folder), layers, num_units, num_workers=0))


def change(job: CodebookJob, **settings) -> CodebookJob:
    return replace(job, args=replace(job.args, **settings))


def weights(job: CodebookJob) -> dict[str, bytes]:
    folder = Path(job.output_dir)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_a_codec_without_a_vocoder_with_a_card_and_a_report(job, corpus):
    report = job.run(LOCAL)
    folder = Path(job.output_dir)
    assert json.loads((folder / "report.json").read_text()) == report
    codec = AutoModel.from_pretrained(folder)
    assert (codec.config.layer, codec.config.num_units, codec.vocoder) == (2, 16, None)
    waveform = torch.from_numpy(soundfile.read(Path(corpus.source).parent / "0.wav", dtype="float32")[0])
    states = codec.hidden_states(waveform[None])[0][0]
    expected = HubertModel.from_pretrained(ENCODER)(
        torch.nn.functional.pad(waveform[None], (40, 40)), output_hidden_states=True
    ).hidden_states[2][0]
    torch.testing.assert_close(states, expected)
    units = codec.encode(waveform[None]).audio_codes[0, 0]
    assert units.tolist() == torch.cdist(states, codec.codebook).argmin(dim=1).tolist()
    with pytest.raises(ValueError, match="no vocoder and cannot make audio"):
        codec.decode(units[None])

    (book,) = report["codebooks"]
    assert report["encoder"] == "hubert-25hz" and report["skipped"] == {}
    assert 0 < book["explained_variance"] < 1 and book["used"] == 16 and 8 < book["perplexity"] <= 16
    held_out = book["held_out"]
    assert (held_out["num_recordings"], held_out["num_voice_pairs"], held_out["num_labels"]) == (3, 3, 3)
    assert set(held_out["edit_rate"]) == {"noise", "reverberation", "speed", "voice"}
    assert all(0 < rate < 2 for rate in held_out["edit_rate"].values())
    assert 0 < held_out["normalized_mutual_information"] < 1
    assert 1 < held_out["units_per_second"] <= 25

    card = ModelCard.load(folder / "README.md").text
    assert f"| perplexity | {book['perplexity']:.0f} of 16 units |" in card
    assert f"| unit edit rate, another voice | {held_out['edit_rate']['voice']:.2f} |" in card
    assert "# out\n" in card
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (folder / ".codebook/sample").iterdir()) == ["settings.json", "source.parquet"]


def test_several_layers_and_sizes_are_those_of_jobs_of_their_own(job, tmp_path):
    several = change(job, output_dir=str(tmp_path / "several"), layers=[2, 4], num_units=[8, 16])
    report = several.run(LOCAL)
    assert [(book["layer"], book["num_units"]) for book in report["codebooks"]] == [(2, 8), (2, 16), (4, 8), (4, 16)]
    job.run(LOCAL)
    folder = Path(several.codec_folder(2, 16))
    assert folder.name == "layer-2-units-16"
    assert (folder / "model.safetensors").read_bytes() == weights(job)["model.safetensors"]
    assert len(AutoModel.from_pretrained(several.codec_folder(4, 8)).encoder.encoder.layers) == 4


def test_the_codebook_does_not_depend_on_the_tasks_or_on_interruptions(job, tmp_path, monkeypatch):
    job = change(job, layers=[1, 2])
    job.run(LOCAL)
    other = change(job, output_dir=str(tmp_path / "other"))
    fit, add = codebook_job.fit_codebook, codebook_job.Ledger.add
    calls = []

    def interrupt(number, function):
        def call(*args, **kwargs):
            calls.append(number)
            if calls.count(number) == 2:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(codebook_job.Ledger, "add", interrupt("add", add))
    with pytest.raises(KeyboardInterrupt):
        other.run(ExecutorArguments(tasks=3))
    monkeypatch.setattr(codebook_job, "fit_codebook", interrupt("fit", fit))
    with pytest.raises(KeyboardInterrupt):
        other.run(ExecutorArguments(tasks=2))
    assert not (Path(other.output_dir) / "report.json").exists()
    report = other.run(LOCAL)
    assert calls.count("fit") == 3  # the first codebook was kept
    assert report == job.read_summary()
    assert weights(other) == weights(job)
    assert other.run(LOCAL) == report  # a finished job only reports


def test_bad_recordings_are_left_out_and_reported(tmp_path):
    bad = {
        "nan.wav": np.full(8_000, np.nan),
        "empty.wav": np.zeros(0),
        "silent.wav": np.zeros(8_000),
        "short.wav": np.ones(20),
    }
    source = write_corpus(tmp_path, **bad)
    report = make_job(source, tmp_path / "out", [1], [8]).run(LOCAL)
    assert report["skipped"] == {"not finite": 1, "empty": 1, "silent": 1, "too short": 1}
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(bad)


def test_recordings_without_speech_give_no_codebook_and_say_why(tmp_path):
    folder = tmp_path / "silence"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", np.zeros(16_000), 16_000)
    job = make_job(VoiceSourceArguments(str(folder)), tmp_path / "out", [1], [8])
    with pytest.raises(ValueError, match="8 units: There are 0 frames, and 8 units need at least as many.*silent"):
        job.run(LOCAL)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [2, 5]}, "`layers` must be from 1 to 4, the last of '.*hubert-25hz'; got 2, 5"),
        ({"layers": []}, "got none"),
        ({"num_units": [16, 5_000]}, "frames, and 5,000 units need at least as many. Take more recordings"),
        ({"layers": [1, 2, 1]}, "`layers` must hold different numbers; got 1, 2, 1"),
        ({"num_units": [0]}, "`num_units` must be at least 1, got 0"),
        ({"num_units": [8, 70_000]}, "got 70,?000"),
        ({"frame_share": 2.0}, "`frame_share` must be above 0 and at most 1; got 2.0"),
        ({"max_hours": 0.0}, "`iterations` and `max_hours` must be positive"),
        ({"num_held_out": -1}, "`num_held_out` at least 0"),
        ({"max_frames": 10}, "`max_frames` is 10, and 16 units need at least as many"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_encoded(job, monkeypatch, settings, message):
    monkeypatch.setattr(codebook_job, "encode_parts", None)
    with pytest.raises(ValueError, match=message):
        change(job, **settings).run(LOCAL)


def test_a_model_without_a_state_for_each_frame_is_refused(job, tmp_path):
    WhisperConfig().save_pretrained(tmp_path / "whisper")
    with pytest.raises(ValueError, match="of type 'whisper': it has no hidden state for each frame"):
        change(job, encoder=str(tmp_path / "whisper")).run(LOCAL)


def test_other_settings_do_not_continue_a_job(job):
    job.run(LOCAL)
    with pytest.raises(ValueError, match="a codebook that was begun with other settings"):
        change(job, num_units=[8]).run(LOCAL)


def test_other_files_are_not_replaced(job):
    Path(job.output_dir).mkdir()
    (Path(job.output_dir) / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds config.json, which this job has not written"):
        job.run(LOCAL)


def test_recordings_are_resampled_for_an_encoder_of_another_rate(job, tmp_path):
    HubertModel.from_pretrained(ENCODER).save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor(sampling_rate=12_000, do_normalize=True).save_pretrained(tmp_path / "encoder")
    report = change(job, encoder=str(tmp_path / "encoder")).run(LOCAL)
    codec = AutoModel.from_pretrained(job.output_dir)
    assert (codec.sampling_rate, codec.config.do_normalize, codec.frame_rate) == (12_000, True, 18.75)
    assert report["num_frames"] < 18.75 * report["seconds"]


def test_the_encoder_of_a_codec_is_taken(job, tiny_codec, tmp_path):
    tiny_codec.save_pretrained(tmp_path / "codec")
    change(job, encoder=str(tmp_path / "codec")).run(LOCAL)
    codec = AutoModel.from_pretrained(job.output_dir)
    assert (codec.config.layer, codec.codebook_size) == (2, 16)
    with pytest.raises(ValueError, match="must be from 1 to 3"):
        change(job, encoder=str(tmp_path / "codec"), output_dir=str(tmp_path / "x"), layers=[4]).run(LOCAL)


def test_a_card_needs_all_measures(job):
    job.run(LOCAL)
    (Path(job.output_dir) / "codebook.json").write_text('{"num_frames": 3}')
    with pytest.raises(ValueError, match="codebook.json' is not as `slam-hf fit-codebook` writes it"):
        render_codec_card(job.output_dir, "user/codec")
