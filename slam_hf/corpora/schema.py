"""Columns of the datasets that hold speech as units."""

from datasets import Features, Value

from ..encoding.unit_rows import UNIT_ROW_SCHEMA


UNIT_CORPUS_FEATURES = Features.from_arrow_schema(UNIT_ROW_SCHEMA)
"""A tokenised corpus: one row per utterance."""

PREFERENCE_FEATURES = Features(
    {
        "id": Value("string"),
        "prompt": Value("string"),
        "chosen": Value("string"),
        "rejected": Value("string"),
        "prompt_text": Value("string"),
        "chosen_text": Value("string"),
        "rejected_text": Value("string"),
    }
)
"""Preference pairs as TRL's `DPOTrainer` takes them: unit strings (`<Un3><Un49>...`), with the text where known."""
