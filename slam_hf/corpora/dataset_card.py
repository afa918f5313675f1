"""Cards of tokenised corpora: what made them, how much they hold, what was left out."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..encoding.codec_identity import CodecDescription
from ..public_names import check_license
from .schema import JUDGED_PREFERENCE_FEATURES, PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES


@dataclass(frozen=True)
class SplitSummary:
    """A finished split. `skipped` counts what was left out by reason; `seconds` is the rest of the audio; `files` has
    the SHA-256 of shards and report. Of pairs of a model's own continuations, `made` says how they were made."""

    split: str
    num_rows: int
    num_units: int
    num_frames: int
    seconds: float
    num_bytes: int
    has_pairs: bool
    skipped: dict[str, int]
    files: dict[str, str] = field(default_factory=dict, compare=False)
    made: dict[str, Any] = field(default_factory=dict)


def make_card(codec: CodecDescription, splits: list[SplitSummary]) -> DatasetCard:
    """Make the card of a dataset folder from its finished splits. The YAML has the features and splits as `datasets`
    writes them, and `codec`, `codec_revision`, `codec_sha256`, `codec_dtype`, `frame_rate`, `num_units`,
    `total_hours` and `total_units`."""
    has_pairs, is_made = splits[0].has_pairs, bool(splits[0].made)
    data = DatasetCardData(
        tags=["speech", "speech-units", "slam-hf"],
        codec=codec.name,
        codec_revision=codec.revision,
        codec_sha256=codec.weights,
        codec_dtype=codec.dtype,
        frame_rate=codec.frame_rate,
        num_units=codec.num_units,
        total_hours=round(sum(split.seconds for split in splits) / 3600, 2),
        total_units=sum(split.num_units for split in splits),
    )
    infos = SplitDict()
    for split in splits:
        infos.add(SplitInfo(split.split, num_bytes=split.num_bytes, num_examples=split.num_rows))
    features = UNIT_CORPUS_FEATURES
    if has_pairs:
        features = JUDGED_PREFERENCE_FEATURES if is_made else PREFERENCE_FEATURES
    info = DatasetInfo(features=features, splits=infos, dataset_size=sum(split.num_bytes for split in splits))
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    data_files = [{"split": split.split, "path": f"data/{split.split}-*"} for split in splits]
    MetadataConfigs({"default": {"data_files": data_files}}).to_dataset_card_data(data)
    link = f"`{codec.name}`"
    if codec.revision is not None:
        link = f"[{link}](https://huggingface.co/{codec.name}/tree/{codec.revision})"
    body = _BODY.format(
        title="Preference pairs of speech" if has_pairs else "Speech",
        codec=link,
        num_units=codec.num_units,
        frame_rate=f"{codec.frame_rate:g}",
        origin="The best and the worst of a model's own continuations of speech prompts, in units of"
        if is_made
        else "Recordings tokenised with",
        columns=(_PAIR_COLUMNS + _SCORE_COLUMNS * is_made) if has_pairs else _CORPUS_COLUMNS,
        made="".join(map(_made_section, splits)) if is_made else "",
        splits="\n".join(map(_split_line, splits)),
        skipped="\n\n".join(map(_skipped_paragraph, splits)),
        codec_sha256=codec.weights,
        codec_dtype=codec.dtype,
        path=_LOCAL_PATH,
        license=_NO_LICENSE,
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def read_card(dataset: str, revision: str | None = None) -> dict[str, Any]:
    """What the card of a dataset says in its YAML, and nothing where there is no card."""
    path = Path(dataset) / "README.md"
    try:
        if not Path(dataset).is_dir():
            path = hf_hub_download(dataset, path.name, repo_type="dataset", revision=revision)
        return DatasetCard(Path(path).read_text("utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (EntryNotFoundError, OSError, ValueError):
        return {}


def render_dataset_card(folder: str | os.PathLike, repo_id: str, license: str | None = None) -> DatasetCard:
    """The card that the tokenisation wrote to a folder, for the repository that it goes to, which the example then
    names. Without a licence of the units, as the Hub names it, the card says that none was given."""
    validate_repo_id(repo_id)
    check_license(license)
    path = Path(folder) / "README.md"
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' has no README.md: `slam-hf tokenize` writes it.")
    content = path.read_text("utf-8").replace(_LOCAL_PATH, repo_id)
    if license is None:
        return DatasetCard(content)
    card = DatasetCard(content.replace(_NO_LICENSE, f"`{license}`"))
    card.data.license = license
    return card


def _split_line(split: SplitSummary) -> str:
    rate = split.num_units / split.seconds
    return f"| {split.split} | {split.num_rows:,} | {split.seconds / 3600:,.2f} | {split.num_units:,} | {rate:.1f} |"


def _skipped_paragraph(split: SplitSummary) -> str:
    if not split.skipped:
        return f"`{split.split}`: nothing was left out."
    counts = "\n".join(f"| {reason} | {count:,} |" for reason, count in split.skipped.items())
    table = f"| left out because | count |\n|---|---|\n{counts}"
    return f"`{split.split}` (each with its detail in `skipped/{split.split}.jsonl`):\n\n{table}"


def _made_section(split: SplitSummary) -> str:
    return _MADE.format(split=split.split, made=json.dumps(split.made, indent=2))


_LOCAL_PATH = "path/to/this/dataset"

_NO_LICENSE = "None was given: ask the authors before you use it."

_CORPUS_COLUMNS = """\
| column | content |
|---|---|
| `id` | name of the recording; for a piece of one, followed by its position in seconds, `#t=start,end` |
| `units` | the units, equal neighbours merged |
| `durations` | number of frames of each unit |
| `num_frames` | sum of `durations` |
| `text` | transcript, where it is known |
| `aligned_text` | words with their times in seconds, where they are known |"""

_PAIR_COLUMNS = """\
| column | content |
|---|---|
| `id` | name of the pair |
| `prompt`, `chosen`, `rejected` | units as text, `<Un3><Un49>`: the format of TRL's `DPOTrainer` |
| `prompt_text`, `chosen_text`, `rejected_text` | transcripts, where they are known |"""

_SCORE_COLUMNS = """
| `chosen_score`, `rejected_score` | what the judge says of the text, higher is better |
| `chosen_auto_bleu`, `rejected_auto_bleu` | how much the text repeats itself, from 0 to 1 |"""

_MADE = """
## How `{split}` was made

The model continued each prompt several times. The continuations were transcribed, and the judge scored what was heard.
The pair of a prompt is its best continuation and its worst, within these thresholds; one that repeats itself (a high
auto-BLEU) is never the best. Of the scores, three quantiles are given.

```json
{made}
```
"""

_BODY = """\
# {title} as discrete units

{origin} {codec}: {num_units} units, {frame_rate} frames a second.

| split | rows | hours | units | units per second |
|---|---|---|---|---|
{splits}

{columns}

```python
from datasets import load_dataset

dataset = load_dataset("{path}")
```

## What was left out

{skipped}
{made}
## Codec

SHA-256 of the weights that the units depend on: `{codec_sha256}`. The encoder computed in {codec_dtype}.

## License

{license}

Made with slam-hf.
"""
