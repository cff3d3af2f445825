"""Fingerprints of the project's own code, so that a cached result is not taken for that of newer code."""

import hashlib
from importlib import resources


def fingerprint(*packages: str) -> str:
    """A hash of the Python files of packages, sub-packages apart; it changes whenever one of them does."""
    digest = hashlib.sha256()
    for package in packages:
        folder = resources.files(package)
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                digest.update(entry.name.encode())
                digest.update(entry.read_bytes())
    return digest.hexdigest()[:16]
