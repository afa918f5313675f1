"""A very small corpus of real speech units, so that training runs before a corpus is at hand."""

from pathlib import Path


QUICKSTART_CORPUS = Path(__file__).parent / "corpus"
"""Parquet folder of a tokenised corpus, with its card: what `load_dataset` takes."""
