"""Audio to units: seconds of audio per second, from waveforms in memory to the units of each clip.

All ways have the same clips and the same weights: a HuBERT-base at 25 Hz with random weights. The baseline is a plain
padded batch in the order of the clips, through all layers of transformers' `HubertModel` and scikit-learn's k-means.
It changes the units of most clips: the last column shows how many frames differ from those of the clip alone.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode
from transformers import HubertConfig, HubertModel

from slam_hf import HubertUnitCodec

from .turns import Comparison, describe_device, matmul_flops, take_turns


SAMPLING_RATE = 16_000
LAYER = 11
NUM_UNITS = 500
NUM_CLIPS = {"small": 6, "full": 512}
PLAIN_BATCH_SIZE = 8

LENGTH_QUANTILES = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], [1.4, 5.0, 11.4, 13.9, 15.2, 15.9, 24.5]
"""Roughly those of LibriSpeech's train-clean-100, in seconds. Their mean is 12.7."""


@dataclass
class Encoders:
    """The same encoder as transformers has it, with all its layers, and as a codec."""

    hubert: HubertModel
    codec: HubertUnitCodec
    predict: Callable[[np.ndarray], np.ndarray]

    @torch.inference_mode()
    def encode_plainly(self, clips: list[torch.Tensor]) -> list[np.ndarray]:
        """The unit of each frame of the clips, computed in one padded batch."""
        config = self.codec.config
        batch = nn.functional.pad(pad_sequence(clips, batch_first=True), (config.pad, config.pad))
        states = self.hubert(batch.to(self.codec.device), output_hidden_states=True).hidden_states[config.layer]
        units = self.predict(states.flatten(0, 1).float().cpu().numpy()).reshape(states.shape[:2])
        return [row[: len(clip) // config.hop_length] for row, clip in zip(units, clips, strict=True)]


def compare(size: str, rounds: int, seed: int, device: torch.device) -> Comparison:
    encoders = make_encoders(device)
    clips = make_clips(NUM_CLIPS[size], seed)
    seconds = sum(map(len, clips)) / SAMPLING_RATE
    codecs = {"clip by clip": (encoders.codec, False), "batched": (encoders.codec, True)}
    if device.type != "cpu":  # where it is slower than float32
        codecs["batched, bf16"] = (make_encoders(device, torch.bfloat16).codec, True)
    units: dict[str, list[np.ndarray]] = {}

    def encode_plainly() -> float:
        starts = range(0, len(clips), PLAIN_BATCH_SIZE)
        batches = [encoders.encode_plainly(clips[start : start + PLAIN_BATCH_SIZE]) for start in starts]
        units["plain padded"] = [row for batch in batches for row in batch]
        return seconds

    def encode(way: str) -> float:
        units[way] = encode_clips(*codecs[way], clips)
        return seconds

    ways = {"plain padded": encode_plainly} | {way: lambda way=way: encode(way) for way in codecs}
    turns = take_turns(ways, rounds)
    flops = flops_per_second_of_audio(encoders.codec)
    dtypes = {way: torch.bfloat16 if "bf16" in way else torch.float32 for way in ways}
    return Comparison(
        title=f"Audio to units: {len(clips)} clips, {seconds:.0f} s, {flops / 1e9:.1f} GFLOP per second of audio, on "
        + describe_device(device),
        unit="× real time",
        baseline="plain padded",
        turns=turns,
        limits={way: matmul_flops(device, dtype) / flops for way, dtype in dtypes.items()},
        notes={
            "frames that differ": {way: f"{_share_of_changes(units[way], units['clip by clip']):.2%}" for way in ways}
        },
    )


def make_encoders(device: torch.device, dtype: torch.dtype = torch.float32) -> Encoders:
    """A HuBERT-base at 25 Hz with random weights, always the same."""
    from sklearn.cluster import KMeans

    torch.manual_seed(0)
    strides = (5, 2, 2, 2, 2, 2, 2, 2)
    kernels = (10, 3, 3, 3, 3, 2, 2, 2)
    config = HubertConfig(conv_dim=(512,) * 8, conv_kernel=kernels, conv_stride=strides, conv_pos_batch_norm=True)
    hubert = HubertModel(config).eval()
    centroids = torch.randn(NUM_UNITS, config.hidden_size)
    codec = HubertUnitCodec.from_parts(hubert, centroids, layer=LAYER).to(device)
    codec.encoder.to(dtype)
    predict = KMeans(NUM_UNITS, init=centroids.numpy(), n_init=1, max_iter=1).fit(centroids.numpy()).predict
    return Encoders(hubert.to(device), codec, predict)


def make_clips(count: int, seed: int) -> list[torch.Tensor]:
    """Noise of the lengths of LibriSpeech's utterances."""
    rng = np.random.default_rng(seed)
    lengths = SAMPLING_RATE * np.interp(rng.random(count), *LENGTH_QUANTILES)
    return [torch.from_numpy(0.1 * rng.standard_normal(int(length), dtype=np.float32)) for length in lengths]


@torch.inference_mode()
def encode_clips(codec: HubertUnitCodec, batched: bool, clips: list[torch.Tensor]) -> list[np.ndarray]:
    """The unit of each frame of the clips, in batches of one padded length as the tokenisation makes them. As there, a
    batch is waited for once the next one is under way."""
    by_shape = defaultdict(list)
    for index, clip in enumerate(clips):
        by_shape[codec.batch_shape(len(clip), batched)].append(index)
    batches = [
        indices[start : start + shape[0]]
        for shape, indices in by_shape.items()
        for start in range(0, len(indices), shape[0])
    ]
    codes = [codec.encode([clips[index] for index in batch], batched=batched).audio_codes[:, 0] for batch in batches]
    units: list[np.ndarray] = [None] * len(clips)
    for batch, rows in zip(batches, codes, strict=True):
        for index, row in zip(batch, rows.cpu().numpy(), strict=True):
            units[index] = row[row >= 0]
    return units


def flops_per_second_of_audio(codec: HubertUnitCodec, seconds: int = 14) -> float:
    """Floating-point operations of the encoder per second of audio, in clips of the median length."""
    waveform = 0.1 * torch.randn(1, seconds * SAMPLING_RATE, device=codec.device)
    with FlopCounterMode(display=False) as counter:
        codec.encode(waveform, batched=False)
    return counter.get_total_flops() / seconds


def _share_of_changes(units: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(units) != np.concatenate(expected)))
