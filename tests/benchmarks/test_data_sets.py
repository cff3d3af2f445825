"""Data sets of any size, readable as MovieLens files."""

import pytest

from benchmarks.data_sets import write_first_users, write_generated
from components.data.raw_files import read_movielens
from components.data.sample import generate_sample


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    generate_sample(folder, users=40, movies=60, ratings=1_000, seed=2)
    return folder


@pytest.mark.parametrize("rows", [1, 500, 999, 1_000])
def test_first_users_come_with_all_their_ratings(source, tmp_path, rows):
    whole = read_movielens(source)
    written = write_first_users(source, whole, rows, tmp_path / "part")
    part = read_movielens(tmp_path / "part")
    users = part.users["user_id"]
    assert users.tolist() == whole.users["user_id"][: len(users)].tolist()
    expected = whole.ratings[whole.ratings["user_id"].isin(users)].reset_index(drop=True)
    assert part.ratings.equals(expected)
    assert written == len(part.ratings) >= rows
    # Without the last user there would be too few.
    assert (expected["user_id"] != users.iloc[-1]).sum() < rows
    assert part.movies.equals(whole.movies)
    assert part.credits is not None


def test_users_may_be_in_any_order(source, tmp_path):
    for name in ("users.dat", "ratings.dat"):
        lines = (source / name).read_bytes().splitlines(keepends=True)
        (source / name).write_bytes(b"".join(reversed(lines)))
    written = write_first_users(source, read_movielens(source), 300, tmp_path / "part")
    part = read_movielens(tmp_path / "part")
    assert set(part.ratings["user_id"]) == set(part.users["user_id"])
    assert written == len(part.ratings) < 1_000


def test_generated_data_have_the_proportions_of_movielens(tmp_path):
    assert write_generated(2_000, tmp_path / "data") == 2_000
    data = read_movielens(tmp_path / "data")
    assert len(data.ratings) == 2_000
    assert len(data.movies) == 3_883
    assert len(data.ratings) / len(data.users) == pytest.approx(165.6, rel=0.05)
