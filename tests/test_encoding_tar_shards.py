import io
import json
import os
import tarfile

import numpy as np
import pytest
import soundfile

from slam_hf.audio_files import ByteRange
from slam_hf.encoding import tar_shards
from slam_hf.encoding.reading import Piece, PieceRules, read_pieces
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason
from slam_hf.encoding.sources import file_source
from slam_hf.encoding.tar_shards import list_tar_shards


RATE = 16_000


def flac(seed=0, seconds=1.0):
    file = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def member(name, content=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def make_tar(*members, format=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def write(tmp_path):
    def write(content, name="shard.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def read(recording):
    return [item for item in read_pieces(recording, PieceRules(), RATE, 25.0)]


def test_the_recordings_of_a_shard_are_parts_of_its_file(write):
    first, second = flac(0), flac(1)
    path = write(make_tar(member("a/1.flac", first), member("a/1.txt", b" GO\n"), member("a/2.FLAC", second)))

    one, two = list_tar_shards(path)

    assert one == Recording("shard.tar/a/1.flac", ByteRange(str(path), 512, len(first)), text="GO")
    assert (two.id, two.text) == ("shard.tar/a/2.FLAC", None)
    content = path.read_bytes()
    assert content[two.audio.start : two.audio.start + two.audio.size] == second
    (piece,) = read(two)
    np.testing.assert_array_equal(piece.waveform, soundfile.read(io.BytesIO(second), dtype="float32")[0])


def test_the_shards_of_a_folder_are_listed_in_order(write, tmp_path):
    write(make_tar(member("1.flac", flac())), "b.tar")
    write(make_tar(member("1.flac", flac())), "a/c.tar")
    (tmp_path / "README.md").touch()
    write(b"", "d.tar.gz")

    assert [item.id for item in list_tar_shards(tmp_path)] == ["a/c.tar/1.flac", "b.tar/1.flac", "d.tar.gz"]


WORDS = [{"word": "go", "start_time": 0.0, "end_time": 0.5}]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"1.txt": b"go on"}, ("go on", None)),
        ({"1.transcript": b"\xef\xbb\xbfgo on"}, ("go on", None)),
        ({"1.json": json.dumps({"said": "go on", "aligned_text": WORDS}).encode()}, ("go on", WORDS)),
        ({"1.json": b'{"said": "other"}', "1.txt": b"go on"}, ("go on", None)),
        ({"1.txt": b"go on", "1.json": b'{"said": "other"}'}, ("go on", None)),
        ({"1.json": b"{}", "1.cls": b"7"}, (None, None)),
        ({"2.txt": b"of another"}, (None, None)),
    ],
)
def test_texts_are_beside_their_recording(write, texts, expected):
    path = write(make_tar(member("1.flac", flac()), *(member(name, content) for name, content in texts.items())))

    (recording,) = list_tar_shards(path, text_column="said")

    assert (recording.text, recording.aligned_text) == expected


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("1.txt", b"\xff", "its .txt: 'utf-8' codec can't decode"),
        ("1.json", b"{", "its .json: Expecting property name"),
        ("1.json", b"[" * 100_000, "its .json: maximum recursion depth"),
        ("1.json", b"[]", "its .json is not an object"),
        ("1.json", b'{"text": 7}', "'text' is 7, which is not text"),
        ("1.json", b'{"aligned_text": "go"}', "'aligned_text' is not a list of words"),
        ("1.txt", b"a" * 1001, "its .txt has 1001 bytes"),
    ],
)
def test_a_malformed_text_is_a_counted_skip(write, monkeypatch, name, content, detail):
    monkeypatch.setattr(tar_shards, "MAX_MEMBER_BYTES", 1000 if name == "1.txt" else 2**20)
    path = write(make_tar(member("1.flac", flac()), member(name, content), member("2.flac", flac())))

    skipped, recording = list_tar_shards(path)

    assert (skipped.id, skipped.reason) == ("shard.tar/1.flac", SkipReason.MALFORMED)
    assert skipped.detail.startswith(detail)
    assert recording.id == "shard.tar/2.flac"


def test_a_text_belongs_to_one_recording_only(write):
    path = write(make_tar(member("1.a.flac", flac()), member("1.b.flac", flac()), member("1.txt", b"go")))

    assert [(item.id, item.text) for item in list_tar_shards(path)] == [
        ("shard.tar/1.a.flac", None),
        ("shard.tar/1.b.flac", None),
    ]


