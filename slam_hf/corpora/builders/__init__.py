"""Datasets that `load_dataset` knows by name once slam_hf is imported."""

import hashlib
from pathlib import Path

from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES


BUILDERS = {
    name: name
    for name in (
        "librilight",
        "librispeech",
        "preference_units",
        "slamkit_units",
        "speech_units",
        "spokenswag",
        "stinystories",
    )
} | {"quickstart:corpus": "quickstart", "quickstart:preferences": "quickstart"}
"""The module of each name."""

SOURCES = (
    "corpora/builders",
    "corpora/json_lines.py",
    "corpora/preference_pairs.py",
    "corpora/schema.py",
    "corpora/slamkit.py",
    "encoding/listing.py",
    "encoding/recordings.py",
    "encoding/unit_rows.py",
    "unit_vocabulary.py",
)
"""What the rows of the builders depend on."""


def register_builders() -> None:
    """Make the builders known to `load_dataset`, where `datasets` keeps its own. Their modules are not imported."""
    hash = hash_sources(Path(__file__).parents[2])
    for name, module in BUILDERS.items():
        _PACKAGED_DATASETS_MODULES[name] = (f"{__name__}.{module}", hash)


def hash_sources(package: Path) -> str:
    """SHA-256 of `SOURCES`. It is part of the name of a prepared dataset in the cache: other code prepares it anew."""
    files = sorted(file for source in SOURCES for file in [package / source, *(package / source).glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()
