import struct

import numpy as np
from quickstart.codec import game_dialogue


def test_lines_are_found_in_the_game(tmp_path, monkeypatch):
    monkeypatch.setattr(game_dialogue, "STEEL_SKY", tmp_path)
    monkeypatch.setattr(game_dialogue, "_unpack", lambda content: content.removeprefix(b"RNC"))
    line, effect, short = bytes([128, 192] * 5_000), bytes(9_000), bytes(100)
    data, table = b"", [struct.pack("<I", 4)]
    for number, content in ((50_101, line), (59_000, effect), (50_102, short), (60_000, line)):
        data += bytes(-len(data) % 16)
        content = bytes(game_dialogue.STEEL_SKY_HEADER) + b"RNC" + content
        place = len(data) // 16 | 1 << 23
        table.append(struct.pack("<H", number) + place.to_bytes(3, "little") + len(content).to_bytes(3, "little"))
        data += content
    (tmp_path / "sky.dnr").write_bytes(b"".join(table))
    (tmp_path / "sky.dsk").write_bytes(data)

    (found,) = game_dialogue.steel_sky()

    np.testing.assert_array_equal(found.samples, np.tile(np.float32([0, 0.5]), 5_000))
    assert (found.sampling_rate, found.speaker, found.held_out) == (11_025, "lines 1002", False)
