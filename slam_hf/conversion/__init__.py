"""Readers of checkpoints of other toolkits. None of them executes a pickle."""

from .hifigan import read_hifigan
from .hubert import read_hubert, read_preprocessor
from .kmeans import read_kmeans


__all__ = ["read_hifigan", "read_hubert", "read_kmeans", "read_preprocessor"]
