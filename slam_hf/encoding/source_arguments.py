"""Arguments that name a source by plain values, so that each task can open it, on any machine."""

from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from .sources import CHUNK_SECONDS


Layout = Literal["folder", "librispeech", "librilight", "manifest", "webdataset", "dataset", "preference_pairs"]


@dataclass
class SourceArguments:
    _argument_group_name = "recordings"

    source: str = HfArg(
        help="A folder, a manifest, a tar archive or a folder of them, or a dataset that `load_dataset` reads. "
        "A path, or a URL such as s3://bucket/folder or hf://datasets/user/name."
    )
    layout: Layout = HfArg(
        default="folder",
        help="What the source is. `webdataset`: tar archives of audio, with texts beside it. `dataset` has an "
        "audio column; `preference_pairs` is a dataset with the audio columns `prompt`, `chosen` and `rejected`.",
    )
    audio_root: str | None = HfArg(
        default=None, help="Folder or URL that a manifest's paths are relative to and may not leave. Default: its own."
    )
    dataset_config: str | None = HfArg(default=None, help="Configuration of the dataset.")
    dataset_split: str = HfArg(default="train", help="Split of the dataset.")
    data_dir: str | None = HfArg(default=None, help="`data_dir` of the dataset.")
    streaming: bool = HfArg(default=False, help="Read the dataset without storing it.")
    audio_column: str = HfArg(default="audio", help="Column of the recordings.")
    text_column: str = HfArg(
        default="text", help="Column of the transcripts, if there is one; in tar archives, key in `.json`."
    )
    id_column: str | None = HfArg(default=None, help="Column of the ids. Default: the rows' positions.")
    chunk_seconds: float = HfArg(
        default=CHUNK_SECONDS, help="Seconds of audio per chunk. A killed job loses its unfinished chunks."
    )

    @property
    def label_columns(self) -> dict[str, str]:
        """`dict[str, str]`: The columns of `speaker` and `style`, for jobs that read them."""
        return {}


@dataclass
class VoiceSourceArguments(SourceArguments):
    """A source whose recordings have speakers and styles."""

    speaker_column: str | None = HfArg(
        default=None,
        help="Column of the speakers; in tar archives, key in `.json`; in layouts of folders, `folder` for the "
        "name of the speaker's folder. Default: one speaker.",
    )
    style_column: str | None = HfArg(
        default=None, help="Column of the styles; in tar archives, key in `.json`. Default: one style."
    )

    @property
    def label_columns(self) -> dict[str, str]:
        columns = {"speaker": self.speaker_column, "style": self.style_column}
        return {label: column for label, column in columns.items() if column is not None}
