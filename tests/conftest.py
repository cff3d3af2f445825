"""Set-up and fixtures that all tests share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transform.legacy_keras import ensure_legacy_keras

# Any test may be the first to import TensorFlow, and TensorFlow chooses its Keras at that import.
ensure_legacy_keras()


# Files with these markers can take minutes. With several workers they start first, so that none is left over at the
# end.
_LONGEST_FIRST = ("ml1m", "e2e", "beam", "component")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the files of tests, the longest first; within a file the order stays."""
    places: dict[Path, int] = {}
    for item in items:
        marked = [place for place, marker in enumerate(_LONGEST_FIRST) if item.get_closest_marker(marker)]
        places[item.path] = min([places.get(item.path, len(_LONGEST_FIRST)), *marked])
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="module", autouse=True)
def without_airflow() -> Iterator[None]:
    """Checks after each file that none of its tests imported Airflow into this process.

    That import sets up logging for the whole process, so tests of other files that read what a command prints would
    fail, depending on which worker runs them.
    """
    yield
    assert "airflow" not in sys.modules, "a test imported Airflow; it has to run in a process of its own"


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
