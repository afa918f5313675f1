"""Arguments that name a source by plain values, so that each task can open it, on any machine."""

from dataclasses import dataclass, field
from typing import Literal

from .sources import CHUNK_SECONDS


Layout = Literal["folder", "librispeech", "librilight", "manifest", "webdataset", "dataset", "preference_pairs"]


@dataclass
class SourceArguments:
    _argument_group_name = "recordings"

    source: str = field(
        metadata={
            "help": "A folder, a manifest, a tar archive or a folder of them, or a dataset that `load_dataset` reads. "
            "A path, or a URL such as s3://bucket/folder or hf://datasets/user/name."
        }
    )
    layout: Layout = field(
        default="folder",
        metadata={
            "help": "What the source is. `webdataset`: tar archives of audio, with texts beside it. `dataset` has an "
            "audio column; `preference_pairs` is a dataset with the audio columns `prompt`, `chosen` and `rejected`."
        },
    )
    audio_root: str | None = field(
        default=None,
        metadata={
            "help": "Folder or URL that a manifest's paths are relative to and may not leave. Default: its own."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_split: str = field(default="train", metadata={"help": "Split of the dataset."})
    data_dir: str | None = field(default=None, metadata={"help": "`data_dir` of the dataset."})
    streaming: bool = field(default=False, metadata={"help": "Read the dataset without storing it."})
    audio_column: str = field(default="audio", metadata={"help": "Column of the recordings."})
    text_column: str = field(
        default="text",
        metadata={"help": "Column of the transcripts, if there is one; in tar archives, key in `.json`."},
    )
    id_column: str | None = field(default=None, metadata={"help": "Column of the ids. Default: the rows' positions."})
    chunk_seconds: float = field(
        default=CHUNK_SECONDS,
        metadata={"help": "Seconds of audio per chunk. A killed job loses its unfinished chunks."},
    )

    @property
    def label_columns(self) -> dict[str, str]:
        """`dict[str, str]`: The columns of `speaker` and `style`, for jobs that read them."""
        return {}


@dataclass
class VoiceSourceArguments(SourceArguments):
    """A source whose recordings have speakers and styles."""

    _argument_group_name = "recordings"

    speaker_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the speakers; in tar archives, key in `.json`; in layouts of folders, `folder` for the "
            "name of the speaker's folder. Default: one speaker."
        },
    )
    style_column: str | None = field(
        default=None, metadata={"help": "Column of the styles; in tar archives, key in `.json`. Default: one style."}
    )

    @property
    def label_columns(self) -> dict[str, str]:
        columns = {"speaker": self.speaker_column, "style": self.style_column}
        return {label: column for label, column in columns.items() if column is not None}
