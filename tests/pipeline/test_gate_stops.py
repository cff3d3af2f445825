"""If every row is valid but train and eval differ in distribution, the command stops before Transform and training."""

from pathlib import Path

import numpy as np
import pytest

from components.data.raw_files import read_movielens
from components.data.sample import generate_sample
from tests.pipeline.command_line import MOVIELENS, run_code

# With this temporal split, eval holds the ratings that follow the earliest 70 %.
SETTINGS = ("data.split.strategy=temporal", "data.split.fractions={train: 0.7, eval: 0.15, test: 0.15}")

pytestmark = [pytest.mark.component, pytest.mark.timeout(600)]


@pytest.fixture
def comedies_later(tmp_path: Path) -> Path:
    """A data set in which all ratings after the median timestamp are of comedies."""
    folder = tmp_path / "data"
    generate_sample(folder, users=300, movies=150, ratings=9000)
    data = read_movielens(folder)
    comedies = data.movies["movie_id"][["Comedy" in genres for genres in data.movies["genres"]]]
    times = data.ratings["timestamp"]
    kept = data.ratings["movie_id"].isin(comedies) | (times < times.median())
    lines = (folder / "ratings.dat").read_bytes().splitlines(keepends=True)
    (folder / "ratings.dat").write_bytes(b"".join(lines[row] for row in np.flatnonzero(kept)))
    return folder


def test_a_drifted_distribution_stops_the_run_and_is_listed(comedies_later, tmp_path):
    output = tmp_path / "output"
    completed = run_code(MOVIELENS, "run", "--data", str(comedies_later), "--output", str(output), settings=SETTINGS)
    assert completed.returncode == 2, completed.stderr + completed.stdout
    assert "train_eval, genres: High Linfty distance" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not list(output.glob("serving/*"))
    assert not list(output.glob("pipeline/Transform/*"))
    assert not list(output.glob("pipeline/DataGate/schema/*"))
    assert not (output / "summary.json").exists()
