"""The phonetic teacher: states of Whisper base's fourth encoder layer, 25 a second, without position and speaker."""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperModel

from ..speech_bank import HOP_LENGTH, SpeechBank


LAYER = 4
WINDOW_FRAMES = 750
"""Whisper's window of 30 s, in frames of 40 ms."""

GAP_FRAMES = 2
"""Silence between two utterances in a window."""

WINDOWS_PER_BATCH = 4


@torch.no_grad()
def extract_states(whisper: Path, bank: SpeechBank) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Teacher states of all utterances of a bank.

    Args:
        whisper (`Path`):
            Folder of Whisper base.
        bank ([`SpeechBank`]):
            The utterances.

    Returns:
        `tuple` of `np.ndarray`: states of shape `(num_frames, 512)` in float16, and of shape `(num_frames,)` each
        frame's position in the window that it was computed in. Frames beyond 29.9 s of an utterance are zero.
    """
    encoder = WhisperModel.from_pretrained(whisper).encoder.eval()
    encoder.layers, encoder.layer_norm = encoder.layers[:LAYER], nn.Identity()
    feature_extractor = WhisperFeatureExtractor()
    states = np.zeros((bank.frame_offsets[-1], 512), np.float16)
    positions = np.zeros(bank.frame_offsets[-1], np.int16)
    windows = _pack(bank)
    for start in range(0, len(windows), WINDOWS_PER_BATCH):
        batch = windows[start : start + WINDOWS_PER_BATCH]
        audio = np.zeros((len(batch), WINDOW_FRAMES * HOP_LENGTH), np.float32)
        for row, window in zip(audio, batch, strict=True):
            for index, position, length in window:
                row[position * HOP_LENGTH : (position + length) * HOP_LENGTH] = bank.waveform(index)[
                    : length * HOP_LENGTH
                ]
        features = feature_extractor(list(audio), sampling_rate=16_000, return_tensors="pt").input_features
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encoder(features).last_hidden_state
        hidden = hidden.float().unflatten(1, (WINDOW_FRAMES, 2)).mean(2).numpy()
        for row, window in zip(hidden, batch, strict=True):
            for index, position, length in window:
                offset = bank.frame_offsets[index]
                states[offset : offset + length] = row[position : position + length]
                positions[offset : offset + length] = np.arange(position, position + length)
    return states, positions


def position_means(states: list[np.ndarray], positions: list[np.ndarray]) -> np.ndarray:
    """Mean state at each of Whisper's positions, smoothed over 9 frames: what its position embedding adds."""
    sums, counts = np.zeros((WINDOW_FRAMES, 512)), np.zeros((WINDOW_FRAMES, 1))
    for bank_states, bank_positions in zip(states, positions, strict=True):
        np.add.at(counts[:, 0], bank_positions, 1)
        np.add.at(sums, bank_positions, bank_states.astype(np.float32))
    return uniform_filter1d(sums / np.maximum(counts, 1), 9, axis=0, mode="nearest").astype(np.float32)


def _pack(bank: SpeechBank) -> list[list[tuple[int, int, int]]]:
    """Windows of `(utterance, position, length)`, in frames."""
    windows, position = [[]], 0
    for index in range(len(bank.rows)):
        length = min(bank.num_frames(index), WINDOW_FRAMES - 2 * GAP_FRAMES)
        if position + length > WINDOW_FRAMES - GAP_FRAMES:
            windows.append([])
            position = 0
        windows[-1].append((index, position, length))
        position += length + GAP_FRAMES
    return windows
