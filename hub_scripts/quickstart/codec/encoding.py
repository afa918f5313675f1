"""How the codec is stored."""

import json
from pathlib import Path

from slam_hf import HubertUnitCodec

from ..stages import write_json


def save_codec(codec: HubertUnitCodec, folder: Path) -> None:
    r"""
    Save a codec in float16, in files under 9 MB, with a configuration that loads it in float32; without the code that
    repositories bring along, as it comes with the package.
    """
    rounded = {name: tensor if name == "codebook" else tensor.half() for name, tensor in codec.state_dict().items()}
    codec.save_pretrained(folder, state_dict=rounded, max_shard_size="9MB")
    for code in folder.glob("*.py"):
        code.unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    write_json(folder / "config.json", config)
