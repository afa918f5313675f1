import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import slam_hf
from slam_hf import HubertUnitCodec, modeling_hubert_unit_codec
from slam_hf.encoding import worker
from slam_hf.encoding.ledger import Ledger
from slam_hf.encoding.listing import list_audio_folder
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.sources import FilePart, file_source
from slam_hf.encoding.worker import encode_parts


@pytest.mark.parametrize(
    ("room", "others"), [("encoding", {"corpora", "evaluation", "training", "hub"}), ("evaluation", {"corpora"})]
)
def test_encoding_is_a_room_below_corpora_and_evaluation(room, others):
    folder = Path(slam_hf.__file__).parent / room
    imports = {path.name: set(re.findall(r"from \.\.(\w+)", path.read_text("utf-8"))) for path in folder.glob("*.py")}

    assert {name: imported & others for name, imported in imports.items() if imported & others} == {}


@pytest.fixture
def source(tmp_path):
    """Five parts of a second or two, one of which has nothing but an empty file."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(4):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16_000 + 4000 * number)
        soundfile.write(folder / f"{number}.wav", waveform, 16_000)
    (folder / "4.wav").touch()
    return file_source(list_audio_folder(folder), chunk_seconds=1.0)


def read_chunks(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ranks", [[(0, 2), (1, 2)], [(2, 3), (0, 3), (1, 3)], [(0, 2), (0, 3), (1, 2), (0, 1)]])
def test_ranks_may_run_in_any_order(tiny_codec, source, tmp_path, ranks):
    encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path / "one"), num_workers=0)
    for rank, world_size in ranks:
        encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path / "many"), rank, world_size, num_workers=0)

    assert read_chunks(tmp_path / "many") == read_chunks(tmp_path / "one")
    assert len(read_chunks(tmp_path / "one")) == 5


def test_rows_may_keep_their_audio(tiny_codec, source, tmp_path):
    recordings = [replace(next(part.read(0))[0], speaker="ann", style="calm") for part in source.parts]
    source = file_source(recordings, chunk_seconds=1.0)
    ledger, plain = Ledger(tmp_path / "audio"), Ledger(tmp_path / "plain")
    rules = PieceRules(Segmentation(max_seconds=1.0, cut="fixed"))
    encode_parts(source, tiny_codec, rules, ledger, num_workers=0, keep_audio=True)
    encode_parts(source, tiny_codec, rules, plain, num_workers=0)
    for key in plain.finished(source.parts):
        rows, expected = ledger.read_rows(key), plain.read_rows(key)
        assert rows.select(expected.column_names).equals(expected) or len(expected) == 0
        for row in rows.to_pylist():
            samples = np.frombuffer(row["audio"], np.int16)
            assert len(samples) == row["num_frames"] * 640
            assert (row["speaker"], row["style"]) == ("ann", "calm")
            waveform, _ = soundfile.read(tmp_path / "clips" / row["id"].partition("#")[0], dtype="float32")
            start = int(float((row["id"].partition("#t=")[2] or "0").partition(",")[0]) * 16_000)
            assert np.abs(samples / 2**15 - waveform[start : start + len(samples)]).max() <= 2**-16


def test_what_is_encoded_may_be_changed(tiny_codec, source, tmp_path):
    ledger = Ledger(tmp_path / "chunks")

    def transform(id, waveform):
        return waveform if id == "1.wav" else np.zeros_like(waveform)

    encode_parts(source, tiny_codec, PieceRules(), ledger, num_workers=0, transform=transform)
    units = {
        row["id"]: row["units"] for key in ledger.finished(source.parts) for row in ledger.read_rows(key).to_pylist()
    }
    silence = tiny_codec.encode(torch.zeros(1, 16_000)).audio_codes[0, 0]
    assert units["0.wav"] == tiny_codec.deduplicate(silence)[0].tolist()
    assert len(units["1.wav"]) > 5


def test_batches_from_many_chunks_give_the_same_chunks(tiny_codec, source, tmp_path, monkeypatch):
    encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path / "one"), num_workers=0)
    monkeypatch.setattr(modeling_hubert_unit_codec, "_BATCH_SECONDS", 3)
    monkeypatch.setattr(HubertUnitCodec, "_is_batched", lambda codec, batched: True)  # as on a GPU
    sizes = []
    encode = HubertUnitCodec.encode
    monkeypatch.setattr(
        HubertUnitCodec, "encode", lambda codec, *batch: sizes.append(len(batch[0])) or encode(codec, *batch)
    )
    for rank in range(2):
        encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path / "many"), rank, 2, num_workers=0)

    assert read_chunks(tmp_path / "many") == read_chunks(tmp_path / "one")
    assert (sum(sizes), len(read_chunks(tmp_path / "one"))) == (4, 5)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_a_worker_process_keeps_its_message(tiny_codec, source, tmp_path, monkeypatch, num_workers):
    def fail(part, start):
        raise ConnectionError("The server does not answer.")

    monkeypatch.setattr(FilePart, "read", fail)
    with pytest.raises(ConnectionError, match="^The server does not answer.$"):
        encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path), num_workers=num_workers)


def test_a_killed_decoder_is_told_of(tiny_codec, source, tmp_path, monkeypatch):
    monkeypatch.setattr(FilePart, "read", lambda part, start: os.kill(os.getpid(), signal.SIGKILL))

    with pytest.raises(ChildProcessError, match="^A process that decodes recordings was killed.*Start the same comm"):
        encode_parts(source, tiny_codec, PieceRules(), Ledger(tmp_path), num_workers=1)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["start a", "finish a", "a", "end", "start b", "finish b", "b", "start c", "finish c", "c", "end"]),
        ("cuda", ["start a", "start b", "finish a", "a", "end", "start c", "finish b", "b", "finish c", "c", "end"]),
    ],
)
def test_a_gpu_has_the_next_batch_before_it_is_waited_for(monkeypatch, device, expected):
    log = []

    def start(codec, batch):
        log.append(f"start {batch[0]}")
        return lambda: log.append(f"finish {batch[0]}") or [batch[0]]

    monkeypatch.setattr(worker, "_start_batch", start)
    codec = SimpleNamespace(device=torch.device(device))
    for item, units in worker._encode_batches(codec, [["a"], "end", ["b"], ["c"], "end"]):
        log.append(units[0] if units else item)
    assert log == expected
