"""People's voices in Debian packages: telephone prompts and audiobook readers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..speech_bank import Utterance


PROMPTS = Path("/usr/share/asterisk/sounds")
"""Where Debian's `asterisk-core-sounds-*-g722` put their prompts, one folder per speaker."""

FOREIGN_SPEAKERS = ("es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
PROMPT_SPEAKERS = ("en_US_f_Allison", *FOREIGN_SPEAKERS)

_NO_SPEECH = ("silence", "beep", "digits", "letters", "phonetic", "monkeys", "tt-")

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Audiobook clips in Debian's `pocketsphinx-testdata`."""


def telephone_prompts(speaker: str) -> Iterator[Utterance]:
    """Prompts of one speaker that last over half a second. No text: it is not in the packages."""
    paths = [
        path
        for path in sorted((PROMPTS / speaker).rglob("*.g722"))
        if path.stat().st_size > 4_000 and not any(part in str(path) for part in _NO_SPEECH)
    ]
    # One decoder for all: G.722 has no header, and a byte is two samples.
    command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", "-", "-f", "s16le", "-ar", "16000", "-ac", "1", "-"]
    content = [path.read_bytes() for path in paths]
    decoded = subprocess.run(command, input=b"".join(content), capture_output=True, check=True).stdout
    samples = np.frombuffer(decoded, np.int16).astype(np.float32) / 32768
    for prompt in np.split(samples, np.cumsum([2 * len(encoded) for encoded in content])[:-1]):
        yield Utterance(prompt, 16_000, "", False, speaker)


def audiobook_clips(librispeech: Path) -> Iterator[Utterance]:
    """The LibriVox clips with their transcripts, and the LibriSpeech clips of a folder: all held out."""
    transcripts = {}
    for line in (LIBRIVOX / "transcription").read_text().splitlines():
        text, _, name = line.rpartition("(")
        transcripts[name.rstrip(")\n ")] = text.replace("<s>", "").replace("</s>", "").strip()
    for path in sorted(LIBRIVOX.glob("*.wav")):
        samples, sampling_rate = soundfile.read(path, dtype="float32")
        yield Utterance(samples, sampling_rate, transcripts.get(path.stem, ""), True, "Sense and Sensibility")
    for path in sorted(librispeech.glob("*.flac")):
        samples, sampling_rate = soundfile.read(path, dtype="float32")
        yield Utterance(samples, sampling_rate, "", True, path.stem)
