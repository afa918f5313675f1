"""Turns recordings into a tokenised corpus: the whole job, from a source to a dataset folder."""

import os
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list, gather_object

from ..encoding.codec_identity import describe_codec
from ..encoding.ledger import Ledger
from ..encoding.reading import PieceRules
from ..encoding.settings import claim_folder, make_settings
from ..encoding.sources import Source
from ..encoding.unit_rows import MAX_UNITS
from ..encoding.worker import encode_share, share_parts
from ..processes import get_process_state
from .dataset_card import SplitSummary
from .dataset_folder import finish_split, job_folder, publish_split, read_summary


if TYPE_CHECKING:
    from slam_hf.modeling_hubert_unit_codec import HubertUnitCodec


def tokenize_corpus(
    source: Source,
    codec: "HubertUnitCodec",
    output_dir: str | os.PathLike,
    split: str = "train",
    rules: PieceRules | None = None,
    batch_seconds: float = 240.0,
    num_workers: int = 2,
) -> SplitSummary:
    r"""
    Tokenise recordings into a dataset that `load_dataset(output_dir)` reads.

    Called in each process of `accelerate launch`, it divides the work among them by seconds of audio. Started again
    after it was interrupted, it continues with the chunks that are missing. The result is the same for any number of
    processes and interruptions.

    Args:
        source ([`Source`]):
            What to tokenise, the same in all processes.
        codec ([`HubertUnitCodec`]):
            Gives the units, on the device that it is on.
        output_dir (`str` or `os.PathLike`):
            Folder of the dataset, which may hold other splits made with the same codec.
        split (`str`, *optional*, defaults to `"train"`):
            Name of the split.
        rules ([`PieceRules`], *optional*):
            How recordings are cut, and which are left out.
        batch_seconds (`float`, *optional*, defaults to 240.0):
            Most audio that the codec takes at once, padding included, in seconds.
        num_workers (`int`, *optional*, defaults to 2):
            Worker processes that decode and resample ahead of the codec, for each process.

    Returns:
        [`SplitSummary`]

    Raises:
        ValueError: `output_dir` holds a tokenisation with other settings, or nothing could be tokenised.
        DiskFullError: no space is left. What is finished is kept.
    """
    if codec.config.num_units > MAX_UNITS:
        raise ValueError(f"The codec has {codec.config.num_units} units, but a corpus stores them as uint16.")
    rules = PieceRules() if rules is None else rules
    state = get_process_state()
    folder = job_folder(output_dir, split)
    description = describe_codec(codec)
    settings = make_settings(source, description, rules)
    if any(other != settings for other in gather_object([settings])):
        raise ValueError("The processes see different recordings or codecs: give all of them the same.")
    ledger = Ledger(folder / "chunks")
    shares = None
    if state.is_main_process:
        claim_folder(folder, settings)
        if read_summary(output_dir, split) is None:
            ledger.refresh()
            shares = share_parts(ledger.pending(source.parts), source.parts, state.num_processes)
    shares = broadcast_object_list([shares])[0]
    if shares is not None:
        encode_share(source, shares[state.process_index], codec, rules, ledger, batch_seconds, num_workers)
    if state.is_main_process:
        ledger.refresh()
        if shares is not None:
            finish_split(output_dir, split, ledger, description, source.has_pairs)
        else:
            publish_split(output_dir, split, description)
    state.wait_for_everyone()
    return read_summary(output_dir, split)
