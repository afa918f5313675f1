"""Tests of the parts of the quickstart build that need its packages; `test_quickstart_*` are those of the others."""

import hashlib
import io
import itertools
import json
import struct
import tarfile

import numpy as np
import pytest
import torch


pytest.importorskip("rapidfuzz")
pytest.importorskip("soxr")
pytest.importorskip("scipy")

from quickstart_utils import import_quickstart


augmentation, measures, speech_bank, stages, targets = map(
    import_quickstart, ("codec.augmentation", "codec.measures", "speech_bank", "stages", "codec.targets")
)


def test_units_that_are_phones_remove_all_uncertainty_about_them():
    phones = np.array(["a", "a", "b", "c", "b"])
    assert measures.phone_normalized_mutual_information(np.array([7, 7, 1, 4, 1]), phones) == pytest.approx(1.0)


def test_units_independent_of_phones_remove_none():
    units, phones = np.array([0, 0, 1, 1]), np.array(["a", "b", "a", "b"])
    assert measures.phone_normalized_mutual_information(units, phones) == pytest.approx(0.0)


def test_mutual_information_of_a_half_informative_unit():
    # H(phone) = log 4; the unit says which half, which is log 2.
    units, phones = np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "d"])
    assert measures.phone_normalized_mutual_information(units, phones) == pytest.approx(0.5)


def test_unit_edit_rate_compares_deduplicated_units():
    first, second = [np.array([1, 1, 2, 3, 3])], [np.array([1, 2, 2, 4])]
    assert measures.unit_edit_rate(first, second) == pytest.approx(1 / 3)


def test_word_error_rate_ignores_case_and_punctuation():
    assert measures.word_error_rate(["The cat sat.", "Yes!"], [" the CAT sat", "no"]) == pytest.approx(1 / 4)


def test_phone_labels_are_those_at_the_middle_of_frames():
    row = speech_bank.Row(0, 3 * 640, "", True, "voice", [("a", 0.03), ("b", 0.1), ("c", 0.12)])
    assert measures.phone_labels(row).tolist() == ["a", "b", "b"]


def test_bank_returns_utterances_in_whole_frames(tmp_path):
    first = speech_bank.Utterance(np.linspace(-0.7, 0.7, 1500, dtype=np.float32), 16_000, "one", True, "anna")
    second = speech_bank.Utterance(np.full(700, 0.7, np.float32), 16_000, "two", False, "ben")
    speech_bank.write_bank(tmp_path, "voice", [first, second])
    bank = speech_bank.SpeechBank(tmp_path, "voice")
    assert [row.num_frames for row in bank.rows] == [2, 1]
    assert bank.indices(held_out=True) == [0]
    np.testing.assert_allclose(bank.waveform(0), first.samples[:1280], atol=1e-4)
    assert bank.frames(1) == slice(2, 3)
    assert bank.speakers().tolist() == ["anna", "anna", "ben"]
    assert bank.training_frames().tolist() == [False, False, True]


def test_bank_leaves_out_what_ends_too_late(tmp_path):
    utterances = [speech_bank.Utterance(np.ones(16_000, np.float32), 16_000, str(i), False, "anna") for i in range(3)]
    speech_bank.write_bank(tmp_path, "voice", utterances)
    assert [row.text for row in speech_bank.SpeechBank(tmp_path, "voice", max_hours=2 / 3600).rows] == ["0", "1"]


def test_kmeans_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], np.float32)
    points = (np.repeat(centers, 50, axis=0) + 0.1 * rng.standard_normal((150, 2))).astype(np.float32)
    centroids = targets.fit_kmeans(points, 3)
    labels = targets.assign(points, centroids)
    assert len(set(labels[:50])) == len(set(labels[50:100])) == len(set(labels[100:])) == 1
    assert len(set(labels)) == 3
    np.testing.assert_allclose(centroids[labels[[0, 50, 100]]], centers, atol=0.1)


def test_student_makes_one_state_per_frame():
    student = import_quickstart("codec.student")
    config = student.student_config()
    assert np.prod(config.conv_stride) == 640
    model = student.Student((3,)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3 * 640)).shape == (1, 3, 256)


