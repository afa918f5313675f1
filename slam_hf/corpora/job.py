"""Turns recordings into a tokenised corpus: the whole job, from a source to a dataset folder."""

import os
import re
from contextlib import nullcontext

from ..encoding.codec_identity import describe_codec
from ..encoding.ledger import Ledger
from ..encoding.reading import PieceRules
from ..encoding.settings import claim_folder, job_name, make_settings
from ..encoding.sources import Source
from ..encoding.worker import encode_parts
from ..folder_lock import lock_folder
from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..processes import get_process_state
from .dataset_card import SplitSummary
from .dataset_folder import check_vacant, finish_split, job_folder, publish_split, read_summary


def tokenize_corpus(
    source: Source,
    codec: HubertUnitCodec,
    output_dir: str | os.PathLike,
    split: str = "train",
    rules: PieceRules | None = None,
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
            How recordings are cut, and which pieces are left out.
        num_workers (`int`, *optional*, defaults to 2):
            Worker processes that decode and resample ahead of the codec, for each process.

    Returns:
        [`SplitSummary`]

    Raises:
        ValueError: `output_dir` holds a tokenisation with other settings, or a damaged one; the processes see
            different recordings or codecs; chunks are missing in the end; or nothing could be tokenised.
        FileExistsError: `output_dir` holds files that would be replaced, and that no tokenisation has written.
        FolderInUseError: another job is writing to `output_dir`.
        DiskFullError: no space is left. What is finished is kept.
    """
    if not re.fullmatch(r"\w+(\.\w+)*", split):
        raise ValueError(f"A split needs a name of letters and digits, such as 'train', not {split!r}.")
    rules = PieceRules() if rules is None else rules
    state = get_process_state()
    description = describe_codec(codec)
    settings = make_settings(source, description, rules)
    folder = job_folder(output_dir, split)
    with lock_folder(output_dir) if state.is_main_process else nullcontext():
        with state.main_process_first():
            if state.is_main_process:
                check_vacant(output_dir, split)
            claim_folder(folder, settings)
        is_finished = read_summary(output_dir, split) is not None
        chunks, job = folder / "chunks", job_name(settings)
        if not is_finished:
            rank, world_size = state.process_index, state.num_processes
            encode_parts(source, codec, rules, Ledger(chunks, job), rank, world_size, num_workers)
        state.wait_for_everyone()
        if state.is_main_process and is_finished:
            publish_split(output_dir, split, description)
        elif state.is_main_process:
            # The ledger is read from the disk again: the folder may have been moved away meanwhile.
            finish_split(output_dir, split, Ledger(chunks, job), source.parts, description, source.has_pairs)
        state.wait_for_everyone()
    return read_summary(output_dir, split)
