"""What all tests share."""

import os
from pathlib import Path

import pytest

from transform.legacy_keras import ensure_legacy_keras

# Tests import TensorFlow in any order.
ensure_legacy_keras()


@pytest.fixture(scope="session")
def ml1m_dir() -> Path:
    """The folder of real MovieLens 1M, which ML1M_DIR names; without it the test is skipped."""
    folder = os.environ.get("ML1M_DIR")
    if not folder:
        pytest.skip(
            "ML1M_DIR is not set; it should name a folder with MovieLens 1M's ratings.dat, users.dat, movies.dat"
        )
    path = Path(folder)
    assert (path / "ratings.dat").is_file(), f"ML1M_DIR should name a folder with ratings.dat; received {folder!r}"
    return path
