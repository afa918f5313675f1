"""Cards of unit codecs."""

import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from ..configuration_hubert_unit_codec import HubertUnitCodecConfig, UnitHifiGanConfig
from ..loading_utils import read_json
from ..public_names import check_license
from ..run_record import read_run_records
from .markdown import TEMPLATES, Markdown, code, count_parameters, front_matter
from .repository_files import CODEBOOK
from .training_runs import describe_corpus, run_rows


EDIT_RATES = {
    "noise": "white noise 10 dB below",
    "reverberation": "reverberation of 0.4 s",
    "speed": "1.1 times as fast",
    "voice": "another voice",
}


def render_codec_card(folder: str | os.PathLike, repo_id: str, license: str | None = None) -> ModelCard:
    r"""
    Render the card of a [`HubertUnitCodec`] from its configuration and weights.

    Args:
        folder (`str` or `os.PathLike`):
            Folder of the codec, as written by `save_pretrained`.
        repo_id (`str`):
            Repository that the codec is published to. The examples use this name.
        license (`str`, *optional*):
            Licence, as an identifier of the Hub. Without one, the card says that none was given.

    Returns:
        [`~huggingface_hub.ModelCard`]

    Raises:
        FileNotFoundError: the folder has no weights.
    """
    validate_repo_id(repo_id)
    check_license(license)
    folder = Path(folder)
    config = HubertUnitCodecConfig.from_pretrained(folder)
    vocoder = config.vocoder_config
    model_type = config.encoder_config.model_type
    encoder = "HuBERT" if model_type == "hubert" else model_type
    figures = {
        "units": f"{config.num_units:,}",
        "frames per second": f"{config.sampling_rate / config.hop_length:g}, of {config.hop_length:,} samples",
        "sampling rate": f"{config.sampling_rate:,} Hz, mono",
        "encoder": f"{encoder}, output of layer {config.layer}, {count_parameters(folder, 'encoder.'):,} parameters",
        "codebook": f"{config.num_units:,} centroids of {config.encoder_config.hidden_size:,} values",
    }
    if vocoder is not None:
        durations = "predicts durations" if vocoder.duration_hidden_dim else "needs durations"
        voices = f"{vocoder.num_speakers:,} voices" if vocoder.num_speakers > 1 else "one voice"
        size = count_parameters(folder, "vocoder.")
        styles = f", {vocoder.num_styles:,} styles" if vocoder.num_styles > 1 else ""
        figures["vocoder"] = f"unit HiFi-GAN, {size:,} parameters, {voices}{styles}, {durations}"
    tags = ["speech", "speech-units", "slam-hf"]
    data = ModelCardData(license=license, library_name="transformers", pipeline_tag="audio-to-audio", tags=tags)
    content = TEMPLATES.get_template("codec_card.md").render(
        metadata=front_matter(data),
        repo_id=repo_id,
        title=repo_id.split("/")[-1],
        config=config,
        figures=[("codec", "value"), *figures.items()],
        voices=[] if vocoder is None else list(_describe_voices(vocoder)),
        runs=[(record, list(map(describe_corpus, record.corpora))) for record in read_run_records(folder)],
        run_table=lambda record: [("run", "value"), *run_rows(record)],
        has_curve=(folder / "training_curve.png").is_file(),
        codebook=list(_describe_codebook(folder / CODEBOOK)),
        can_decode=vocoder is not None and vocoder.duration_hidden_dim > 0,
        has_remote_code=bool(getattr(config, "auto_map", None)),
        license=license,
    )
    return ModelCard(content)


def _describe_codebook(path: Path) -> Iterator[tuple[str, str]]:
    """The measures that `slam-hf fit-codebook` has left beside a codec, as rows of a table."""
    if not path.is_file():
        return
    content = read_json(path)
    try:
        yield "measure", "value"
        yield "fitted on", f"{content['num_frames']:,} frames of {content['seconds'] / 3600:,.2f} hours of speech"
        yield "variance explained", f"{content['explained_variance']:.1%}"
        yield "perplexity", f"{content['perplexity']:,.0f} of {content['num_units']:,} units"
        held_out = content["held_out"]
        if held_out is None:
            return
        yield "held-out recordings", f"{held_out['num_recordings']:,}, {held_out['seconds'] / 60:,.1f} minutes"
        yield "perplexity of their units", f"{held_out['perplexity']:,.0f}"
        yield "units per second, deduplicated", f"{held_out['units_per_second']:.1f}"
        if "normalized_mutual_information" in held_out:
            name = f"mutual information with {held_out['num_labels']:,} words or phones, normalised"
            yield name, f"{held_out['normalized_mutual_information']:.2f}"
        for name, rate in held_out["edit_rate"].items():
            yield f"unit edit rate, {EDIT_RATES[name]}", f"{rate:.2f}"
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' is not as `slam-hf fit-codebook` writes it ({error!r}). Remove it.") from error


def _describe_voices(vocoder: UnitHifiGanConfig) -> Iterator[tuple[str, str, str]]:
    """The argument of `decode` that chooses among several speakers or styles, an example of its value, and a list of
    what there is, the default first."""
    for kind in ("speaker", "style"):
        count, names = getattr(vocoder, f"num_{kind}s"), getattr(vocoder, f"{kind}_names")
        if count > 1:
            listed = ", ".join(map(code, names)) if names else f"`0` to `{count - 1}`"
            yield f"{kind}_id", repr(names[-1]) if names else str(count - 1), Markdown(listed)
