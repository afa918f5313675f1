"""Downloads and converts the codec of the published speech language models."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants, is_offline_mode

from ..modeling_hubert_unit_codec import HubertUnitCodec


@dataclass(frozen=True)
class PublishedFile:
    """A file on the web with its SHA-256, which is checked before the file is read."""

    url: str
    sha256: str

    def download(self, path: Path) -> Path:
        try:
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256)
        except RuntimeError as error:
            raise ValueError(f"{self.url} is not the file that was published: {error}.") from error
        return path


@dataclass(frozen=True)
class PublishedCodec:
    """The parts of a codec: a HuBERT on the Hub at a commit, and its k-means and vocoder files."""

    hubert: str
    hubert_revision: str
    layer: int
    kmeans: PublishedFile
    vocoder: PublishedFile
    vocoder_config: PublishedFile

    @property
    def name(self) -> str:
        """A name that depends on the content of all parts, so that different codecs have different names."""
        files = (self.kmeans.sha256, self.vocoder.sha256, self.vocoder_config.sha256)
        identity = "\n".join((self.hubert, self.hubert_revision, str(self.layer), *files))
        return f"hubert-unit-codec-{hashlib.sha256(identity.encode()).hexdigest()}"

    def convert(self, folder: Path) -> None:
        """Download the parts into `folder` and save the codec in `folder / "codec"`."""
        codec = HubertUnitCodec.from_parts(
            hubert=self.hubert,
            hubert_revision=self.hubert_revision,
            layer=self.layer,
            kmeans=self.kmeans.download(folder / "kmeans.bin"),
            vocoder=self.vocoder.download(folder / "vocoder.pt"),
            vocoder_config=self.vocoder_config.download(folder / "vocoder.json"),
        )
        codec.save_pretrained(folder / "codec")


_TWIST = "https://dl.fbaipublicfiles.com/textless_nlp/twist/speech_tokenizer"
MHUBERT_25HZ = PublishedCodec(
    hubert="slprl/mhubert-base-25hz",
    hubert_revision="a319086e1d343190047d02b7f81133fb310c1b90",
    layer=11,
    kmeans=PublishedFile(
        f"{_TWIST}/mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin",
        "03cc04a9c24fec4285e73e709c485756d8f116aa8e724eac555de6a7cf8d28ad",
    ),
    vocoder=PublishedFile(
        f"{_TWIST}/hifigan_lj_mhubert_base_25hz.pt",
        "d88224e95c501e2cd59a6e4014753169cfe060fb7ade3cc0da03c809fef73b79",
    ),
    vocoder_config=PublishedFile(
        f"{_TWIST}/hifigan_lj_mhubert_base_25hz_config.json",
        "116dc39be4970cd393e562acd0a0ec70a86aaba7e9ca469b8b836cb3fe46afc7",
    ),
)


def published_codec() -> HubertUnitCodec:
    r"""
    The codec of `slprl/slam` and related models: mHuBERT-25Hz (`slprl/mhubert-base-25hz`), layer 11, with the 500
    units and the vocoder of TWIST (https://huggingface.co/papers/2305.13009).

    The first call downloads and checks the parts, and saves the converted codec under `HF_HOME`. Later calls load it
    from there.

    Returns:
        [`HubertUnitCodec`], in evaluation mode.

    Raises:
        OSError: the codec has not been converted yet, and its parts cannot be downloaded.
        ValueError: a downloaded file has the wrong hash.
    """
    return HubertUnitCodec.from_pretrained(cache_codec(MHUBERT_25HZ, Path(constants.HF_HOME) / "slam_hf"))


def cache_codec(published: PublishedCodec, cache_dir: Path) -> Path:
    """The folder in `cache_dir` with the converted codec, which is converted first if it does not exist."""
    folder = cache_dir / published.name
    if folder.is_dir():
        return folder
    try:
        if is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
            published.convert(Path(scratch))
            try:
                os.rename(Path(scratch) / "codec", folder)
            except OSError:
                if not folder.is_dir():  # another process may have converted it meanwhile
                    raise
    except OSError as error:
        raise OSError(
            f"The published codec is not in {folder}, and its parts cannot be fetched: {error}. Call "
            "`slam_hf.conversion.mhubert_25hz.published_codec()` once with a connection, or pass a codec of your own: "
            "`HubertUnitCodec.from_pretrained(folder)`, or `HubertUnitCodec.from_parts(...)` with local copies of "
            f"{published.hubert} (commit {published.hubert_revision}, layer {published.layer}), "
            f"{published.kmeans.url}, {published.vocoder.url} and {published.vocoder_config.url}."
        ) from error
    return folder
