import weakref

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from slam_hf.encoding.reading import PieceRules, read_pieces
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.segmentation import Segmentation


RATE = 16_000


def noise(seconds, sampling_rate=RATE):
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * sampling_rate))).astype(np.float32)


def read(recording, **rules):
    return list(read_pieces(recording, PieceRules(**rules), RATE, frame_rate=25.0))


def read_file(path, **rules):
    return read(Recording("x", str(path)), **rules)


@pytest.fixture
def write(tmp_path):
    def write(name, waveform, sampling_rate=RATE, **kwargs):
        path = tmp_path / name
        soundfile.write(path, waveform, sampling_rate, **kwargs)
        return path

    return write


def test_a_recording_is_one_piece_with_its_texts(write):
    path = write("a.wav", noise(1.0), subtype="FLOAT")
    words = [{"word": "hello", "start_time": 0.1, "end_time": 0.4}]

    (piece,) = read(Recording("x", str(path), text="hello", aligned_text=words))

    np.testing.assert_array_equal(piece.waveform, noise(1.0))
    assert (piece.id, piece.keep_from, piece.keep_to, piece.text, piece.aligned_text) == ("x", 0, None, "hello", words)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_formats_of_libsndfile_are_read(write, name):
    (piece,) = read_file(write(name, noise(1.0)))

    assert abs(len(piece.waveform) - RATE) <= 1152  # a frame of MP3


def test_other_rates_are_resampled(write):
    waveform = noise(1.0, sampling_rate=24_000)

    (piece,) = read_file(write("a.wav", waveform, sampling_rate=24_000, subtype="FLOAT"))

    expected = torchaudio.functional.resample(torch.from_numpy(waveform), 24_000, RATE)
    np.testing.assert_array_equal(piece.waveform, expected.numpy())


def test_an_excerpt_is_read(write):
    path = write("a.wav", noise(3.0), subtype="FLOAT")

    (piece,) = read(Recording("x", str(path), offset=0.5, duration=1.25))

    assert piece.id == "x"
    np.testing.assert_array_equal(piece.waveform, noise(3.0)[8_000:28_000])


def test_pieces_name_their_position_in_the_file_and_keep_the_words_within(write):
    path = write("a.wav", noise(10.0), subtype="FLOAT")
    words = [
        {"word": "one", "start_time": 1.0, "end_time": 1.5},
        {"word": "two", "start_time": 3.75, "end_time": 4.75},
        {"word": "three", "start_time": 5.0, "end_time": 5.5},
    ]
    recording = Recording("a", str(path), offset=1.0, duration=8.0, text="one two three", aligned_text=words)

    first, second = read(recording, segmentation=Segmentation(max_seconds=4.0, cut="fixed"))

    assert (first.id, second.id) == ("a#t=1,5", "a#t=5,9")
    np.testing.assert_array_equal(np.concatenate([first.waveform, second.waveform]), noise(10.0)[16_000:144_000])
    assert first.aligned_text == words[:1]
    assert second.aligned_text == [
        {"word": "two", "start_time": -0.25, "end_time": 0.75},
        {"word": "three", "start_time": 1.0, "end_time": 1.5},
    ]
    assert first.text is second.text is None


def test_context_is_counted_from_the_start_of_the_waveform(write):
    path = write("a.wav", noise(7.0))
    rule = Segmentation(max_seconds=4.0, cut="fixed", overlap_seconds=1.0, overlap="context")

    pieces = read_file(path, segmentation=rule)

    assert [(piece.keep_from, piece.keep_to) for piece in pieces] == [(0, 87), (12, None)]
    assert [piece.id for piece in pieces] == ["x#t=0,3.48", "x#t=3.48"]


def damaged(path, start, content):
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(data)
    return path


