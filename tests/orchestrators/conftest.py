"""What tests of several files need."""

import importlib.util
from pathlib import Path

import pytest

from tests.orchestrators.small_airflow import Airflow


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    """Airflow in processes of its own: to import it sets up logging, so the tests' process must never do so."""
    if importlib.util.find_spec("airflow") is None:
        pytest.skip("airflow is not installed; it comes with the extra 'airflow'")
    return Airflow(tmp_path)
