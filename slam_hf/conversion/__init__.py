"""Readers of foreign checkpoints. Whatever they read, no pickle is executed."""

from .hifigan import read_hifigan
from .hubert import read_hubert
from .kmeans import read_kmeans


__all__ = ["read_hifigan", "read_hubert", "read_kmeans"]
