"""SpokenSwag (https://huggingface.co/datasets/slprl/SpokenSwag): preference pairs of synthesised speech."""

from datasets import Audio, Features, Value

from slam_hf.corpora.builders.bases import KnownParquet
from slam_hf.encoding.recordings import PAIR_CLIPS


class SpokenSwag(KnownParquet):
    """Beginnings of sentences, each with a likely and an unlikely continuation, spoken and written."""

    FEATURES = Features(
        {f"{clip}_text": Value("string") for clip in PAIR_CLIPS}
        | {clip: Audio(sampling_rate=24_000, decode=False) for clip in PAIR_CLIPS}
    )
