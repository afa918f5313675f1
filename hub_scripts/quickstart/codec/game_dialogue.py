"""The actors of two adventure games in Debian packages, under licences that allow to modify and to pass them on."""

import io
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..speech_bank import Utterance


AMAZON_QUEEN = Path("/usr/share/scummvm/flight-of-the-amazon-queen/queen.1c")
"""The data file of Debian's `flight-of-the-amazon-queen`: 4.6 hours of dialogue by dozens of actors."""

STEEL_SKY = Path("/usr/share/scummvm/beneath-a-steel-sky")
"""The data of Debian's `beneath-a-steel-sky`: 1.8 hours of dialogue by a dozen of actors."""

STEEL_SKY_RATE = 11_025
STEEL_SKY_HEADER = 22
"""Bytes before the content of a resource."""


def amazon_queen() -> Iterator[Utterance]:
    r"""
    Lines of *Flight of the Amazon Queen*, in random order.

    The file begins with a table (`queen/resource.cpp` in ScummVM): "QTBL", a version of 8 bytes, the compression, a
    count as big-endian uint16, and for each resource its name (12 bytes), bundle (1), offset and size (uint32 each).
    A line is an MP3 named after its place (3 characters), number and who speaks: J is the player's character, P
    another person of that place.
    """
    data = AMAZON_QUEEN.read_bytes()
    (count,) = struct.unpack_from(">H", data, 13)
    for index in random.Random(0).sample(range(count), count):
        name, _, offset, size = struct.unpack_from(">12sBII", data, 15 + 21 * index)
        name = name.rstrip(b"\0").decode("latin1")
        if not name.endswith(".SB") or name[6] == "S":
            continue
        samples, sampling_rate = soundfile.read(io.BytesIO(data[offset : offset + size]), dtype="float32")
        if len(samples) > sampling_rate * 0.6:
            speaker = "Joe" if name[6] == "J" or name.startswith("JOE") else f"place {name[:3]}"
            yield Utterance(samples, sampling_rate, "", False, speaker)


def steel_sky() -> Iterator[Utterance]:
    r"""
    Lines of *Beneath a Steel Sky*, in random order.

    `sky.dnr` is a table (`sky/disk.cpp` in ScummVM): a count as little-endian uint32, then 8 bytes for each resource:
    its number (uint16), its offset in `sky.dsk` (24 bits, of which the highest says that the others count 16 bytes)
    and its size (the lower 22 of 24 bits). Lines are numbered from 50,000, people who talk together have numbers close
    to each other, and the content is 8-bit samples that RNC packed, which Debian's `ancient` unpacks.
    """
    table, data = (STEEL_SKY / "sky.dnr").read_bytes(), (STEEL_SKY / "sky.dsk").read_bytes()
    (count,) = struct.unpack_from("<I", table)
    for index in random.Random(0).sample(range(count), count):
        entry = table[4 + 8 * index : 12 + 8 * index]
        (number,) = struct.unpack_from("<H", entry)
        offset, size = int.from_bytes(entry[2:5], "little"), int.from_bytes(entry[5:8], "little") & 0x3FFFFF
        offset = (offset & 0x7FFFFF) * (16 if offset >> 23 else 1)
        content = data[offset + STEEL_SKY_HEADER : offset + size]
        if 50_000 <= number < 55_000 and content.startswith(b"RNC"):
            samples = np.frombuffer(_unpack(content), np.uint8).astype(np.float32) / 128 - 1
            if len(samples) > STEEL_SKY_RATE * 0.6:
                yield Utterance(samples, STEEL_SKY_RATE, "", False, f"lines {number // 50}")


def _unpack(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        packed, unpacked = Path(folder, "packed"), Path(folder, "unpacked")
        packed.write_bytes(content)
        subprocess.run(["ancient", "decompress", packed, unpacked], check=True, capture_output=True)
        return unpacked.read_bytes()
