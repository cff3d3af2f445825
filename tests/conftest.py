"""Set-up and fixtures that all tests share."""

import os
from pathlib import Path

import pytest

from transform.legacy_keras import ensure_legacy_keras

# Any test may be the first to import TensorFlow, and TensorFlow chooses its Keras at that import.
ensure_legacy_keras()


@pytest.fixture(scope="session")
def ml1m_dir() -> Path:
    """The folder of MovieLens 1M, from the environment variable ML1M_DIR; if this is not set, the test is skipped."""
    folder = os.environ.get("ML1M_DIR")
    if not folder:
        pytest.skip(
            "ML1M_DIR is not set; it should name a folder with MovieLens 1M's ratings.dat, users.dat, movies.dat"
        )
    path = Path(folder)
    assert (path / "ratings.dat").is_file(), f"ML1M_DIR should name a folder with ratings.dat; received {folder!r}"
    return path
