"""sTinyStories (https://huggingface.co/datasets/slprl/sTinyStories): synthesised children's stories."""

from datasets import Audio, Features, Value

from slam_hf.corpora.builders.bases import KnownParquet
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES


class STinyStories(KnownParquet):
    """The stories with their texts, and the times of the words where they are known."""

    FEATURES = Features(
        {"audio": Audio(decode=False), "text": Value("string"), "aligned_text": UNIT_CORPUS_FEATURES["aligned_text"]}
    )
    OPTIONAL = frozenset({"aligned_text"})