LEADS_OUT = (SkipReason.WRONGLY_NAMED, "the name leads out of the archive")
NOT_REGULAR = (SkipReason.UNREADABLE, "not a regular file")


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        (member("/etc/1.flac", b"x"), ("shard.tar//etc/1.flac", *LEADS_OUT)),
        (member("../1.flac", b"x"), ("shard.tar/../1.flac", *LEADS_OUT)),
        (member("a/../../1.flac", b"x"), ("shard.tar/a/../../1.flac", *LEADS_OUT)),
        (member("1.flac", type=tarfile.SYMTYPE, linkname="/etc/passwd"), ("shard.tar/1.flac", *NOT_REGULAR)),
        (member("1.flac", type=tarfile.LNKTYPE, linkname="good.flac"), ("shard.tar/1.flac", *NOT_REGULAR)),
        (member("1.flac", type=tarfile.CHRTYPE), ("shard.tar/1.flac", *NOT_REGULAR)),
        (member("1.flac", type=tarfile.BLKTYPE), ("shard.tar/1.flac", *NOT_REGULAR)),
        (member("1.flac", type=tarfile.FIFOTYPE), ("shard.tar/1.flac", *NOT_REGULAR)),
        (
            member("caf\udce9.flac", b"x"),
            ("shard.tar/caf\\xe9.flac", SkipReason.WRONGLY_NAMED, "the name is not UTF-8"),
        ),
        (member("1.xyz", b"x"), ("shard.tar/1", SkipReason.WRONGLY_NAMED, "no audio file of this name")),
        (member("1", b"x"), ("shard.tar/1", SkipReason.WRONGLY_NAMED, "no audio file of this name")),
        (
            member("good.flac", b"x"),
            ("shard.tar/good.flac", SkipReason.WRONGLY_NAMED, "an earlier recording has this id"),
        ),
        (member("a/._1.flac", b"x"), None),
        (member("notes.txt", b"x"), None),
        (member("folder.flac", type=tarfile.DIRTYPE), None),
    ],
)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_hostile_members_are_counted_skips(write, hostile, expected, format):
    path = write(make_tar(member("./good.flac", flac()), hostile, member("last.flac", flac()), format=format))

    (part,) = file_source(list_tar_shards(path)).parts

    items = {(row[0].id, isinstance(row[0], Recording)): row[0] for row in part.read(0)}
    good = {("shard.tar/good.flac", True), ("shard.tar/last.flac", True)}
    assert good <= items.keys()
    skipped = [item for item in items.values() if isinstance(item, Skipped)]
    assert skipped == ([] if expected is None else [Skipped(*expected)])
    for id, is_recording in good:
        assert isinstance(read(items[id, is_recording])[0], Piece)


def test_empty_and_foreign_members_are_reported_when_they_are_read(write):
    path = write(make_tar(member("1.flac"), member("2.flac", b"no audio " * 100)))

    assert [read(item) for item in list_tar_shards(path)] == [
        [Skipped("shard.tar/1.flac", SkipReason.EMPTY, "the file has no content")],
        [Skipped("shard.tar/2.flac", SkipReason.CORRUPT, "Format not recognised.")],
    ]


def shard_of_three():
    return make_tar(*(member(f"{number}.flac", flac(number)) for number in range(3)))


def listed(path):
    recordings = list_tar_shards(path)
    return [item.id for item in recordings if isinstance(item, Recording)], [
        item for item in recordings if isinstance(item, Skipped)
    ]


def test_what_comes_before_a_cut_is_kept_and_the_loss_is_reported(write):
    content = shard_of_three()
    names = [f"shard.tar/{number}.flac" for number in range(3)]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        infos = archive.getmembers()
    end = infos[2].offset_data + (infos[2].size + 511) // 512 * 512
    no_end = "there is no end marker: it may have been cut off"
    for length, kept, detail in [
        (0, 0, f"nothing could be read: {no_end}"),
        (100, 0, "nothing could be read: a damaged header (truncated header)"),
        (infos[0].offset_data + 9, 0, "nothing could be read: '0.flac' is cut off"),
        (infos[1].offset, 1, f"read up to '0.flac': {no_end}"),
        (infos[1].offset + 100, 1, "read up to '0.flac': a damaged header (truncated header)"),
        (infos[2].offset_data, 2, "read up to '1.flac': '2.flac' is cut off"),
        (infos[2].offset_data + infos[2].size - 1, 2, "read up to '1.flac': '2.flac' is cut off"),
        (end, 3, f"read up to '2.flac': {no_end}"),
    ]:
        ids, (loss,) = listed(write(content[:length]))
        assert ids == names[:kept]
        assert loss == Skipped("shard.tar", SkipReason.CORRUPT, detail)


def test_a_damaged_header_is_not_taken_for_the_end(write):
    content = bytearray(shard_of_three())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        offset = archive.getmembers()[1].offset
    content[offset] ^= 1

    ids, (loss,) = listed(write(content))

    assert ids == ["shard.tar/0.flac"]
    assert loss == Skipped("shard.tar", SkipReason.CORRUPT, "read up to '0.flac': a damaged header (bad checksum)")