def truncated(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


@pytest.mark.parametrize(
    ("make", "reason", "detail"),
    [
        (lambda write, folder: folder / "missing.wav", SkipReason.UNREADABLE, "No such file or directory"),
        (lambda write, folder: folder, SkipReason.UNREADABLE, "not a regular file"),
        (lambda write, folder: truncated(write("a.wav", noise(1)), 0), SkipReason.EMPTY, "the file has no content"),
        (lambda write, folder: write("a.wav", noise(0)), SkipReason.EMPTY, "no samples"),
        (lambda write, folder: write("a.wav", noise(0.05)), SkipReason.TOO_SHORT, "0.050 s"),
        (lambda write, folder: write("a.wav", 0 * noise(1)), SkipReason.SILENT, "all zeros"),
        (lambda write, folder: write("a.wav", 1e-3 * noise(1)), SkipReason.SILENT, "peak -67 dBFS"),
        (
            lambda write, folder: write("a.wav", np.array([0.5, np.nan] * 8000), subtype="FLOAT"),
            SkipReason.NOT_FINITE,
            "NaN or infinite samples",
        ),
        (
            lambda write, folder: write("a.wav", np.array([0.5, np.inf] * 8000), subtype="FLOAT"),
            SkipReason.NOT_FINITE,
            "NaN or infinite samples",
        ),
        (
            lambda write, folder: damaged(write("a.flac", noise(2)), 20_000, bytes(3000)),
            SkipReason.CORRUPT,
            "unknown error in flac decoder.",
        ),
        (
            lambda write, folder: truncated(write("a.flac", noise(2)), 20_000),
            SkipReason.CORRUPT,
            "flac decoder lost sync.",
        ),
        (
            lambda write, folder: damaged(write("a.wav", noise(1)), 0, b"text"),
            SkipReason.CORRUPT,
            "Format not recognised.",
        ),
        (
            lambda write, folder: write("a.wav", noise(1), sampling_rate=11_127),
            SkipReason.UNREADABLE,
            "its sampling rate, 11127 Hz, cannot be converted",
        ),
    ],
)
def test_bad_files_are_skipped_with_a_reason(write, tmp_path, make, reason, detail):
    (skipped,) = read_file(make(write, tmp_path))

    assert isinstance(skipped, Skipped)
    assert (skipped.id, skipped.reason) == ("x", reason)
    assert skipped.detail.removeprefix("Error : ") == detail


def test_a_hole_in_the_stream_is_damage(write):
    path = damaged(write("a.ogg", noise(5.0)), 13_000, np.random.default_rng(0).bytes(2000))

    (skipped,) = read_file(path)

    assert skipped.reason == SkipReason.CORRUPT
    assert skipped.detail.endswith("of 5.00 s")


def test_what_precedes_the_damage_in_a_long_recording_is_kept(write):
    path = write("a.flac", noise(50.0))
    truncated(path, path.stat().st_size * 9 // 10)

    *pieces, skipped = read_file(path, segmentation=Segmentation(max_seconds=10.0, cut="fixed"))

    assert [piece.id for piece in pieces] == ["x#t=0,10", "x#t=10,20"]  # the second block of 30 s is damaged
    assert (skipped.id, skipped.reason) == ("x", SkipReason.CORRUPT)
    assert skipped.detail.startswith("from 20.00 s on: ")


def test_flac_that_does_not_say_its_length_is_read_in_order(write):
    path = write("a.flac", noise(50.0))
    (whole,) = read_file(path, segmentation=Segmentation(60.0))
    header = bytearray(path.read_bytes())
    header[21] &= 0xF0  # the number of samples: 36 bits of the STREAMINFO block (RFC 9639, section 8.2)
    header[22:26] = bytes(4)
    path.write_bytes(header)

    (piece,) = read_file(path, segmentation=Segmentation(60.0))
    (excerpt,) = read(Recording("x", str(path), offset=35.0, duration=1.5))
    (behind,) = read(Recording("x", str(path), offset=51.0))

    np.testing.assert_array_equal(piece.waveform, whole.waveform)
    np.testing.assert_array_equal(excerpt.waveform, whole.waveform[35 * RATE : 35 * RATE + 24_000])
    assert behind == Skipped("x", SkipReason.EMPTY, "no samples from 51.00 s on")


def test_silence_and_nan_are_reported_once_however_long(write):
    waveform = noise(30.0)
    waveform[4 * RATE : 12 * RATE] = 0
    waveform[8 * RATE : 8 * RATE + 9] = 1e-4
    waveform[20 * RATE :: RATE] = np.nan

    items = read_file(write("a.wav", waveform, subtype="FLOAT"), segmentation=Segmentation(4.0, cut="fixed"))

    assert [item.id for item in items] == ["x#t=0,4", "x#t=4,12", "x#t=12,16", "x#t=16,20", "x#t=20"]
    assert items[1] == Skipped("x#t=4,12", SkipReason.SILENT, "peak -80 dBFS")
    assert items[4] == Skipped("x#t=20", SkipReason.NOT_FINITE, "NaN or infinite samples")


def test_silence_before_damage_is_reported_too(write):
    path = write("a.wav", 0 * noise(5.0), subtype="FLOAT")
    damaged(path, path.read_bytes().index(b"data") + 4, (60 * RATE * 4).to_bytes(4, "little"))
    recording = Recording("x", str(path), duration=60.0)

    silent, corrupt = read(recording, segmentation=Segmentation(4.0, cut="fixed"))

    assert silent == Skipped("x#t=0,4", SkipReason.SILENT, "all zeros")
    assert corrupt == Skipped("x", SkipReason.CORRUPT, "from 4.00 s on: ends after 5.00 of 60.00 s")


def test_one_piece_is_held_at_a_time(write):
    pieces = read_pieces(
        Recording("x", str(write("a.wav", noise(20.0)))), PieceRules(Segmentation(2.0, cut="fixed")), RATE, 25.0
    )
    first = next(pieces)
    waveform = weakref.ref(first.waveform)
    del first

    second = next(pieces)

    assert second.id == "x#t=2,4"
    assert waveform() is None


@pytest.mark.parametrize("audio", [{"bytes": None, "path": None}, {"bytes": b"", "path": None}])
def test_rows_without_audio_are_skipped(audio):
    (skipped,) = read(Recording("x", audio))

    assert skipped.reason in (SkipReason.UNREADABLE, SkipReason.EMPTY)


def test_an_excerpt_that_the_file_does_not_hold_is_skipped(write):
    path = str(write("a.wav", noise(2.0)))

    (behind,) = read(Recording("x", path, offset=3.0))
    (too_long,) = read(Recording("x", path, offset=1.0, duration=5.0))

    assert behind == Skipped("x", SkipReason.EMPTY, "no samples from 3.00 s on")
    assert too_long == Skipped("x", SkipReason.CORRUPT, "ends after 1.00 of 5.00 s")