def test_vocoder_makes_640_samples_of_a_frame():
    training = import_quickstart("codec.vocoder_training")
    assert training.vocoder_config(10).hop_length == 640


def test_the_vocoder_hears_a_voice_augmented_and_between_pauses_and_learns_it_as_it_is(tiny_codec, tmp_path):
    voices = import_quickstart("codec.voice_sampler")
    rng = np.random.default_rng(0)
    utterances = [
        speech_bank.Utterance(0.1 * rng.standard_normal(640 * length), 16_000, "", length == 40, "a")
        for length in (50, 40, 60)
    ]
    speech_bank.write_bank(tmp_path, "a", utterances)
    bank = speech_bank.SpeechBank(tmp_path, "a")
    units = voices.encode_versions(tiny_codec, bank)
    assert units.shape == (1 + voices.NUM_AUGMENTED, 50 + 40 + 60 + 6 * voices.PAUSE_FRAMES)
    padded = np.pad(bank.waveform(1), voices.PAUSE_FRAMES * 640)
    start = 50 + 2 * voices.PAUSE_FRAMES
    clean = tiny_codec.encode(torch.from_numpy(padded)[None]).audio_codes[0, 0].numpy()
    np.testing.assert_array_equal(units[0, start : start + len(clean)], clean)

    numbers = np.stack([np.arange(units.shape[1]), -np.arange(units.shape[1])])
    sampler = voices.VoiceSampler(bank, numbers, seed=0)
    assert [sequence.tolist() for sequence in sampler.sequences()[:2]] == [
        [*range(voices.PAUSE_FRAMES, voices.PAUSE_FRAMES + 50)],
        [*range(-voices.PAUSE_FRAMES, -voices.PAUSE_FRAMES - 50, -1)],
    ]
    whole = np.concatenate([np.pad(bank.waveform(i), voices.PAUSE_FRAMES * 640) for i in range(3)]).reshape(-1, 640)
    frames, waveforms = sampler.batch()
    for positions, waveform in zip(frames.abs(), waveforms, strict=True):
        np.testing.assert_array_equal(waveform.reshape(-1, 640), whole[positions])


def test_speed_changes_length():
    waveform = np.arange(100, dtype=np.float32)
    np.testing.assert_allclose(augmentation.change_speed(waveform, 2.0), np.arange(0, 99, 2))
    assert augmentation.change_speed(waveform, 1.0) is waveform