@pytest.mark.parametrize("rest", [shard_of_three(), bytes(2**20 + 10_240)])
def test_what_follows_the_end_of_an_archive_is_reported(write, rest):
    ids, (loss,) = listed(write(shard_of_three() + rest))

    assert len(ids) == 3
    assert loss.detail.startswith("read up to '2.flac': more follows the end of the archive")


@pytest.mark.parametrize("content", [bytes(10_240), bytes(2**21)])
def test_an_archive_without_files_is_reported(write, content):
    detail = "nothing could be read: there are no files in the archive"

    assert listed(write(content)) == ([], [Skipped("shard.tar", SkipReason.CORRUPT, detail)])


def header(name=b"x", size=0, type=b"0", size_field=None):
    """A tar header with any size."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = f"{size:011o}\0".encode() if size_field is None else size_field
    block[136:148], block[156:157], block[257:265] = b"00000000000\0", type, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def base256(value):
    return (value % 2**96).to_bytes(12, "big") if value < 0 else b"\x80" + value.to_bytes(11, "big")


def pax(records):
    content = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        content += str(length).encode() + body
    return header(b"pax", len(content), b"x") + content.ljust(-(-len(content) // 512) * 512, b"\0")


HOSTILE_HEADERS = {
    "a long name of 8 GB": header(b"././@LongLink", 2**33 - 1, b"L"),
    "attributes of 2^60 bytes": header(b"pax", type=b"x", size_field=base256(2**60)),
    "attributes of 1 MB": header(b"pax", 2**20, b"x") + bytes(2**20),
    "global attributes of 1 MB": header(b"pax", 2**20, b"g") + bytes(2**20),
    "a file of 2^80 bytes": header(b"1.flac", size_field=base256(2**80)),
    "a file of -512 bytes": header(b"1.flac", size_field=base256(-512)),
    "a file of -2^80 bytes": header(b"1.flac", size_field=base256(-(2**80))),
    "attributes of -512 bytes": header(b"pax", type=b"x", size_field=base256(-512)),
    "a size that is no number": header(b"1.flac", size_field=b"size of file"),
    "attributes with a size of -1024": pax({"size": -1024}) + header(b"1.flac"),
    "attributes with a huge size": pax({"size": 2**70}) + header(b"1.flac"),
    "attributes with a long number": pax({"size": "9" * 5000}) + header(b"1.flac"),
    "thousands of long names": (header(b"././@LongLink", 5, b"L") + b"a.wav".ljust(512, b"\0")) * 5000,
    "thousands of attributes": pax({"comment": "x"}) * 5000,
    "a sparse file without end": header(b"1.flac", 512, b"S") + bytes(504) + b"\1" * 8 + (b"\1" * 512) * 5000,
    "a sparse map of many": pax({"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 2**60})
    + header(b"1.flac", 2**20)
    + (b"9999999\n" + b"1\n" * 2**19)[: 2**20],
    "a sparse map that is cut": pax({"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 9})
    + header(b"1.flac", 512),
    "noise": np.random.default_rng(0).bytes(4096),
    "zeros and then noise": bytes(1024) + np.random.default_rng(0).bytes(4096),
}


@pytest.mark.parametrize("content", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
def test_hostile_headers_end_an_archive(write, content):
    good = make_tar(member("good.flac", flac()))[: 512 + -(-len(flac()) // 512) * 512]

    ids, skipped = listed(write(good + content + bytes(10_240)))

    assert ids[0] == "shard.tar/good.flac"
    assert len(ids) + len(skipped) <= 3
    assert skipped or len(ids) == 2


def test_random_damage_gives_recordings_or_a_report(write):
    random = np.random.default_rng(0)
    content = shard_of_three()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(random.integers(1, 20)):
            start = random.integers(0, 3) * 2048 + random.integers(0, 700)
            damaged[start % len(damaged)] = random.integers(0, 256)
        for item in list_tar_shards(write(damaged)):
            assert item.id.startswith("shard.tar")


def test_a_compressed_archive_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar\.gz' is compressed, .*: decompress it"):
        list_tar_shards(tmp_path / "a.tar.gz")


def test_an_archive_that_is_not_a_regular_file_is_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "dead.tar").symlink_to("nowhere.tar")

    assert list_tar_shards(tmp_path) == [Skipped(name, *NOT_REGULAR) for name in ("dead.tar", "pipe.tar")]
    assert list_tar_shards(tmp_path / "pipe.tar") == [Skipped("pipe.tar", *NOT_REGULAR)]


def test_a_missing_archive_is_reported(tmp_path):
    (skipped,) = list_tar_shards(tmp_path / "no.tar")

    assert skipped == Skipped("no.tar", SkipReason.UNREADABLE, "No such file or directory")
