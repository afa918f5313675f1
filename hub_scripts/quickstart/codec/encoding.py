"""The codec's encoder from the trained student, and the units of a bank."""

import json
from pathlib import Path

import numpy as np
import torch

from slam_hf import HubertUnitCodec

from ..speech_bank import SpeechBank
from ..stages import write_json
from .student import Student


def round_to_half(student: Student) -> None:
    """Round the weights of the student's HuBERT to float16, in which they are published."""
    for parameter in student.hubert.parameters():
        parameter.data = parameter.data.half().float()


def make_codec(student: Student, centroids: np.ndarray) -> HubertUnitCodec:
    """A codec without a vocoder, of the student's HuBERT and a codebook."""
    round_to_half(student)
    return HubertUnitCodec.from_parts(student.hubert, torch.from_numpy(centroids), layer=4)


def save_codec(codec: HubertUnitCodec, folder: Path) -> None:
    r"""
    Save a codec in float16, in files under 9 MB, with a configuration that loads it in float32; without the code that
    repositories bring along, as it comes with the package.
    """
    rounded = {name: tensor if name == "codebook" else tensor.half() for name, tensor in codec.state_dict().items()}
    codec.save_pretrained(folder, state_dict=rounded, max_shard_size="9MB")
    for code in folder.glob("*.py"):
        code.unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    write_json(folder / "config.json", config)


def encode(codec: HubertUnitCodec, waveform: np.ndarray) -> np.ndarray:
    """The unit of each frame of a waveform at 16 kHz."""
    return codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0].numpy()


def encode_utterance(codec: HubertUnitCodec, bank: SpeechBank, index: int) -> np.ndarray:
    """The unit of each frame of a bank's utterance."""
    return encode(codec, bank.waveform(index))


@torch.no_grad()
def student_states(student: Student, bank: SpeechBank, indices: list[int]) -> np.ndarray:
    """States of shape `(num_frames, 256)` of some of a bank's utterances, one after the other."""
    return np.concatenate([student.states(torch.from_numpy(bank.waveform(i))[None])[0].numpy() for i in indices])
