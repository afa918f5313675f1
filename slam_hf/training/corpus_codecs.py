"""Whether the corpora of a run, and the model, have the same codec."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub import DatasetCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from ..encoding.codec_identity import describe_codec
from ..processing_speech_lm import SpeechLMProcessor
from .arguments import CorpusConfig


def check_codecs(corpora: list[CorpusConfig], processor: SpeechLMProcessor) -> None:
    r"""
    Compare what the cards of corpora say about their codec with each other, and with the codec of the model.

    Args:
        corpora (`list` of [`CorpusConfig`]):
            The corpora. One whose card does not name its codec is only reported.
        processor ([`SpeechLMProcessor`]):
            The processor of the model. Its codec is loaded where there is something to compare.

    Raises:
        ValueError: there are two codecs, or two numbers of units.
    """
    made_by: dict[str, str] = {}
    for corpus in corpora:
        card = read_card(corpus)
        num_units, sha256 = card.get("num_units"), card.get("codec_sha256")
        if isinstance(num_units, int) and num_units != processor.tokenizer.num_units:
            raise ValueError(
                f"The corpus '{corpus.path}' has {num_units} units, and the model {processor.tokenizer.num_units}."
            )
        if isinstance(sha256, str):
            made_by.setdefault(sha256, f"'{corpus.path}' by {card.get('codec')}")
        else:
            PartialState().print(f"The corpus '{corpus.path}' has no card that names its codec, which is not checked.")
    if len(made_by) > 1:
        raise ValueError(
            f"The units of the corpora are of different codecs: {' and '.join(made_by.values())}. Units of one codec "
            "mean nothing in another: train on corpora of the same codec."
        )
    try:
        codec = processor.audio_tokenizer if made_by else None
    except OSError as error:
        PartialState().print(f"{error} The corpora are not compared with it.")
        return
    if codec is not None and (described := describe_codec(codec)).weights not in made_by:
        (corpus,) = made_by.values()
        raise ValueError(
            f"The units of the corpora are of another codec than the model's: {corpus}, and the model has "
            f"{described.name}. Name the codec that made the corpora."
        )


def read_card(corpus: CorpusConfig) -> dict[str, Any]:
    """What the card of a corpus says in its YAML, and nothing where there is no card."""
    path = Path(corpus.path) / "README.md"
    try:
        if not Path(corpus.path).is_dir():
            path = hf_hub_download(corpus.path, path.name, repo_type="dataset", revision=corpus.revision)
        return DatasetCard(Path(path).read_text("utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (EntryNotFoundError, OSError, ValueError):
        return {}
