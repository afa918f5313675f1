"""Readers of foreign checkpoints. Whatever they read, no pickle is executed."""

from .hifigan import read_hifigan
from .hubert import read_hubert
from .kmeans import read_kmeans
from .published import published_codec


__all__ = ["published_codec", "read_hifigan", "read_hubert", "read_kmeans"]
