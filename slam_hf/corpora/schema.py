"""Columns of the datasets that hold speech as units."""

from datasets import Features, Value

from ..encoding.recordings import PAIR_CLIPS
from ..encoding.unit_rows import UNIT_ROW_SCHEMA


UNIT_CORPUS_FEATURES = Features.from_arrow_schema(UNIT_ROW_SCHEMA)
"""A tokenised corpus: one row per utterance."""

PREFERENCE_FEATURES = Features(
    {name: Value("string") for name in ("id", *PAIR_CLIPS, *(f"{clip}_text" for clip in PAIR_CLIPS))}
)
"""Preference pairs as TRL's `DPOTrainer` takes them: unit strings (`<Un3><Un49>...`), with the text where known."""

JUDGED_PREFERENCE_FEATURES = Features(
    {
        **PREFERENCE_FEATURES,
        **{f"{clip}_{value}": Value("float64") for clip in PAIR_CLIPS[1:] for value in ("score", "auto_bleu")},
    }
)
"""Preference pairs of a model's own continuations, with the judge's score and the auto-BLEU of both."""