def test_augmentation_is_reproducible_and_keeps_length():
    waveform = np.sin(np.arange(16_000) / 10).astype(np.float32)
    first, second = (augmentation.augment(waveform, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == waveform.shape and np.isfinite(first).all()


def test_formants_move_and_the_pitch_stays():
    # A pulse train at 100 Hz through a resonance at 2 kHz.
    pulses = np.zeros(16_000, np.float32)
    pulses[::160] = 1.0
    time = np.arange(400) / 16_000
    resonance = np.exp(-800 * time) * np.sin(2 * np.pi * 2_000 * time)
    waveform = np.convolve(pulses, resonance)[:16_000].astype(np.float32)

    moved = augmentation._reshape_spectrum(waveform, 1.15, np.zeros(7))

    power = np.square(np.abs(np.fft.rfft(np.stack([waveform, moved]))))
    harmonics = power[:, 100:8_000:100]
    assert (100 * (1 + harmonics.argmax(axis=1))).tolist() == [2_000, 2_300]
    assert (harmonics.sum(axis=1) > 0.95 * power[:, 50:].sum(axis=1)).all()


def test_gains_along_frequency_are_in_decibels():
    waveform = np.sin(2 * np.pi * 4_000 * np.arange(16_000) / 16_000).astype(np.float32)
    louder = augmentation._reshape_spectrum(waveform, 1.0, np.array([0, 0, 0, 6, 0, 0, 0]))
    assert louder[2_000:-2_000].std() / waveform[2_000:-2_000].std() == pytest.approx(10 ** (6 / 20), rel=0.02)


def test_lines_are_found_in_the_game(tmp_path, monkeypatch):
    games = import_quickstart("codec.game_dialogue")
    monkeypatch.setattr(games, "STEEL_SKY", tmp_path)
    monkeypatch.setattr(games, "_unpack", lambda content: content.removeprefix(b"RNC"))
    line, effect, short = bytes([128, 192] * 5_000), bytes(9_000), bytes(100)
    data, table = b"", [struct.pack("<I", 4)]
    for number, content in ((50_101, line), (59_000, effect), (50_102, short), (60_000, line)):
        data += bytes(-len(data) % 16)
        content = bytes(games.STEEL_SKY_HEADER) + b"RNC" + content
        place = len(data) // 16 | 1 << 23
        table.append(struct.pack("<H", number) + place.to_bytes(3, "little") + len(content).to_bytes(3, "little"))
        data += content
    (tmp_path / "sky.dnr").write_bytes(b"".join(table))
    (tmp_path / "sky.dsk").write_bytes(data)

    (found,) = games.steel_sky()

    np.testing.assert_array_equal(found.samples, np.tile(np.float32([0, 0.5]), 5_000))
    assert (found.sampling_rate, found.speaker, found.held_out) == (11_025, "lines 1002", False)


def test_training_ends_with_its_time_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    training = import_quickstart("codec.timed_training")
    clock = itertools.count()
    monkeypatch.setattr(training.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1)
    rates = []

    def train(checkpoint, stop_at=None):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.AdamW(model.parameters())

        def compute_loss():
            if len(rates) == stop_at:
                raise KeyboardInterrupt
            return (model(torch.ones(1)) - 1).square().sum()

        def learning_rate(share, step):
            rates.append((round(share, 3), step))
            return 0.1 * (1 - share)

        figures = training.train_for(0.1, model, optimizer, compute_loss, learning_rate, 1.0, checkpoint)
        return figures, model.weight.item()

    whole, expected = train(tmp_path / "whole.pt")
    assert (whole["steps"], whole["cpu_minutes"]) == (6, pytest.approx(0.1))
    shares = rates.copy()
    rates.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped.pt", stop_at=4)
    rates.pop()
    assert train(tmp_path / "stopped.pt") == (whole | {"loss": pytest.approx(whole["loss"], abs=1)}, expected)
    assert rates == shares == [(round(step / 6, 3), step) for step in range(6)]


def test_step_takes_the_mean_gradient_of_its_batches(tmp_path, monkeypatch):
    training = import_quickstart("codec.timed_training")
    clock = itertools.count()
    monkeypatch.setattr(training.time, "process_time", lambda: next(clock))
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters())
    batches = iter([1.0, 3.0])
    figures = training.train_for(
        1 / 60, model, optimizer, lambda: model.weight.sum() * next(batches), lambda *_: 0.5, 9.0, tmp_path / "x.pt", 2
    )
    assert (figures["steps"], model.weight.item()) == (1, -0.5 * 2)


def test_kokoro_takes_the_styles_of_a_checked_archive(tmp_path, monkeypatch):
    kokoro = import_quickstart("codec.kokoro")
    style = np.arange(510 * 256, dtype=np.float32)
    archive = tmp_path / "kokoro-js-1.2.1.tgz"
    with tarfile.open(archive, "w:gz") as files:
        for name, content in (("package/voices/af_x.bin", style.tobytes()), ("package/README.md", b"read me")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match="kokoro-js-1.2.1.tgz has SHA-256"):
        kokoro._load_styles(tmp_path)
    monkeypatch.setattr(kokoro, "STYLES_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    styles = kokoro._load_styles(tmp_path)
    assert list(styles) == ["af_x"]
    np.testing.assert_array_equal(styles["af_x"], style.reshape(510, 1, 256))


def test_stage_runs_once_and_keeps_its_figures(tmp_path):
    calls = []
    runner = stages.Stages(tmp_path)
    for _ in range(2):
        runner.run("count", lambda: calls.append(1) or {"answer": 42})
    assert len(calls) == 1
    assert stages.Stages(tmp_path).figures()["count"]["answer"] == 42
    assert json.loads((tmp_path / "done" / "count.json").read_text())["answer"] == 42


def test_failed_stage_leaves_no_marker(tmp_path):
    runner = stages.Stages(tmp_path)
    with pytest.raises(ZeroDivisionError):
        runner.run("fail", lambda: {"answer": 1 / 0})
    assert not runner.is_done("fail")
