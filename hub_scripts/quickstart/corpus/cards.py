"""Cards of what the build publishes."""

from typing import Any

import yaml


_CORPUS = """---
{metadata}---

# slam-hf quickstart corpus

Synthetic speech as units of the quickstart codec: one voice reads English sentences (part `sentences`: examples from
WordNet 3.0 and clauses of the King James Bible) and short stories from a hand-written grammar (part `stories`:
{scenarios} scenarios with two outcomes each, {heroes} heroes). `default` is both.

| part | split | rows | hours | units | units a second |
|---|---|---|---|---|---|
{table}

| column | type | |
|---|---|---|
| `id` | string | part, split and number |
| `units` | list of uint16 | no two neighbours are equal |
| `durations` | list of uint16 | frames of 40 ms that each unit lasts |
| `num_frames` | int32 | their sum |
| `text` | string | what is read |
| `aligned_text` | list | the words with `start_time` and `end_time` in seconds |

The times of the words are those of CTC forced alignment, by a small network from units to letters that was trained on
the sentences of the training split ({minutes:.0f} CPU minutes). {aligned:,} of {rows:,} rows have them. How far they
are from the times with which the voices speak, on the validation split, and on 80 sentences of another voice, flite's
slt, which neither the codec nor the network was trained on:

| | words | mean error | median error | median, signed | within 50 ms | within 100 ms |
|---|---|---|---|---|---|---|
{errors}

Of the corpus's voice, ends before pauses are not counted, as it counts a pause to the sound before it. Its sound
begins {lead:.0f} ms earlier than its durations say (median of the sentences' beginnings), which is taken off.

Every sentence of a story names its hero. Each pair of hero and scenario belongs to the training split, to the
validation split or to the miniature benchmarks, so these three share no sentence.

The voice is hibari-tts 0.2.1 (Apache-2.0), `heart`. WordNet is licensed by Princeton University
([WordNet 3.0 license](https://wordnet.princeton.edu/license-and-commercial-use)); the Bible is in the public domain.
`python -m hub_scripts.quickstart` makes all of it.
"""

_PREFERENCES = """---
{metadata}---

# slam-hf quickstart preference pairs

{train} preference pairs to train on and {validation} to validate with, in the form of SpokenSwag, as units of the
quickstart codec: `prompt` is the beginning of a story (four sentences), `chosen` its ending and `rejected` a worse
one, which alternately contradicts the story or belongs to another. The stories are of the same grammar as the training
stories of the quickstart corpus, but none of them is among them; no sentence is in the miniature benchmarks. TRL's
`DPOTrainer` takes the columns `prompt`, `chosen` and `rejected`; `*_text` is their text.
"""

_BENCHMARKS = """# slam-hf quickstart benchmarks

Three benchmarks in miniature, as units of the quickstart codec, in the layouts and with the definitions of the real
ones.

| folder | pairs | the wrong utterance |
|---|---|---|
| `sblimp` | {sblimp}: {phenomena} phenomena, {voices} voices | breaks a rule of grammar |
| `sstorycloze` | {storycloze} | contradicts the story in its ending |
| `tstorycloze` | {storycloze} | ends with the ending of another story |

The stories are of the same grammar as those of the quickstart corpus, and share no sentence with them. Their parts
`{{n}}_mutual` (all but the ending), `{{n}}_correct` and `{{n}}_incorrect` are there as units and as text, so that a
model of speech and text can be scored in all four directions. Parts are encoded apart, so that both utterances of a
pair have the same beginning. Scores tell apart small models that were trained on this corpus. They cannot be compared
with scores on the real benchmarks.
"""


def corpus_card(
    codec: dict[str, Any],
    figures: dict[str, dict[str, float]],
    sha256: str,
    scenarios: int,
    heroes: int,
    word_times: dict[str, Any],
) -> str:
    r"""
    The card of the corpus.

    Args:
        codec (`dict`):
            What the YAML says of the codec.
        figures (`dict`):
            `rows`, `hours` and `units` of each `<part>/<split>`.
        sha256 (`str`):
            Hash of the files. With it in the configurations, `datasets` notices when files in a folder change; by
            itself, it keeps what it has read once under the same configuration.
        scenarios, heroes (`int`):
            Size of the story grammar.
        word_times (`dict`):
            What the stage of this name measured.
    """
    configs = [
        {
            "config_name": config,
            "description": f"SHA-256 of the files: {sha256}",
            "data_files": [{"split": split, "path": f"{folder}/{split}.parquet"} for split in ("train", "validation")],
        }
        for config, folder in (("default", "*"), ("sentences", "sentences"), ("stories", "stories"))
    ]
    metadata = _metadata("slam-hf quickstart corpus", codec) | {"configs": configs}
    table = "\n".join(
        f"| {name.replace('/', ' | ')} | {part['rows']:,} | {part['hours']:.2f} | {part['units']:,} | "
        f"{part['units'] / part['hours'] / 3600:.1f} |"
        for name, part in figures.items()
    )
    errors = "\n".join(
        f"| {part}, {of_words} | {of['words']:,} | {of['mean_ms']:.0f} ms | {of['median_ms']:.0f} ms | "
        f"{of['bias_ms']:+.0f} ms | {of['within_50_ms']:.1%} | {of['within_100_ms']:.1%} |"
        for part in ("sentences", "stories", "flite-slt")
        for of_words, of in word_times[part].items()
    )
    num_rows = sum(part["rows"] for part in figures.values())
    return _CORPUS.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        table=table,
        scenarios=scenarios,
        heroes=heroes,
        minutes=word_times["training"]["cpu_minutes"],
        rows=num_rows,
        aligned=num_rows - sum(sum(of_file.values()) for of_file in word_times["unaligned"].values()),
        errors=errors,
        lead=word_times["lead_ms"],
    )


def preference_card(codec: dict[str, Any], counts: dict[str, int]) -> str:
    """The card of the preference pairs, with the number of them in each split."""
    metadata = _metadata("slam-hf quickstart preference pairs", codec)
    return _PREFERENCES.format(metadata=yaml.safe_dump(metadata, sort_keys=False), **counts)


def benchmark_card(sblimp: int, phenomena: int, voices: int, storycloze: int) -> str:
    """The card of the benchmarks, from their numbers of pairs, and of phenomena and voices in `sblimp`."""
    return _BENCHMARKS.format(sblimp=sblimp, phenomena=phenomena, voices=voices, storycloze=storycloze)


def _metadata(name: str, codec: dict[str, Any]) -> dict[str, Any]:
    return {
        "license": "other",
        "license_name": "wordnet-3.0-and-public-domain",
        "language": ["en"],
        "pretty_name": name,
        "tags": ["speech", "speech-units", "synthetic"],
    } | codec
