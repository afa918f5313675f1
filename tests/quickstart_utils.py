"""Imports the modules of `hub_scripts/quickstart`, which is no installed package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_quickstart(name: str) -> ModuleType:
    """A module of the build of the quickstart data."""
    folder = str(Path(__file__).parents[1] / "hub_scripts")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"quickstart.{name}")
