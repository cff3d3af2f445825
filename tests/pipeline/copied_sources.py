"""Copies of the project's sources, for tests that change them."""

import shutil
from pathlib import Path

from pipeline.source import PACKAGES, ROOT

_SOURCES = ROOT  # As it is before a test sets another one.


def copy_sources(folder: Path) -> Path:
    """Copies all packages into a folder, and returns it."""
    for package in PACKAGES:
        shutil.copytree(_SOURCES / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
