"""Tokenised corpora in Parquet."""

from slam_hf.corpora.builders.bases import KnownParquet
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES


class SpeechUnits(KnownParquet):
    """A tokenised corpus, with all its columns: those that the files lack are null."""

    FEATURES = UNIT_CORPUS_FEATURES
    OPTIONAL = frozenset({"text", "aligned_text"})
