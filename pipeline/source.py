"""Fingerprints of the project's own code, so that a cached result is not taken for that of newer code."""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable


def fingerprint(*packages: str) -> str:
    """A hash of the Python files of packages and of all their sub-packages.

    It changes whenever one of these files is changed, added, removed, renamed or moved to another sub-package.

    Args:
      packages: names such as `components` or `components.data`.

    Returns:
      16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for package in packages:
        for path, file in _python_files(resources.files(package), package):
            content = file.read_bytes()
            # Path and length go before the content, so that nothing can slip from one file into the next unnoticed.
            digest.update(f"{path}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def _python_files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """The Python files below a folder, in the order of their names, with their paths."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        entry_path = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _python_files(entry, entry_path)
        elif entry.name.endswith(".py"):
            yield entry_path, entry
